"""An ONNX file open in onnxruntime-web, in the one browser that this process keeps.

Sessions take turns on the browser's page: threads and the runtime's WebAssembly memory are those of a page,
so that another session loads the page anew. A browser that crashed or hung is replaced by the next session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.errors import Refusal, ToolFailed
from edgekit_converters.onnx_session import BatchedSession
from edgekit_converters.targets.onnx.web.browser import Browser
from edgekit_converters.targets.onnx.web.server import Server

_OPEN, _RUN = 60.0, 120.0
"""Seconds for loading a model and for one batch; after that the browser is ended."""
_LEVELS = {"optimized": "all", "as-written": "disabled"}
_DTYPES = {"bool": np.bool_, "float16": np.float16}
_RUNS, _BUDGET_MS = 400, 400


class Page:
    """The browser with our page, and the session that has it now."""

    def __init__(self, program: Path, scripts: Path) -> None:
        self.server = Server(scripts)
        try:
            self.browser = Browser(program)
        except BaseException:
            self.server.close()
            raise
        self.owner: object = None
        self.product = self.browser.version()

    def close(self) -> None:
        """End the browser and the server."""
        self.browser.close()
        self.server.close()


_pages: dict[tuple[Path, Path], Page] = {}


def the_page(program: Path, scripts: Path) -> Page:
    """This process's page; a new one where the last is gone."""
    found = _pages.get((program, scripts))
    if found is None or not found.browser.alive:
        close_pages()
        found = _pages[program, scripts] = Page(program, scripts)
    return found


def close_pages() -> None:
    """End the browser and the server of this process."""
    while _pages:
        _pages.popitem()[1].close()


class WebSession(BatchedSession):
    """A model in the page, one kernel set and number of threads."""

    def __init__(self, page: Page, model: Path, *, kernels: str, threads: int) -> None:
        self._page, self._model = page, model.read_bytes()
        self._how = f"{threads}, {json.dumps(_LEVELS[kernels])}"
        facts = self._load()
        shapes = {item["name"]: item["shape"] for item in facts["inputs"]}
        super().__init__(shapes, facts["outputs"])
        written = "" if kernels == "optimized" else ", as written"
        self.backend = (
            f"wasm with SIMD, {facts['threads']} thread{'s' * (threads > 1)}{written}, {page.product}"
        )

    def call(self, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """One call of onnxruntime-web."""
        found = self._ask("run", self._fed(inputs), _RUN)
        data, start, values = self._page.server.answer, 0, []
        for item in found:
            kind = np.dtype(_DTYPES.get(item["type"], item["type"]))
            piece = data[start : start + item["size"]]
            values.append(np.frombuffer(piece, kind).reshape(item["dims"]).copy())
            start += item["size"]
        return values

    def timed(self, inputs: Mapping[str, Any]) -> list[float]:
        """Microseconds of single inferences, taken by the page's own clock."""
        n = self._step if self._fixed else 1
        fed = {name: np.resize(array[:1], (n, *array.shape[1:])) for name, array in inputs.items()}
        found = self._ask("time", self._fed(fed) + f", {_RUNS}, {_BUDGET_MS}", _RUN)
        return [1000.0 * value for value in found]

    def close(self) -> None:
        """Let the page go."""
        if self._page.owner is self:
            self._page.owner = None

    def _load(self) -> Any:
        page = self._page
        page.server.blobs["model"] = self._model
        page.browser.open(page.server.url)
        page.owner = self
        try:
            return page.browser.value(f"edgekit.open({self._how})", seconds=_OPEN)
        except ToolFailed as error:
            if error.code == "tool_timeout" or not page.browser.alive:
                raise
            raise Refusal(
                f"onnxruntime-web does not take the file: {error.message}",
                remedy="look at the ops it names; another precision may go",
                code="runtime_refused",
            ) from error

    def _fed(self, inputs: Mapping[str, Any]) -> str:
        """Put the inputs where the page fetches them; gives the list of what lies where, as JSON."""
        parts, pieces, start = [], [], 0
        for name in self.inputs:
            array = np.ascontiguousarray(inputs[name])
            piece = array.tobytes()
            facts = {"name": name, "type": str(array.dtype), "dims": array.shape}
            parts.append({**facts, "start": start, "size": len(piece)})
            pieces.append(piece)
            start += len(piece)
        self._page.server.blobs["feeds"] = b"".join(pieces)
        return json.dumps(parts)

    def _ask(self, verb: str, arguments: str, seconds: float) -> Any:
        if self._page.owner is not self:
            self._load()
        return self._page.browser.value(f"edgekit.{verb}({arguments})", seconds=seconds)
