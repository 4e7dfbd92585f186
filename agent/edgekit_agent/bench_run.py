"""One measurement from the signed order to its result: verify, check, fetch apart, run the child, tidy up.

Works in ``state/bench``, never in the store that serving stands on: nothing here can remove or change an
installed file. Blocking; `edgekit_agent.bench` and `edgekit_agent.bench_file` run it, each in its way.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgekit.documents import (
    BenchFigures,
    BenchOrder,
    BenchResult,
    DeviceFacts,
    EnrolAnswer,
    Envelope,
    Reason,
)
from edgekit.errors import DocumentError, EdgekitError, StorageError
from edgekit.package import File, Manifest
from edgekit.ports import Clock
from edgekit.select import variant_table, why_not
from edgekit_agent import web
from edgekit_agent.bench_book import BenchBook
from edgekit_agent.config import Home, Limits
from edgekit_agent.detect import Detected
from edgekit_agent.download import Downloader, Patience
from edgekit_agent.errors import InstallError, VerificationError
from edgekit_agent.store import Store, files_of
from edgekit_agent.trust import OrderTrust, TrustChild

_LOOK_SECONDS = 0.1
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a device measures with.

    `runtimes` says where each usable runtime's class is. `trust` has TUF metadata of its own
    (``state/bench-tuf``), so that it never writes where the lifecycle's does.
    """

    home: Home
    limits: Limits
    trust: OrderTrust
    downloader: Downloader
    clock: Clock
    facts: DeviceFacts
    runtimes: Mapping[str, str]
    device: str

    @property
    def book(self) -> BenchBook:
        """What was measured before."""
        return BenchBook(self.home.state)

    def measure(self, envelope: bytes, *, stop: threading.Event) -> BenchResult:
        """Carry an order out, once.

        Args:
            envelope: the signed order, not believed yet.
            stop: ends the measurement early when it is set.

        Raises:
            VerificationError: nobody of trust gave this order, or it was carried out before.
            BusyError: another measurement runs.
            StorageError: this device cannot write.
        """
        with self.book.alone():
            order = self._verified(envelope)
            if isinstance(order, BenchResult):
                return order
            self.book.take(order, now=self.clock.now())
            try:
                return self._carried_out(order, stop)
            finally:
                shutil.rmtree(self._work, ignore_errors=True)
                self.book.done()

    @property
    def _work(self) -> Path:
        return self.home.state / "bench"

    def _verified(self, envelope: bytes) -> BenchOrder | BenchResult:
        shutil.rmtree(self._work, ignore_errors=True)
        claimed = peeked(envelope)
        if claimed is not None:
            self._check_new(claimed)
        try:
            return self.trust.order(envelope, now=self.clock.now(), store=self._work)
        except VerificationError as error:
            if error.stage != "package" or claimed is None:
                raise
            self.book.take(claimed, now=self.clock.now())
            self.book.done()
            return self.ended(claimed, "refused", error)

    def _check_new(self, claimed: BenchOrder) -> None:
        """What can be told without checking a signature, which costs more."""
        cid, code = claimed.cid, ""
        if self.book.knows(cid):
            code, text = "replayed", f"order {cid} was carried out before"
        elif claimed.expires <= self.clock.now():
            code, text = "expired", f"order {cid} has expired"
        if code:
            raise VerificationError(text, code=code, stage="envelope", where="order")

    def _carried_out(self, order: BenchOrder, stop: threading.Event) -> BenchResult:
        try:
            if stop.is_set():
                raise InstallError("it is installing or trying a model", code="busy", retryable=True)
            manifest = Store(self._work).manifest(order.package)
            self._check(order, manifest)
            folder = self._fetch(order, manifest, stop)
            self.trust.files(folder, package=order.package, variant=order.variant)
            figures = run_child(self._request(order, manifest, folder), self.limits, stop=stop)
        except InstallError as error:
            if error.code == "cancelled":
                error = _interrupted()
            refused = error.code in _REFUSALS
            return self.ended(order, "refused" if refused else "failed", error)
        except VerificationError as error:
            return self.ended(order, "refused", error)
        except EdgekitError as error:
            return self.ended(order, "failed", error)
        return self._result(order, state="done", figures=figures)

    def ended(self, order: BenchOrder, state: str, error: EdgekitError) -> BenchResult:
        """The result of an order that gave no figures."""
        retryable = bool(getattr(error, "retryable", False))
        reason = Reason(code=error.code, text=_one_line(str(error)), retryable=retryable)
        return self._result(order, state=state, reason=reason)

    def _result(self, order: BenchOrder, **facts: Any) -> BenchResult:
        return BenchResult(
            cid=order.cid,
            device=self.device,
            at=self.clock.now(),
            digest=order.digest,
            hardware=self.facts.hardware,
            **facts,
        )

    def _check(self, order: BenchOrder, manifest: Manifest) -> None:
        """The device's own opinion, before anything is fetched."""
        entry = next((item for item in variant_table(manifest) if item.id == order.variant), None)
        why = why_not(entry, self.facts, allow_unverified=True) if entry else "it is not in the package"
        if self.limits.bench_seconds == 0:
            raise InstallError("this device takes part in no measurement", code="bench_disabled")
        if why is not None:
            raise InstallError(f"variant {order.variant} cannot run here: {why}", code="incompatible")
        if order.threads > self.facts.cpu_count:
            text = f"{order.threads} threads were asked for, this device has {self.facts.cpu_count} cores"
            raise InstallError(text, code="too_many_threads")
        if manifest.variant(order.variant).requires.runtime not in self.runtimes:
            raise InstallError(f"the runtime of {order.variant} is not enabled here", code="runtime_missing")

    def _fetch(self, order: BenchOrder, manifest: Manifest, stop: threading.Event) -> Path:
        """The variant's files in the folder of this measurement; what is installed is not fetched again."""
        work, installed = Store(self._work), Store(self.home.store)
        files = files_of(manifest.variant(order.variant))
        for item in files:
            partial = work.partial(item.sha256)
            if not _borrowed(installed, item, partial):
                self.downloader.fetch(item, partial, stop=stop)
            work.adopt(item)
        return work.assemble(order.package, files)

    def _request(self, order: BenchOrder, manifest: Manifest, folder: Path) -> dict[str, Any]:
        return {
            "folder": str(folder),
            "variant": order.variant,
            "runtime": self.runtimes[manifest.variant(order.variant).requires.runtime],
            "runs": order.runs,
            "seconds": min(order.seconds, self.limits.bench_seconds),
            "threads": order.threads,
            "memory_mb": self.limits.bench_memory_mb,
        }


