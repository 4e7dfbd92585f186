"""For every check of the TIDL rules a graph that breaks it and one that does not; batch one, sizes known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tests.converters.graphs import GraphBuilder

Build = Callable[[GraphBuilder], str]
IMAGE = (4, 16, 16)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`check` as the rules name it; `op` the node looked at; `bad` breaks it, `good` does not."""

    check: str
    op: str
    bad: Build
    good: Build
    shape: tuple[int, ...] = IMAGE


def inferred(build: Build, shape: tuple[int, ...] = IMAGE, *, batch: int | str = 1) -> ir.Model:
    """The graph that `build` appends, with shapes and types."""
    graph = GraphBuilder(shape, seed=5, batch=batch)
    output = build(graph)
    result = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.UNDEFINED, None)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "case", [graph.input], [result], graph.weights),
        opset_imports=[onnx.helper.make_opsetid("", 21)],
        ir_version=10,
    )
    del proto.graph.output[:]
    found = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    typed = next(item for item in found.graph.value_info if item.name == output)
    found.graph.output.append(typed)
    found.graph.value_info.remove(typed)
    return ir.from_proto(found)


def ints(g: GraphBuilder, *values: int) -> str:
    return g.constant(np.array(values, np.int64))


def floats(g: GraphBuilder, *values: float) -> str:
    return g.constant(np.array(values, np.float32))


def number(g: GraphBuilder, value: float) -> str:
    return g.constant(np.float32(value))


def conv(kernel: tuple[int, int] = (3, 3), out: int = 4, inner: int = 4, **attributes: Any) -> Build:
    return lambda g: g.op("Conv", "x", g.weight(out, inner, *kernel), kernel_shape=list(kernel), **attributes)


