"""Graphs the hub does not take: the node or the file is named, nothing is allocated, nothing crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import EdgekitError, SourceError
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.frontends import onnx_model
from edgekit_converters.hub import mixes_batch
from edgekit_converters.onnx_session import OnnxSession
from tests.converters.graphs import Array, GraphBuilder, save, small_cnn
from tests.converters.hub_nodes import suite

_HEAD = '<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3, "acme" : 1]>'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{_HEAD}\n{text}")


REFUSED = {
    "a custom operator": (
        "g (float[2] x) => (float[2] y) { y = acme.Frobnicate (x) }",
        "unsupported_op",
        r"acme:Frobnicate .*'y'",
    ),
    "an operator nobody has": (
        "g (float[2] x) => (float[2] y) { y = Frobnicate (x) }",
        "unsupported_op",
        r"Frobnicate",
    ),
    "a fed condition": (
        (
            "g (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = a () => (float[2] "
            "p) { p = Neg (x) }, else_branch = b () => (float[2] q) { q = Abs (x) }> }"
        ),
        "control_flow",
        r"If .*'y'",
    ),
    "a sequence inside": (
        (
            "g (float[2] x) => (float[2] y) { s = SequenceConstruct (x, x) i = Constant <value_int "
            "= 0> () y = SequenceAt (s, i) }"
        ),
        "unsupported_type",
        r"SequenceConstruct",
    ),
    "noise": (
        "g (float[2] x) => (float[2] y) { z = RandomNormalLike (x) y = Add (x, z) }",
        "random_op",
        r"RandomNormalLike .*'z'.* random",
    ),
    "strings": (
        "g (string[2] x) => (string[2] y) { y = Identity (x) }",
        "unsupported_type",
        r"'x'",
    ),
    "a value nothing computes": (
        "g (float[2] x) => (float[2] y) { y = Add (x, z) }",
        "corrupt_source",
        r"'z'",
    ),
    "an output nothing computes": (
        "g (float[2] x) => (float[2] y, float[2] w) { y = Abs (x) }",
        "corrupt_source",
        r"'w'",
    ),
    "a cycle": (
        "g (float[2] x) => (float[2] y) { a = Add (x, b) b = Abs (a) y = Neg (b) }",
        "corrupt_source",
        r"cycle",
    ),
    "an input of 4 TiB": (
        "g (float[1048576, 1048576] x) => (float[1048576, 1048576] y) { y = Abs (x) }",
        "absurd_shape",
        r"'x'",
    ),
    "a constant of 4 TiB": (
        (
            "g (float[2] x) => (y) { s = Constant <value_ints = [1048576, 1048576]> () c = "
            "ConstantOfShape (s) y = Add (x, c) }"
        ),
        "absurd_shape",
        r"ConstantOfShape",
    ),
    "a constant of negative size": (
        (
            "g (float[2] x) => (y) { s = Constant <value_ints = [-3]> () c = ConstantOfShape (s) y "
            "= Add (x, c) }"
        ),
        "absurd_shape",
        r"ConstantOfShape",
    ),
    "a result of 4 TiB": (
        (
            "g (float[1048576, 1] x) => (y) { s = Constant <value_ints = [1048576, 1048576]> () y "
            "= Expand (x, s) }"
        ),
        "absurd_shape",
        r"Expand",
    ),
    "statistics of no training": (
        (
            "g (float[1, 2, 3] x, float[2] s) => (float[1, 2, 3] y, float[2] m, float[2] v) "
            "{ y, m, v = BatchNormalization (x, s, s, s, s) }"
        ),
        "corrupt_source",
        r"BatchNormalization .*statistics",
    ),
    "training": (
        (
            "g (float[2] x) => (float[2] y) { r = Constant <value_float = 0.5> () t = Constant "
            "<value = bool {1}> () y = Dropout (x, r, t) }"
        ),
        "unsupported_attribute",
        r"random",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=list(REFUSED))
def test_what_the_hub_does_not_take_is_refused_with_the_node_named(case: str) -> None:
    text, code, words = REFUSED[case]
    with pytest.raises(EdgekitError, match=words) as caught:
        hub.canonical(parsed(text), where="net.onnx")
    assert caught.value.code == code
    assert caught.value.where == "net.onnx"


def test_a_newer_opset_than_we_know_is_refused_with_both_numbers() -> None:
    model = small_cnn()
    model.opset_import[0].version = 99
    with pytest.raises(SourceError, match="99"):
        hub.canonical(model)


def test_a_custom_operator_in_a_file_is_named_with_its_domain_not_in_the_runtimes_words(
    tmp_path: Path,
) -> None:
    model = parsed("g (float[N, 2] x) => (float[N, 2] y) { y = acme.Frobnicate (x) }")
    with pytest.raises(SourceError, match="acme") as caught:
        onnx_model.load(save(model, tmp_path / "custom.onnx"))
    assert caught.value.code == "unsupported_op"
    assert caught.value.where == str(tmp_path / "custom.onnx")
    assert caught.value.exit_code == 2


def test_masks_may_hold_infinity_and_weights_may_not(tmp_path: Path) -> None:
    g = GraphBuilder((4, 4))
    mask = g.constant(np.triu(np.full((4, 4), -np.inf, np.float32), 1))
    y = g.op("Softmax", g.op("Add", "x", mask), axis=-1)
    assert onnx_model.load(save(g.model(y, [4, 4]), tmp_path / "mask.onnx")).signature.inputs
    g = GraphBuilder((4, 4))
    y = g.op("MatMul", "x", g.constant(np.full((4, 4), np.inf, np.float32)))
    with pytest.raises(SourceError, match="w0") as caught:
        onnx_model.load(save(g.model(y, [4, 4]), tmp_path / "weight.onnx"))
    assert caught.value.code == "not_finite"


_NAMES = [test for test in suite() if len(test.ops) <= 3]
_PRIMITIVES = frozenset(
    {"Abs", "Add", "Cast", "Concat", "Conv", "Div", "Exp", "Gather", "Log", "MatMul", "Max", "Mul", "Pad"}
    | {"ReduceSum", "Reshape", "Slice", "Sub", "Where"}
)
_NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 7, 99, 2**40])


def _damage(draw: Any, model: onnx.ModelProto) -> None:
    node = draw(st.sampled_from(list(model.graph.node)))
    kind = draw(st.integers(0, 5))
    if kind == 0 and node.attribute:
        attribute = draw(st.sampled_from(list(node.attribute)))
        if attribute.type == onnx.AttributeProto.INT:
            attribute.i = draw(_NUMBERS)
        elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
            attribute.ints[0] = draw(_NUMBERS)
        elif attribute.type == onnx.AttributeProto.STRING:
            attribute.s = draw(st.binary(max_size=3))
    elif kind == 1 and node.attribute:
        del node.attribute[draw(st.integers(0, len(node.attribute) - 1))]
    elif kind == 2 and node.input:
        node.input[0] = draw(st.sampled_from(["", "nowhere", node.output[0]]))
    elif kind == 3 and model.graph.input:
        port = draw(st.sampled_from(list(model.graph.input))).type.tensor_type
        port.elem_type = draw(st.sampled_from([0, 1, 7, 9, 10, 99]))
        if port.shape.dim:
            port.shape.dim[0].dim_value = draw(_NUMBERS)
    elif kind == 4:
        model.opset_import[0].version = draw(st.sampled_from([1, 6, 10, 13, 17, 27, 99]))
    else:
        node.op_type = draw(st.sampled_from(["Add", "Conv", "Reshape", "LSTM", "Resize", "Split", "Einsum"]))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_damaged_graph_is_an_error_of_ours_or_a_graph_and_never_anything_else(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(_NAMES)).model()
    for _ in range(data.draw(st.integers(1, 3))):
        _damage(data.draw, model)
    try:
        hub.legalise(hub.canonical(model).model, _PRIMITIVES)
    except (SourceError, Refusal) as error:
        assert error.code  # noqa: PT017  # either is an answer


@pytest.mark.parametrize("groups", [2**31, 3, -1])
def test_groups_that_cannot_be_end_at_once(groups: int) -> None:
    """A damaged number would otherwise become so many nodes."""
    ports = "g (float[1, 4, 5, 5] x, float[4, 1, 1, 1] w) => (float[1, 4, 5, 5] y)"
    text = f"{ports} {{ y = Conv <group = {groups}> (x, w) }}"
    with pytest.raises((SourceError, Refusal)) as caught:
        hub.legalise(
            hub.canonical(parsed(text)).model, frozenset({"Split", "Concat", "Conv"}), lambda _: False
        )
    assert caught.value.code


def _batch_model(axis: int) -> onnx.ModelProto:
    g = GraphBuilder((4,))
    mean = g.op("ReduceMean", "x", g.constant(np.array([axis], np.int64)), keepdims=1)
    return g.model(g.op("Sub", "x", mean), [4])


@pytest.mark.parametrize(("axis", "mixed"), [(0, True), (1, False)])
def test_a_model_that_mixes_the_samples_of_a_batch_is_found(axis: int, mixed: bool, tmp_path: Path) -> None:
    path = save(_batch_model(axis), tmp_path / "m.onnx")
    samples: dict[str, Array] = {"x": np.random.default_rng(0).random((20, 4), np.float32)}
    found = mixes_batch(OnnxSession(path), samples)
    assert (found is not None) == mixed


@pytest.mark.parametrize(("held", "said"), [(1, "takes one sample"), (4, "counts them")])
def test_a_constant_that_counts_the_samples_is_named_with_its_node(
    held: int, said: str, tmp_path: Path
) -> None:
    """A class token that was exported for so many samples, joined to them. Nodes have no names."""
    g = GraphBuilder((3, 4))
    path = save(g.model(g.op("Concat", g.weight(held, 1, 4), "x", axis=1), [4, 4]), tmp_path / "m.onnx")
    model = onnx_model.load(path)
    with pytest.raises(SourceError, match="Concat 't0'") as caught:
        model.run({"x": np.zeros((3, 3, 4), np.float32)})
    assert caught.value.code == "fixed_batch"
    assert said in caught.value.message
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "batch of one" in str(caught.value.remedy)


def test_samples_that_a_node_cannot_compute_are_no_fault_of_the_batch(tmp_path: Path) -> None:
    g = GraphBuilder((2,))
    index = g.op("Cast", "x", to=TensorProto.INT64)
    path = save(g.model(g.op("Gather", g.weight(5), index), [2]), tmp_path / "m.onnx")
    with pytest.raises(SourceError, match="Gather 't1'") as caught:
        onnx_model.load(path).run({"x": np.full((3, 2), 9, np.float32)})
    assert caught.value.code == "source_fails"


def test_a_fixed_batch_is_no_mixture(tmp_path: Path) -> None:
    model = _batch_model(0)
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_value = 5
    samples: dict[str, Array] = {"x": np.random.default_rng(0).random((20, 4), np.float32)}
    assert mixes_batch(OnnxSession(save(model, tmp_path / "m.onnx")), samples) is None


def test_a_split_that_contradicts_itself_does_not_end_the_process() -> None:
    """onnx 1.22's inference aborts on it."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [7])
    outs = [onnx.ValueInfoProto(name=f"y{index}") for index in range(3)]
    node = helper.make_node("Split", ["x"], [item.name for item in outs], num_outputs=1)
    model = helper.make_model(
        helper.make_graph([node], "g", [x], outs), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    with pytest.raises(SourceError, match="num_outputs=1"):
        hub.canonical(model)


def test_weights_that_are_shorter_than_their_shape_are_refused() -> None:
    model = small_cnn()
    array = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].dims[0] = array.shape[0] * 2
    with pytest.raises(SourceError):
        hub.canonical(model)
