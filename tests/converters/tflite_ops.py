"""For the tests of single lowerings: a graph in onnx's text form, compiled, run by LiteRT, and compared
with onnxruntime on every feed. One file serves all feeds, so a graph with free sizes is resized between
them, and nothing may be left over from the feed before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter

from edgekit_converters import hub
from edgekit_converters.targets.tflite.lower import Lowered, build

Arrays = Mapping[str, Any]
_HEAD = '<ir_version: 10, opset_import: ["" : 21]> '


def parsed(graph: str) -> onnx.ModelProto:
    """A model of opset 21 from onnx's text form; ``float[]`` is a tensor of unknown rank."""
    return onnx.parser.parse_model(_HEAD + graph)


@cache
def lowered(graph: str) -> Lowered:
    """What the product makes of it."""
    return build(hub.canonical(parsed(graph)).model)


def agrees(graph: str, *feeds: Arrays, rtol: float = 2e-6, atol: float = 1e-6) -> Lowered:
    """Fail unless LiteRT gives what onnxruntime gives: whole numbers exactly, types and shapes too."""
    model = parsed(graph)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    made = lowered(graph)
    runner = Interpreter(model_content=made.data, num_threads=1).get_signature_runner()
    for feed in feeds:
        wanted = dict(zip(names, session.run(names, dict(feed)), strict=True))
        found = runner(**{name: feed[name] for name in runner.get_input_details()})
        for name in names:
            same(wanted[name], np.asarray(found[name]), rtol=rtol, atol=atol)
    return made


def same(wanted: Any, found: Any, *, rtol: float, atol: float) -> None:
    """Fail unless both are equal in type, shape and value."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(found, wanted)


def floats(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Any:
    """Uniform float32."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def whole(*shape: int, seed: int = 0, low: int = -9, high: int = 9, dtype: str = "int64") -> Any:
    """Uniform whole numbers from `low` to below `high`."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
