"""Measuring where no broker is reached: orders come as a file, results leave as one.

The file of ``edgekit bench … --offline-request`` is a zip archive with the signed orders (``orders.json``),
the TUF metadata and targets they are verified with, and the variants' files. It is served to this machine
alone, on loopback, while it is worked through: so all is verified exactly as it is over the network. The
results are signed with the device's own key, because a file says nothing about who wrote it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgekit.documents import (
    BenchResult,
    BenchResults,
    DeviceStep,
    EnrolAnswer,
    Envelope,
    Signature,
)
from edgekit.errors import DocumentError
from edgekit.files import atomic_write, read_bytes
from edgekit.wire import parse_object
from edgekit_agent.bench_run import Bench, make_bench
from edgekit_agent.clock import SystemClock
from edgekit_agent.config import Home, load_config, load_identity
from edgekit_agent.detect import detect
from edgekit_agent.errors import BusyError, ConfigError, VerificationError
from edgekit_agent.state import status

ORDERS = "orders.json"
CONTEXT = b"edgekit bench results\n"
_ORDERS_LIMIT = 4 << 20
_CHUNK = 1 << 16


def run_file(home: Home, request: Path, out: Path) -> BenchResults:
    """Carry out every order of a file and write the signed results.

    Raises:
        NotEnrolledError: this home has no identity.
        ConfigError: the file is no request.
        BusyError: the agent of this home installs something, or another measurement runs.
        VerificationError: nobody of trust gave any of the orders, or all were carried out before.
        StorageError: this device cannot write.
    """
    identity, config = load_identity(home), load_config(home.config)
    _check_idle(home)
    with _opened(request) as archive:
        envelopes = _orders(archive, request)
        with _served(archive) as url:
            bench = make_bench(home, config.limits, replace(identity, url=url), detect(config), SystemClock())
            results = _carried_out(bench, envelopes)
    found = BenchResults(device=identity.device, results=results)
    atomic_write(out, _signed(home, identity, found).to_bytes())
    return found


def _carried_out(bench: Bench, envelopes: Sequence[bytes]) -> tuple[BenchResult, ...]:
    """What is left to do of a file: an order that was carried out before an interruption is passed over."""
    results: list[BenchResult] = []
    doubt: VerificationError | None = None
    for envelope in envelopes:
        try:
            results.append(bench.measure(envelope, stop=threading.Event()))
        except VerificationError as error:
            doubt = doubt or error
    if doubt is not None and not results:
        raise doubt
    return tuple(results)


def _check_idle(home: Home) -> None:
    facts = status(home)
    step = DeviceStep(facts["step"])
    if facts["running"] and not step.terminal and step is not DeviceStep.IDLE:
        raise BusyError(
            f"the agent of this home is {step.value} a model",
            where=str(home.path),
            remedy="measure when the deployment has ended",
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (OSError, zipfile.BadZipFile) as error:
        raise _no_request(path, str(error)) from error


def _orders(archive: zipfile.ZipFile, path: Path) -> list[bytes]:
    try:
        item = archive.getinfo(ORDERS)
        if item.file_size > _ORDERS_LIMIT:
            raise _no_request(path, "its orders are too large")
        body = parse_object(archive.read(item), where=ORDERS)
        return [Envelope.from_dict(value).to_bytes() for value in body["orders"]]
    except (KeyError, TypeError, DocumentError) as error:
        raise _no_request(path, str(error)) from error


def _no_request(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"is no request for a measurement: {why}",
        where=str(path),
        remedy="make one with: edgekit bench PACKAGE --device NAME --offline-request FILE",
        code="bad_request_file",
    )


@contextlib.contextmanager
def _served(archive: zipfile.ZipFile) -> Iterator[str]:
    """The address below which the archive's members are, on loopback, inside the block."""
    members = {f"/{item.filename}": item for item in archive.infolist()}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        """Hands out members by their exact names."""

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            """One member, whole."""
            item = members.get(self.path)
            if item is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(item.file_size))
            self.end_headers()
            with lock, archive.open(item) as stream, contextlib.suppress(OSError):
                while piece := stream.read(_CHUNK):
                    self.wfile.write(piece)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _signed(home: Home, identity: EnrolAnswer, found: BenchResults) -> Envelope:
    """The results with this device's signature."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(read_bytes(home.key, limit=_CHUNK), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError("is not an Ed25519 key", where=str(home.key), remedy="enrol the device again")
    envelope = Envelope(signed=json.loads(found.to_bytes()), signatures=())
    made = private.sign(CONTEXT + envelope.payload())
    return replace(envelope, signatures=(Signature(keyid=identity.device, sig=made.hex()),))


def summary(result: BenchResult) -> str:
    """One line for people."""
    if result.figures is None:
        assert result.reason is not None
        return f"{result.cid}  {result.state}: {result.reason.code}: {result.reason.text}"
    figures = result.figures
    return (
        f"{result.cid}  median {figures.median_us:.0f} µs, p90 {figures.p90_us:.0f} µs, "
        f"p99 {figures.p99_us:.0f} µs, n {figures.n}, {figures.memory_mb:.0f} MiB, "
        f"{figures.runtime} {figures.runtime_version} ({figures.backend})"
    )


__all__ = ["CONTEXT", "ORDERS", "run_file", "summary"]
