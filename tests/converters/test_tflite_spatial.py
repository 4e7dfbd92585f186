"""Ops over space, run by both kernel sets, against onnxruntime; what no kernel does is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit_converters.errors import Refusal
from tests.converters.graphs import GraphBuilder
from tests.converters.tflite_files import agree, compiled, model_of

PLANE = (4, 9, 8)


@pytest.mark.parametrize(
    ("weight", "attributes"),
    [
        ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((6, 4, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((6, 4, 3, 2), {"pads": [0, 1, 2, 0], "strides": [2, 1], "dilations": [1, 2]}),
        ((6, 4, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ((8, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 4}),
        ((6, 2, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    ],
)
def test_convolutions_of_the_plane(weight: tuple[int, ...], attributes: dict[str, Any]) -> None:
    def build(g: GraphBuilder) -> str:
        return g.op("Relu", g.op("Conv", "x", g.weight(*weight), g.weight(weight[0]), **attributes))

    file = agree(build, PLANE)
    assert "RELU" not in file.facts["ops"], "the activation is fused"


@pytest.mark.parametrize(("shape", "weight", "group"), [((4, 9), (6, 4, 3), 1), ((4, 9), (4, 1, 3), 4)])
def test_convolutions_of_a_line(shape: tuple[int, ...], weight: tuple[int, ...], group: int) -> None:
    agree(lambda g: g.op("Conv", "x", g.weight(*weight), pads=[1, 1], group=group), shape)


def test_convolution_of_a_volume() -> None:
    def build(g: GraphBuilder) -> str:
        return g.op("Conv", "x", g.weight(4, 2, 3, 3, 3), pads=[1] * 6, strides=[1, 2, 1])

    agree(build, (2, 5, 6, 7))


@pytest.mark.parametrize(
    ("shape", "weight", "attributes"),
    [
        ((4, 5, 6), (4, 3, 3, 3), {}),
        ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 3], "pads": [1, 0, 1, 2], "output_padding": [1, 1]}),
        ((4, 5, 6), (4, 3, 2, 3), {"strides": [2, 2], "dilations": [2, 1]}),
        ((4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((4, 5, 6), (4, 3, 3, 3), {"strides": [3, 2], "output_shape": [14, 14]}),
        ((4, 5, 6), (4, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
        ((4, 5), (4, 3, 3), {"strides": [2]}),
        ((4, 3, 4, 5), (4, 2, 2, 2, 2), {"strides": [2, 1, 2]}),
    ],
)
def test_transposed_convolutions(
    shape: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    outputs = weight[1] * attributes.get("group", 1)

    def build(g: GraphBuilder) -> str:
        return g.op("ConvTranspose", "x", g.weight(*weight), g.weight(outputs), **attributes)

    agree(build, shape)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        (PLANE, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        (PLANE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (PLANE, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        (PLANE, {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 0, 0, 2]}),
        (PLANE, {"kernel_shape": [3, 2], "dilations": [2, 3]}),
        ((4, 9), {"kernel_shape": [3], "strides": [2]}),
        ((4, 6, 7, 9), {"kernel_shape": [3, 2, 2], "strides": [2, 1, 2]}),
        ((2, 5, 5, 6), {"kernel_shape": [2, 2, 2], "dilations": [2, 2, 1], "pads": [1, 0, 0, 0, 1, 1]}),
    ],
)
def test_pools(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    agree(lambda g: g.op(op, "x", **attributes), shape)


@pytest.mark.parametrize("ceil", [0, 1])
def test_an_average_that_counts_its_padding(ceil: int) -> None:
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "count_include_pad": 1}
    agree(lambda g: g.op("AveragePool", "x", ceil_mode=ceil, **attributes), PLANE)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "coordinates",
    ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"],
)
@pytest.mark.parametrize("factor", [2.0, 0.6, 1.7])
def test_every_resize_samples_where_onnxruntime_does(mode: str, coordinates: str, factor: float) -> None:
    def build(g: GraphBuilder) -> str:
        scales = g.constant(np.array([1, 1, factor, 2.0], np.float32))
        return g.op("Resize", "x", "", scales, mode=mode, coordinate_transformation_mode=coordinates)

    agree(build, (3, 5, 6))


@pytest.mark.parametrize(("coordinates", "op"), [("half_pixel", "RESIZE_BILINEAR"), ("cubic", "")])
def test_plain_resizes_use_the_kernel_that_devices_accelerate(coordinates: str, op: str) -> None:
    def build(g: GraphBuilder) -> str:
        scales = g.constant(np.array([1, 1, 2, 2], np.float32))
        mode = "linear" if op else "cubic"
        return g.op("Resize", "x", "", scales, mode=mode)

    file = agree(build, (3, 5, 6))
    assert (op in file.facts["ops"]) == bool(op)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4])
def test_softmax_along_any_axis_of_five(op: str, axis: int) -> None:
    agree(lambda g: g.op(op, "x", axis=axis), (2, 3, 4, 5))


def test_lrn_of_an_even_window_is_not_taken_for_an_odd_one() -> None:
    model = model_of(lambda g: g.op("LRN", "x", size=5, alpha=0.5, beta=0.7), PLANE, 1)
    assert compiled(model).facts["ops"]["LOCAL_RESPONSE_NORMALIZATION"] == 1
    agree(lambda g: g.op("LRN", "x", size=5, alpha=0.5, beta=0.7, bias=2.0), PLANE)


def test_where_the_maximum_was_is_refused() -> None:
    def build(g: GraphBuilder) -> str:
        from onnx import helper

        g.nodes.append(helper.make_node("MaxPool", ["x"], ["y", "where"], kernel_shape=[2, 2]))
        return g.op("Add", "y", g.op("Cast", "where", to=1))

    with pytest.raises(Refusal, match="MaxPool") as caught:
        compiled(model_of(build, PLANE, 1))
    assert caught.value.code == "unsupported_attribute"
