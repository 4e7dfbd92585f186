"""A headless Chromium with one page, spoken to in its DevTools protocol over two pipes.

No port is opened and nothing is installed beside the browser. It ends with `close`, with this process however
that ends (see `keeper`), and when it does not answer in time. Protocol:
https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgekit_converters.errors import ToolFailed
from edgekit_converters.targets.onnx.web import keeper

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it refuses to start as root otherwise; all it ever loads is our own page
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate,DialMediaRouteProvider",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    "--use-mock-keychain",
)
_START = 60.0
_LOST = ("Inspector.targetCrashed", "Inspector.detached", "Target.targetCrashed")


def find_browser() -> Path | None:
    """The Chromium of this machine: ``EDGEKIT_CHROMIUM`` if set, else the first found on the path."""
    own = os.environ.get("EDGEKIT_CHROMIUM")
    found = shutil.which(own) if own else next(filter(None, map(shutil.which, PROGRAMS)), None)
    return Path(found) if found else None


class Browser:
    """The browser and its page. Errors of the page's console and what it asked for are kept for the reader.

    Raises (every method):
        ToolFailed: it crashed, ended, or did not answer in time; it is gone then, with all its processes.
    """

    def __init__(self, program: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-web-"))
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._session = ""
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._read, self._write = ours_in, ours_out
        command = [sys.executable, "-S", "-E", keeper.__file__, str(theirs_in), str(theirs_out)]
        profile = self._folder / "profile"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *command,
                    str(self._folder),
                    str(program),
                    *_FLAGS,
                    f"--user-data-dir={profile}",
                    "about:blank",
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(theirs_in, theirs_out),
                start_new_session=True,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._read >= 0 and self._process.poll() is None

    def close(self) -> None:
        """End every process of it and remove its folder."""
        if self._read < 0:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self._read)
        os.close(self._write)
        self._read = self._write = -1
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, *, seconds: float = 30.0, **parameters: Any) -> dict[str, Any]:
        """One command to the page (to the browser before there is one) and its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        end = time.monotonic() + seconds
        try:
            os.write(self._write, json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise self._failed("the browser ended") from error
        while True:
            answer = self._next(end, method, seconds)
            if answer.get("id") == number:
                if "error" in answer:
                    raise ToolFailed(f"the browser refused {method}: {answer['error'].get('message')}")
                return dict(answer["result"])
            self._note(answer)

    def open(self, url: str) -> None:
        """Go to `url` and wait until the page has loaded."""
        self.call("Page.navigate", url=url)
        self.value(
            "new Promise(done => document.readyState === 'complete' ? done(true)"
            " : addEventListener('load', () => done(true)))"
        )

    def value(self, script: str, *, seconds: float = 30.0) -> Any:
        """The JSON value of a JavaScript expression; promises are waited for."""
        answer = self.call(
            "Runtime.evaluate", seconds=seconds, expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            facts = answer["exceptionDetails"]
            said = facts.get("exception", {})
            text = str(said.get("description") or said.get("value") or facts.get("text"))
            # Without the stack: it names our own page, by a port and a word that are others each time.
            raise ToolFailed(" ".join(re.split(r"\n\s+at ", text)[0].split())[:400])
        return answer["result"].get("value")

    def version(self) -> str:
        """Such as ``Chrome/140.0.7339.80``."""
        return str(self.call("Browser.getVersion")["product"])

    def _attach(self) -> None:
        targets = self.call("Target.getTargets", seconds=_START)["targetInfos"]
        page = next(item["targetId"] for item in targets if item["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Inspector"):
            self.call(f"{domain}.enable", seconds=_START)

    def _next(self, end: float, method: str, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.close()
                raise ToolFailed(
                    f"the browser took more than {seconds:g} s for {method} and was ended",
                    code="tool_timeout",
                )
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise self._failed("the browser ended")
            self._buffer += piece
        head, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(head)
        if message.get("method") in _LOST:
            raise self._failed("the page crashed")
        return message

    def _note(self, message: dict[str, Any]) -> None:
        facts = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(facts["exceptionDetails"].get("exception", facts)))
            case "Log.entryAdded" if facts["entry"]["level"] == "error":
                self.errors.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}".strip())
            case "Runtime.consoleAPICalled" if facts["type"] in ("error", "assert"):
                self.errors.append(" ".join(str(item.get("value", "")) for item in facts["args"]))
            case "Network.requestWillBeSent":
                self.requests.append(str(facts["request"]["url"]))

    def _failed(self, what: str) -> ToolFailed:
        said: list[str] = []
        with contextlib.suppress(OSError):
            said = (self._folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        self.close()
        return ToolFailed(f"{what}: {said[-1][:300] if said else 'it said nothing'}")
