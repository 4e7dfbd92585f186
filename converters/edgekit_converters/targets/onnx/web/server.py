"""The page's server: loopback only, one folder of scripts and the bytes in flight, gone with its process.

Every path begins with a random word, so that other programs of this machine can neither read models nor
answer in the page's place. The headers make the page cross-origin isolated: threads of WebAssembly need that.
"""

from __future__ import annotations

import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".html": "text/html",
}
_SCRIPT = re.compile(r"ort/([A-Za-z0-9._-]+\.(?:m?js|wasm))\Z")
_POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "connect-src 'self'; img-src data:"
)


class Server:
    """Serves the page, the package's scripts in `scripts`, and what is put into `blobs`; keeps the answer."""

    def __init__(self, scripts: Path) -> None:
        self.blobs: dict[str, bytes] = {}
        self.answer = b""
        self._word = secrets.token_urlsafe(16)
        self._scripts = scripts
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/{self._word}/page.html"

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()

    def find(self, path: str) -> bytes | None:
        """The body for a path below the word."""
        if path in ("page.html", "page.js"):
            return (files("edgekit_converters.targets.onnx.web") / path).read_bytes()
        if found := _SCRIPT.match(path):
            file = self._scripts / found.group(1)
            return file.read_bytes() if file.is_file() else None
        return self.blobs.get(path)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server, start = self, f"/{self._word}/"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """A file or a blob."""
                path = self.path.removeprefix(start) if self.path.startswith(start) else ""
                body = server.find(path)
                self._send(404 if body is None else 200, body or b"", _TYPES.get(Path(path).suffix))

            def do_POST(self) -> None:
                """The answer of a run."""
                if self.path != f"{start}answer":
                    self.close_connection = True
                    return self._send(404, b"", None)
                server.answer = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return self._send(200, b"", None)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

            def _send(self, status: int, body: bytes, kind: str | None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind or "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", _POLICY)
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                self.send_header("Cross-Origin-Resource-Policy", "same-origin")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

        return Handler
