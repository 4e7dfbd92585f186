"""The HTTP side of a fleet service as an agent sees it, in a thread, with faults to order.

Real sockets on loopback, own `TufRepo`, blobs with Range. Not the fleet service itself: that one is
tested elsewhere; here the point is what a hostile or broken one does to an agent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgekit.documents import Desired, EnrolAnswer, EnrolRequest, SlotDesire, TruthProbes
from tests.simulators.toy_model import PROFILE, Toy
from tests.simulators.tuf_repo import TufRepo

SECRET = "one-time-secret"


@dataclass(kw_only=True)
class FakeService:
    """State and faults. `broken_after`: cut each blob answer after so many bytes; `refuse`: answer
    requests whose path starts so with (status, headers); `log` has every request line with its Range."""

    repo: TufRepo = field(default_factory=TufRepo)
    blobs: dict[str, bytes] = field(default_factory=dict)
    enrolled: list[EnrolRequest] = field(default_factory=list)
    desired: bytes | None = None
    mqtt_port: int = 1
    broken_after: int | None = None
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    gen: int = 0

    @property
    def token(self) -> str:
        """A token that vouches for this service's root."""
        return f"{SECRET}.{self.repo.root_sha256}"

    def add(self, toy: Toy) -> None:
        """Release a toy package."""
        self.blobs.update(toy.blobs)
        self.repo.add_package(toy.manifest)
        self.repo.publish()

    def add_probes(self, data: bytes, *, number: int = 1, slot: str = "toy") -> TruthProbes:
        """Sign ground-truth probes."""
        path = f"probes/{slot}/{number}.npz"
        info = self.repo.add_target(path, data, {"edgekit": {"n": 12}})
        self.repo.publish()
        return TruthProbes(target=path, sha256=info.hashes["sha256"], bytes=len(data), min_accuracy=0.9)

    def wish(self, toy: Toy, **changes: Any) -> SlotDesire:
        """The slot's desire for a toy package."""
        given = {"trial_seconds": 0.2, **changes}
        return SlotDesire(
            release=toy.manifest.ref,
            package=toy.manifest.digest,
            variant=toy.variant.id,
            digest=toy.variant.digest,
            **given,
        )

    def desire(self, wish: SlotDesire, **changes: Any) -> Desired:
        """The next desired document for device ``dev-1``."""
        self.gen += 1
        given = {
            "device": "dev-1",
            "hardware": PROFILE,
            "gen": self.gen,
            "issued": 1_790_000_000.0,
            "deployment": f"r-{self.gen}",
            "slots": {"toy": wish},
            **changes,
        }
        return Desired(**given)

    def envelope(self, wish: SlotDesire, **changes: Any) -> bytes:
        """`desire`, signed by the director."""
        return self.repo.sign(self.desire(wish, **changes)).to_bytes()

    def answer(self, request: EnrolRequest) -> EnrolAnswer:
        """What enrolment gives."""
        self.enrolled.append(request)
        return EnrolAnswer(
            device="dev-1",
            tenant="acme",
            hardware=PROFILE,
            url=self.url,
            mqtt_host="127.0.0.1",
            mqtt_port=self.mqtt_port,
            username="dev-1",
            password="secret",
            root=self.repo.root_bytes.decode(),
        )


class _Handler(BaseHTTPRequestHandler):
    service: FakeService
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def _reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        service, path = self.service, self.path
        service.log.append((path, self.headers.get("Range", "")))
        for prefix, (status, headers) in service.refuse.items():
            if path.startswith(prefix):
                self._reply(status, b"no", headers)
                return
        if path.startswith("/tuf/"):
            data = service.repo.files.get(path.removeprefix("/tuf/"))
            self._reply(200, data) if data is not None else self._reply(404)
        elif path.startswith("/blobs/sha256/"):
            self._blob(path.rsplit("/", 1)[1])
        elif path.endswith("/desired") and service.desired is not None:
            self._reply(200, service.desired)
        else:
            self._reply(404)

    def _blob(self, sha: str) -> None:
        data = self.service.blobs.get(sha)
        if data is None:
            self._reply(404)
            return
        start = 0
        asked = self.headers.get("Range", "")
        if asked:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        body = data[start:]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.service.broken_after
        if cut is not None and len(body) > cut:
            self.wfile.write(body[:cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != "/v1/enrol":
            self._reply(404)
            return
        request = EnrolRequest.parse(body)
        if request.token.partition(".")[0] != SECRET:
            self._reply(403, json.dumps({"error": {"message": "the token is used up"}}).encode())
            return
        self._reply(200, self.service.answer(request).to_bytes())


@contextmanager
def fake_service() -> Iterator[FakeService]:
    """A running FakeService."""
    service = FakeService()
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