def make_bench(
    home: Home,
    limits: Limits,
    identity: EnrolAnswer,
    detected: Detected,
    clock: Clock,
    patience: Patience | None = None,
) -> Bench:
    """What the enrolled device of a home measures with."""
    service = web.Service(url=identity.url, username=identity.username, password=identity.password)
    return Bench(
        home=home,
        limits=limits,
        trust=TrustChild(
            home,
            service,
            device=identity.device,
            hardware=(),
            seconds=limits.child_seconds,
            state=home.state / "bench-tuf",
        ),
        downloader=Downloader(
            service,
            limit=limits.download_mb << 20,
            free=limits.free_mb << 20,
            patience=patience or Patience(stall=limits.stall_seconds),
        ),
        clock=clock,
        facts=detected.facts,
        runtimes=detected.runtimes,
        device=identity.device,
    )


_REFUSALS = frozenset(
    {"bench_disabled", "incompatible", "too_many_threads", "runtime_missing", "too_large", "busy"}
)


def _interrupted() -> InstallError:
    return InstallError("the device had something more important to do", code="interrupted", retryable=True)


def _one_line(text: str) -> str:
    """What a foreign runtime said, fit to be shown: one line of printable characters."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())[:500]


def peeked(envelope: bytes) -> BenchOrder | None:
    """What an envelope says, believed by nobody yet."""
    try:
        return BenchOrder.from_dict(Envelope.parse(envelope).signed)
    except DocumentError:
        return None


def run_child(request: Mapping[str, Any], limits: Limits, *, stop: threading.Event) -> BenchFigures:
    """Measure in a process of its own, ended when it takes too long or too much, or when `stop` is set.

    Raises:
        InstallError: it gave no figures; `code` says why.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(request["threads"])}
    command = [sys.executable, "-m", "edgekit_agent.bench_child"]
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=errors, env=environment
            )
            try:
                _ask(child, request)
                _wait(child, limits, seconds=float(request["seconds"]), stop=stop)
            finally:
                child.kill()
                child.wait()
                if child.stdin is not None:
                    child.stdin.close()
            return _answer(child.returncode, out, errors)
    except OSError as error:
        raise StorageError(f"the measurement could not be started: {error}") from error


def _ask(child: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    """Its standard input stays open afterwards: it ends with this process."""
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return  # it has ended already; its exit says why


def _wait(child: subprocess.Popen[bytes], limits: Limits, *, seconds: float, stop: threading.Event) -> None:
    end = time.monotonic() + seconds + limits.child_seconds
    while child.poll() is None:
        if stop.wait(_LOOK_SECONDS):
            raise _interrupted()
        if time.monotonic() > end:
            raise InstallError(
                f"no figures after {seconds + limits.child_seconds:.0f} s", code="bench_timeout"
            )
        if _resident_mb(child.pid) > limits.bench_memory_mb:
            raise InstallError(f"it took more than {limits.bench_memory_mb} MB", code="low_memory")


def _answer(code: int, out: IO[bytes], errors: IO[bytes]) -> BenchFigures:
    out.seek(0)
    try:
        answer = json.loads(out.read(1 << 16))
    except ValueError:
        raise InstallError(
            f"the measuring process gave no figures: {_why(code, errors)}", code="bench_crashed"
        ) from None
    if not answer["ok"]:
        raise InstallError(str(answer["message"]), code=str(answer["code"]), where=answer.get("where"))
    return BenchFigures.from_dict(answer["figures"])


def _why(code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    said = f" ({lines[-1][:200]})" if lines else ""
    return (f"it was ended by signal {-code}" if code < 0 else f"exit code {code}") + said


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_MB
    except (OSError, ValueError, IndexError):
        return 0.0


def _borrowed(installed: Store, item: File, place: Path) -> bool:
    """Whether the bytes could be taken from what is installed.

    Raises:
        InstallError: the disk refuses.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not installed.has(item):
            return False
        shutil.copyfile(installed.blob(item.sha256), place)
    except OSError as error:
        code = "disk_full" if error.errno == errno.ENOSPC else "storage"
        raise InstallError(str(error), code=code, retryable=True) from error
    return True


__all__ = ["Bench", "make_bench", "peeked", "run_child"]
