"""Col2Im by computed places gives what onnxruntime's Col2Im gives, with the block's shape fed or known."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgekit_converters import hub
from tests.converters.tflite_ops import agrees, floats, parsed

# Image, block, strides, dilations, pads.
FORMS = [
    ((5, 5), (1, 5), (1, 1), (1, 1), (0, 0, 0, 0)),
    ((6, 7), (2, 3), (2, 1), (1, 2), (1, 0, 1, 2)),
    ((5, 5), (3, 2), (1, 2), (2, 1), (0, 2, 1, 0)),
    ((9,), (3,), (2,), (1,), (1, 1)),
    ((3, 4, 5), (1, 2, 3), (1, 1, 1), (1, 1, 1), (0, 0, 1, 0, 0, 1)),
]
Numbers = tuple[int, ...]


def steps(image: Numbers, block: Numbers, strides: Numbers, dilations: Numbers, pads: Numbers) -> int:
    """How often the block fits."""
    room = zip(image, block, strides, dilations, pads[: len(image)], pads[len(image) :], strict=True)
    return math.prod((n + before + after - d * (k - 1) - 1) // s + 1 for n, k, s, d, before, after in room)


@pytest.mark.parametrize("form", FORMS)
def test_col2im_with_a_fed_block(form: tuple[Numbers, ...]) -> None:
    image, block, strides, dilations, pads = form
    count, rank = steps(image, block, strides, dilations, pads), len(image)
    shape, out = (2, 3 * math.prod(block), count), (2, 3, *image)
    attributes = f"strides={list(strides)},dilations={list(dilations)},pads={list(pads)}"
    ports = f"float[{','.join(map(str, shape))}] x, int64[{rank}] i, int64[{rank}] b"
    result = f"float[{','.join(map(str, out))}] y"
    graph = f"g ({ports}) => ({result}) {{ y = Col2Im<{attributes}>(x, i, b) }}"
    feed = {"x": floats(*shape), "i": np.array(image), "b": np.array(block)}
    known = frozenset(item.name for item in onnx.defs.get_all_schemas()) - {"Col2Im"}
    model = hub.to_proto(hub.legalise(hub.canonical(parsed(graph)).model, known))
    assert "Col2Im" not in {node.op_type for node in model.graph.node}
    forms = [parsed(graph), model]
    sessions = [
        ort.InferenceSession(item.SerializeToString(), providers=["CPUExecutionProvider"]) for item in forms
    ]
    wanted, found = (
        session.run(None, {item.name: feed[item.name] for item in session.get_inputs()})[0]
        for session in sessions
    )
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-6, atol=1e-6)
    agrees(graph, feed, rtol=1e-6)
