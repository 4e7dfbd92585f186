"""The worker process: runs one foreign tool after another and answers in JSON lines.

Started as ``python -m edgekit_converters.engine.worker KIND``. A request is one line
``{"task": name, "args": {…}}``, the answer one line ``{"ok": …}`` or ``{"error": {…}}``. Standard
output is kept for answers: whatever a tool prints goes to standard error. Tasks are those of
`edgekit_converters.engine.tasks` and no others. The parent kills a worker that takes too long or too
much memory; losing a worker loses one task.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import logging
import os
import sys
import traceback
import warnings
from typing import Any

from edgekit.errors import EdgekitError, UnavailableError
from edgekit_converters.errors import is_disk_full, storage_error

_BLOCKED = {
    "coremltools": ("tensorflow", "torch", "sklearn", "xgboost", "keras", "libsvm", "executorch"),
    "plain": ("tensorflow", "torch", "coremltools", "keras"),
    "tensorflow": ("torch", "coremltools"),
    "torch": ("tensorflow", "coremltools", "keras"),
    "user": (),
}
"""What a kind of worker must never import: coremltools imports every framework that it finds.
The user's own code (``user``) has all there is."""


_EXTRAS = {
    "tf": ("tensorflow", "keras", "tf2onnx"),
    "torch": ("torch", "onnxscript"),
    "ml": ("skl2onnx", "xgboost", "lightgbm"),
}
"""Which extra brings a package."""


class _Blocked(importlib.abc.MetaPathFinder):
    """Makes packages look as if they were not installed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse blocked names, leave the rest to the other finders."""
        if fullname.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"{fullname} is kept out of this process", name=fullname)


class _Hidden(importlib.abc.MetaPathFinder):
    """The same for packages that a tool looks for without importing them: nobody finds them."""

    def __init__(self, names: tuple[str, ...], finders: list[Any]) -> None:
        self._names, self._finders = names, finders

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """What the first of the other finders says, nothing for hidden names."""
        if fullname.partition(".")[0] in self._names:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in self._finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *context: Any) -> Any:
        """What is installed, by its metadata."""
        able = [finder for finder in self._finders if hasattr(finder, "find_distributions")]
        return (item for finder in able for item in finder.find_distributions(*context))


def main() -> None:
    """Serve requests until standard input ends."""
    kind = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    prepare(kind)
    tasks = importlib.import_module("edgekit_converters.engine.tasks")
    for line in sys.stdin:
        request = json.loads(line)
        answer = _answer(tasks.TASKS[request["task"]], request["args"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def prepare(kind: str) -> None:
    """Make this process one of `kind`: one thread a tool, no noise, and what must stay apart stays apart."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", KERAS_BACKEND="tensorflow")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if kind == "torch":  # it asks which frameworks there are
        sys.meta_path[:] = [_Hidden(_BLOCKED[kind], list(sys.meta_path))]
    else:
        sys.meta_path.insert(0, _Blocked(_BLOCKED[kind]))


def _answer(task: Any, args: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": task(**args)}
    except EdgekitError as error:
        return {"error": {**error.as_dict(), "class": type(error).__name__, "exit_code": error.exit_code}}
    except ModuleNotFoundError as error:
        return {"error": _missing(error)}
    except OSError as error:
        if not is_disk_full(error):
            return {"error": _failed(error)}
        full = storage_error(error, "the temporary folder", "a tool could not write", "")
        return {"error": {**full.as_dict(), "class": "StorageError"}}
    except Exception as error:  # noqa: BLE001  # the named boundary around foreign tools
        traceback.print_exc()
        return {"error": _failed(error)}


def _missing(error: ModuleNotFoundError) -> dict[str, Any]:
    package = (error.name or "").partition(".")[0]
    extra = next((f"[{name}]" for name, packages in _EXTRAS.items() if package in packages), "")
    found = UnavailableError(
        f"{package or error} is not installed",
        remedy=f"pip install 'edgekit-converters{extra}'",
        code="tool_not_installed",
    )
    return {**found.as_dict(), "class": "UnavailableError"}


def _failed(error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).split())[:400]
    facts = {"code": "tool_failed", "where": None, "remedy": None, "class": "ToolFailed"}
    return {**facts, "message": f"{type(error).__name__}: {text}"}


if __name__ == "__main__":
    main()
