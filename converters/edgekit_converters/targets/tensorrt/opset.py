"""An ONNX file in an older opset, for parsers that know no newer one: relabelled where nothing changes.

The hub is one opset; TensorRT 10.3 reads up to 20, 8.2 up to 13. Between two opsets most operators only
take more types or get an attribute. `_SAME_SINCE` says from which opset on an operator means the same for
whoever uses no newer attribute or input; what does not fit is refused, and onnx's own strict type inference
has the last word. Source: ONNX's Changelog.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from edgekit_converters.errors import Refusal

_SAME_SINCE = {
    **dict.fromkeys(("Identity", "Transpose", "Shape", "Size", "GlobalAveragePool", "GlobalMaxPool"), 1),
    **dict.fromkeys(("Elu", "LeakyRelu", "HardSigmoid", "Selu"), 6),
    **dict.fromkeys(("PRelu", "Where", "ConstantOfShape", "Not"), 9),
    **dict.fromkeys(("Conv", "ConvTranspose", "AveragePool", "Flatten", "CumSum", "TopK", "Round"), 11),
    **dict.fromkeys(("MaxPool", "Celu"), 12),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Relu", "Pow", "Equal", "Less", "Greater"), 13),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Constant", "Pad", "Cast", "Resize", "Split"), 13),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "ScatterND", "ScatterElements"), 13),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"), 13),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ReduceSum"), 13),
    **dict.fromkeys(("Sin", "Cos", "Softplus", "Softsign", "InstanceNormalization"), 7),
    "GRU": 7,
    "LSTM": 7,
    "RNN": 7,
    "LessOrEqual": 12,
    "GreaterOrEqual": 12,
    "HardSwish": 14,
    "BatchNormalization": 15,
    "GridSample": 20,
}
_AXES_AS_ATTRIBUTE = 18
"""Below it the reductions but ReduceSum name their axes by attribute."""
_WITHOUT_COUNT = 18
"""Below it Split has no num_outputs."""
_NEWER_WORDS = {
    ("Pad", "mode"): ({"wrap"}, 19),
    ("Resize", "coordinate_transformation_mode"): ({"half_pixel_symmetric"}, 19),
}
_IR = {13: 7, 20: 9}


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of `model` in `opset`; the same where it is not newer.

    Raises:
        Refusal: ``opset_too_new``, naming the operator that older opsets do not have.
    """
    now = next(item.version for item in model.opset_import if item.domain == "")
    if now <= opset:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in copy.graph.initializer}
    for node in copy.graph.node:
        _rewrite(node, constants, opset)
        for fault in _faults(node, now, opset):
            raise Refusal(
                f"{node.op_type} at {node.name or node.output[0]}: {fault}",
                remedy="use another target, or a newer TensorRT",
                code="opset_too_new",
            )
    _drop_unused(copy.graph)
    del copy.opset_import[:]
    copy.opset_import.append(onnx.helper.make_opsetid("", opset))
    copy.ir_version = _IR.get(opset, 9)
    try:
        onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise Refusal(
            f"the graph cannot be told in opset {opset}: {' '.join(str(error).split())[:300]}",
            remedy="use another target, or a newer TensorRT",
            code="opset_too_new",
        ) from error
    return copy


def _faults(node: onnx.NodeProto, now: int, opset: int) -> Iterator[str]:
    """Why `node` cannot stand in `opset`."""
    if node.domain:
        yield f"it is of {node.domain}"
        return
    since = _SAME_SINCE.get(node.op_type, onnx.defs.get_schema(node.op_type, now).since_version)
    if since > opset:
        yield f"it is of opset {since}, {opset} is the newest that is read"
        return
    schema = onnx.defs.get_schema(node.op_type, opset)
    for item in node.attribute:
        if item.name not in schema.attributes:
            yield f"opset {opset} has no attribute {item.name}"
        words, needed = _NEWER_WORDS.get((node.op_type, item.name), (set(), 0))
        if needed > opset and item.s.decode() in words:
            yield f"opset {opset} has no {item.name} {item.s.decode()}"
    if len(node.input) > schema.max_input:
        yield f"opset {opset} takes {schema.max_input} inputs, it has {len(node.input)}"


def _rewrite(node: onnx.NodeProto, constants: dict[str, np.ndarray], opset: int) -> None:
    """Say the same in older words: axes as an attribute, no attribute that holds its default."""
    if (
        node.op_type.startswith("Reduce")
        and node.op_type != "ReduceSum"
        and opset < _AXES_AS_ATTRIBUTE
        and len(node.input) == 2
        and node.input[1] in constants
    ):
        axes = [int(axis) for axis in constants[node.input[1]].ravel()]
        del node.input[1]
        node.attribute.append(onnx.helper.make_attribute("axes", axes))
        _without(node, "noop_with_empty_axes")
    if node.op_type == "Split" and opset < _WITHOUT_COUNT and len(node.input) == 2:
        _without(node, "num_outputs")
    schema = onnx.defs.get_schema(node.op_type, opset) if onnx.defs.has(node.op_type, opset, "") else None
    for item in list(node.attribute):
        if schema is not None and item.name not in schema.attributes and _is_default(node, item):
            node.attribute.remove(item)


def _is_default(node: onnx.NodeProto, item: onnx.AttributeProto) -> bool:
    """Whether a newer attribute says what older opsets do anyway."""
    newest = onnx.defs.get_schema(node.op_type).attributes.get(item.name)
    if item.type == onnx.AttributeProto.INTS:
        return item.name == "dilations" and set(item.ints) <= {1}
    return newest is not None and newest.default_value.SerializeToString() == item.SerializeToString()


def _without(node: onnx.NodeProto, name: str) -> None:
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)
