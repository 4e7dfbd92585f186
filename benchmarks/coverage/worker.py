"""One process that takes names of tests from standard input and answers with JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.coverage.peers import PEERS, charitable
from benchmarks.coverage.routes import ROUTES, original, redrawn
from benchmarks.coverage.suite import Arrays, NodeTest, NotTensors, matches, suite
from edgekit.errors import EdgekitError
from edgekit_converters.engine.worker import prepare
from edgekit_converters.onnx_session import REFUSALS

_NOT_TAKEN = (*REFUSALS, ValueError, TypeError)
"""What onnxruntime and its Python side raise for a model or inputs that they do not take."""


def main() -> None:
    """Serve until standard input ends."""
    target = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if target not in PEERS:
        prepare({"coreml": "coremltools"}.get(target, "plain"))
    tests = {test.name: test for test in suite()}
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        for answer in judge(tests[line.strip()], target):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def judge(test: NodeTest, target: str) -> Iterator[dict[str, Any]]:
    """First whether onnxruntime is right (``ceiling``), then what becomes of the test with us.

    ``right``, ``refused``, ``failed`` or ``wrong`` (shipped and wrong).
    """
    try:
        inputs, expected = test.data()
    except NotTensors:
        yield {"ceiling": False}
        yield {"outcome": "refused", "code": "not_tensors", "detail": ""}
        return
    reference, ceiling = _ceiling(test, inputs, expected)
    yield {"ceiling": ceiling}
    yield _compiled(test, target, inputs, expected, reference)


def _ceiling(test: NodeTest, inputs: Arrays, expected: Arrays) -> tuple[Any, bool]:
    try:
        run = original(test.model())
        return run, _same(expected, run(inputs))
    except _NOT_TAKEN:
        return None, False


def _compiled(
    test: NodeTest, target: str, inputs: Arrays, expected: Arrays, reference: Any
) -> dict[str, Any]:
    try:
        if target in PEERS:
            got = PEERS[target](test.model())(inputs)
            got = {name: charitable(expected[name], value) for name, value in got.items()}
            return _judged(expected, got)
        run = ROUTES[target](test.model())
        if reference is None:
            return {"outcome": "refused", "code": "no_reference", "detail": ""}
        other, own = _verdict_values(reference, inputs, _declared(test))
        if other is None:
            return {"outcome": "refused", "code": "no_reference", "detail": ""}
        if not _same(reference(other), run(other)):
            return {"outcome": "refused", "code": "accuracy_breach", "detail": ""}
        return {**_judged(expected, run(inputs)), "own_values": own}
    except EdgekitError as error:
        return {"outcome": "refused", "code": error.code, "detail": str(error)[:300]}
    except (Exception, SystemExit) as error:  # the worker boundary of the product does the same
        if os.environ.get("COVERAGE_TRACE"):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"outcome": "failed", "code": "tool_failed", "detail": text}


def _judged(expected: Arrays, got: Arrays) -> dict[str, Any]:
    if _same(expected, got):
        return {"outcome": "right", "code": "", "detail": ""}
    return {"outcome": "wrong", "code": "", "detail": _difference(expected, got)}


def _declared(test: NodeTest) -> dict[str, tuple[int, ...]]:
    """The sizes that the model promises of its outputs, where it promises all."""
    found = {}
    for value in test.model().graph.output:
        shape = value.type.tensor_type.shape
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in shape.dim)
    return found


def _verdict_values(
    reference: Any, inputs: Arrays, declared: dict[str, tuple[int, ...]]
) -> tuple[Arrays | None, bool]:
    """Values on which the product would reach its verdict, and whether they are the test's own.

    Redrawn ones, unless they mean nothing to this op: onnxruntime refuses them, or they break what the model
    promises of its outputs' sizes. None where onnxruntime computes neither.
    """
    other = redrawn(inputs, 7)
    try:
        wanted = reference(other)
        if all(wanted[name].shape == shape for name, shape in declared.items()):
            return other, False
    except _NOT_TAKEN:
        pass
    try:
        reference(inputs)
    except _NOT_TAKEN:
        return None, True
    return inputs, True


def _same(expected: Arrays, got: Arrays) -> bool:
    return all(name in got and matches(value, got[name]) for name, value in expected.items())


def _difference(expected: Arrays, got: Arrays) -> str:
    for name, value in expected.items():
        if name not in got:
            return f"no output {name}"
        if not matches(value, got[name]):
            return f"{name}: {value.dtype}{value.shape} against {got[name].dtype}{got[name].shape}"
    return ""


if __name__ == "__main__":
    main()