def deconv(kernel: int, stride: int = 2, group: int = 1) -> Build:
    return lambda g: g.op(
        "ConvTranspose", "x", g.weight(4, 4 // group, kernel, kernel), strides=[stride, stride], group=group
    )


def pool(kernel: int, stride: int, kind: str = "MaxPool", **attributes: Any) -> Build:
    return lambda g: g.op(kind, "x", kernel_shape=[kernel] * 2, strides=[stride] * 2, **attributes)


def one(kind: str, **attributes: Any) -> Build:
    return lambda g: g.op(kind, "x", **attributes)


def gemm(rows: int = 8, out: int = 3, **attributes: Any) -> Build:
    return lambda g: g.op("Gemm", "x", g.weight(rows, out), **attributes)


def resize(scale: float, where: str = "half_pixel", mode: str = "linear", **attributes: Any) -> Build:
    def build(g: GraphBuilder) -> str:
        scales = floats(g, 1, 1, scale, scale)
        return g.op("Resize", "x", "", scales, mode=mode, coordinate_transformation_mode=where, **attributes)

    return build


def pad(*pads: int, mode: str = "constant", value: float = 0.0) -> Build:
    return lambda g: g.op("Pad", "x", ints(g, *pads), number(g, value), mode=mode)


def clip(low: float, high: float) -> Build:
    return lambda g: g.op("Clip", "x", number(g, low), number(g, high))


def sliced(start: int, end: int, axis: int, step: int = 1) -> Build:
    return lambda g: g.op("Slice", "x", ints(g, start), ints(g, end), ints(g, axis), ints(g, step))


def norm(size: int, axis: int) -> Build:
    return lambda g: g.op("LayerNormalization", "x", g.weight(size), g.weight(size), axis=axis)


def reshaped(*shape: int, **attributes: Any) -> Build:
    return lambda g: g.op("Reshape", "x", ints(g, *shape), **attributes)


def computed_weight(g: GraphBuilder) -> str:
    return g.op("Conv", "x", g.op("Abs", g.weight(4, 4, 3, 3)))


def signs(g: GraphBuilder) -> str:
    return g.op("MatMul", g.op("Relu", "x"), g.op("Neg", "x"))


def product(g: GraphBuilder) -> str:
    return g.op("MatMul", g.op("Relu", "x"), g.op("Abs", "x"))


def computed_shape(g: GraphBuilder) -> str:
    return g.op("Reshape", "x", g.op("Neg", g.op("Neg", ints(g, 1, 4, 256))))


def cast_inside(g: GraphBuilder) -> str:
    y = g.op("Cast", g.op("Relu", "x"), to=onnx.TensorProto.FLOAT16)
    return g.op("Relu", y)


def cast_at_end(g: GraphBuilder) -> str:
    return g.op("Cast", g.op("Relu", "x"), to=onnx.TensorProto.FLOAT16)


def slope(constant: bool) -> Build:
    return lambda g: g.op("PRelu", "x", g.weight(4, 1, 1) if constant else g.op("Abs", "x"))


def gather(variable: bool) -> Build:
    def build(g: GraphBuilder) -> str:
        if variable:
            return g.op("Gather", "x", ints(g, 0, 1), axis=1)
        return g.op("Gather", g.weight(5, 3), g.op("Cast", "x", to=onnx.TensorProto.INT64), axis=0)

    return build


def after(kind: str, activation: str) -> Build:
    def build(g: GraphBuilder) -> str:
        made = g.op("Conv", "x", g.weight(4, 4, 1, 1)) if kind == "Conv" else g.op(kind, "x")
        return g.op(activation, made)

    return build


def padded(reader: str) -> Build:
    def build(g: GraphBuilder) -> str:
        y = g.op("Pad", "x", ints(g, 0, 0, 1, 1, 0, 0, 1, 1))
        return g.op("Conv", y, g.weight(4, 4, 3, 3)) if reader == "Conv" else g.op(reader, y)

    return build


def pair(kind: str, *, constant: bool = False) -> Build:
    return lambda g: g.op(kind, "x", number(g, 0.5) if constant else g.op("Abs", "x"))


def joined(axis: int) -> Build:
    return lambda g: g.op("Concat", "x", "x", axis=axis)


def parts(axis: int) -> Build:
    return lambda g: g.op("Split", "x", ints(g, 4), axis=axis)


CASES = (
    Case(check="always", op="Erf", bad=one("Erf"), good=one("Relu")),
    Case(check="free_shape", op="Relu", bad=one("Relu"), good=one("Relu")),
    Case(check="over_6_axes", op="Relu", bad=one("Relu"), good=one("Relu"), shape=(2, 2, 2, 2, 2, 2, 2)),
    Case(check="over_4_axes", op="MatMul", bad=pair("MatMul"), good=pair("MatMul"), shape=(2, 2, 2, 2, 2)),
    Case(check="variable_weight", op="Conv", bad=computed_weight, good=conv()),
    Case(check="strides_differ", op="Conv", bad=conv(strides=[1, 2]), good=conv(strides=[2, 2])),
    Case(
        check="kernel_over_7_stride_2",
        op="Conv",
        bad=conv((9, 9), strides=[2, 2]),
        good=conv((9, 9), strides=[1, 1]),
    ),
    Case(
        check="depthwise_kernel",
        op="Conv",
        bad=conv((9, 9), inner=1, group=4),
        good=conv((5, 5), inner=1, group=4, strides=[2, 2]),
    ),
    Case(
        check="stride_4_kernel",
        op="Conv",
        bad=conv((5, 5), strides=[4, 4]),
        good=conv((11, 11), strides=[4, 4]),
    ),
    Case(check="even_kernel", op="Conv", bad=conv((8, 8)), good=conv((7, 7))),
    Case(check="kernel_3_stride_3", op="Conv", bad=conv(strides=[3, 3]), good=conv((5, 5), strides=[3, 3])),
    Case(
        check="wide_padding",
        op="Conv",
        bad=conv(pads=[0, 17, 0, 17]),
        good=conv(pads=[0, 16, 0, 16]),
    ),
    Case(check="deconvolution_kernel", op="ConvTranspose", bad=deconv(5), good=deconv(4)),
    Case(check="pool_not_validated", op="MaxPool", bad=pool(2, 1), good=pool(3, 1)),
    Case(check="dilated_pool", op="MaxPool", bad=pool(3, 1, dilations=[2, 2]), good=pool(3, 1)),
    Case(
        check="large_plane",
        op="GlobalAveragePool",
        bad=one("GlobalAveragePool"),
        good=lambda g: g.op("GlobalAveragePool", sliced(0, 32, 2)(g)),
        shape=(2, 33, 32),
    ),
    Case(check="gemm_parameters", op="Gemm", bad=gemm(alpha=2.0), good=gemm(), shape=(8,)),
    Case(check="operand_count", op="Max", bad=lambda g: g.op("Max", "x", "x", "x"), good=pair("Max")),
    Case(check="variable_subtraction", op="Sub", bad=pair("Sub"), good=pair("Sub", constant=True)),
    Case(check="mixed_sign_product", op="MatMul", bad=signs, good=product),
    Case(check="softmax_axis", op="Softmax", bad=one("Softmax", axis=1), good=one("Softmax", axis=2)),
    Case(check="concat_axis", op="Concat", bad=joined(0), good=joined(1)),
    Case(check="slice_batch", op="Slice", bad=sliced(0, 1, 0), good=sliced(0, 2, 1)),
    Case(check="slice_step", op="Slice", bad=sliced(0, 4, 2, 2), good=sliced(0, 4, 2)),
    Case(check="argmax_axis", op="ArgMax", bad=one("ArgMax", axis=1, keepdims=0), good=one("ArgMax", axis=1)),
    Case(check="resize_mode", op="Resize", bad=resize(2, mode="cubic"), good=resize(2)),
    Case(check="resize_scale", op="Resize", bad=resize(3), good=resize(4)),
    Case(
        check="resize_coordinates",
        op="Resize",
        bad=resize(2, "align_corners"),
        good=resize(2, "asymmetric", "nearest", nearest_mode="floor"),
    ),
    Case(check="pad_mode", op="Pad", bad=pad(0, 1, 0, 0, 0, 0, 0, 0), good=pad(0, 0, 1, 1, 0, 0, 1, 1)),
    Case(check="clip_bounds", op="Clip", bad=clip(0.5, 1.0), good=clip(-1.0, 1.0)),
    Case(check="layer_norm_axis", op="LayerNormalization", bad=norm(16, -2), good=norm(16, -1)),
    Case(check="variable_slope", op="PRelu", bad=slope(False), good=slope(True)),
    Case(check="cast_inside", op="Cast", bad=cast_inside, good=cast_at_end),
    Case(check="computed_shape", op="Reshape", bad=computed_shape, good=reshaped(1, 4, 256)),
    Case(check="gather_constant", op="Gather", bad=gather(False), good=gather(True)),
    Case(check="legacy_kernel", op="Conv", bad=conv((3, 3), dilations=[5, 5]), good=conv((9, 9))),
    Case(check="legacy_stride", op="Conv", bad=conv(strides=[3, 3]), good=conv(strides=[2, 2])),
    Case(check="legacy_dilation", op="Conv", bad=conv(dilations=[3, 3]), good=conv(dilations=[4, 4])),
    Case(check="legacy_channels", op="Conv", bad=conv((1, 1), out=2049), good=conv((1, 1), out=2048)),
    Case(check="legacy_deconvolution", op="ConvTranspose", bad=deconv(4), good=deconv(4, group=4)),
    Case(check="legacy_pool", op="MaxPool", bad=pool(10, 1), good=pool(9, 2)),
    Case(
        check="legacy_plane",
        op="GlobalAveragePool",
        bad=one("GlobalAveragePool"),
        good=lambda g: g.op("GlobalAveragePool", sliced(0, 64, 2)(g)),
        shape=(2, 65, 64),
    ),
    Case(check="legacy_dense", op="Gemm", bad=gemm(8, 16385), good=gemm(8, 16384), shape=(8,)),
    Case(check="legacy_clip", op="Clip", bad=clip(-1.0, 1.0), good=clip(0.0, 6.0)),
    Case(check="lone_activation", op="Relu", bad=one("Relu"), good=after("Conv", "Relu")),
    Case(check="legacy_addition", op="Add", bad=pair("Add", constant=True), good=pair("Add")),
    Case(check="legacy_concat", op="Concat", bad=joined(2), good=joined(1)),
    Case(check="legacy_argmax", op="ArgMax", bad=one("ArgMax", axis=2), good=one("ArgMax", axis=1)),
    Case(check="lone_padding", op="Pad", bad=padded("Relu"), good=padded("Conv")),
    Case(check="legacy_reshape", op="Reshape", bad=reshaped(1, 4, 256), good=reshaped(1, 1024)),
)
