"""A pass that breaks its word is named with the condition and the offender."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx_ir.passes import PassResult

from edgekit.errors import SourceError
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.hub import nodes
from edgekit_converters.hub.build import Builder, Names
from edgekit_converters.hub.passes.base import Pass, PassViolation, run
from edgekit_converters.hub.passes.clean import NameInOrder, RemoveDeadCode
from edgekit_converters.hub.passes.conditions import NO_DROPOUT, NOTHING_UNREAD, UNIQUE_NAMES
from edgekit_converters.hub.passes.fold import FoldConstants
from edgekit_converters.hub.passes.shapes import InferShapes
from tests.converters.graphs import GraphBuilder, small_cnn


class LeavesDeadCode(Pass):
    """A pass that promises more than it does."""

    ensures = (NOTHING_UNREAD,)

    def call(self, model: ir.Model) -> PassResult:
        model.graph.append(ir.node("Neg", [model.graph.inputs[0]]))
        return PassResult(model, True)


class NeedsNoDropout(Pass):
    """A pass that is called too early."""

    requires = (NO_DROPOUT,)

    def call(self, model: ir.Model) -> PassResult:
        raise AssertionError("called on a graph it does not take")


def _model() -> ir.Model:
    return hub.canonical(small_cnn()).model


def test_a_broken_promise_names_pass_condition_and_node() -> None:
    with pytest.raises(PassViolation, match=r"LeavesDeadCode ensures that every node is read, but Neg"):
        run(_model(), [LeavesDeadCode()])


def test_a_pass_called_too_early_is_stopped_before_it_runs() -> None:
    model = _model()
    model.graph.append(ir.node("Dropout", [model.graph.inputs[0]]))
    with pytest.raises(PassViolation, match="NeedsNoDropout requires no Dropout nodes"):
        run(model, [NeedsNoDropout()])


def test_two_values_of_one_name_are_found() -> None:
    model = _model()
    model.graph[1].outputs[0].name = model.graph[0].outputs[0].name
    offender = UNIQUE_NAMES.offender(model)
    assert offender is not None
    assert str(model.graph[0].outputs[0].name) in offender


def test_the_runner_says_which_passes_changed_something() -> None:
    model = _model()
    assert run(model, [FoldConstants()]) == ()
    assert run(model, [NameInOrder()]) == ("NameInOrder",)


def test_what_is_computed_from_constants_is_computed_once() -> None:
    g = GraphBuilder((4,))
    shape = g.op("Concat", g.op("Shape", "w1"), g.constant(np.array([1], np.int64)), axis=0)
    g.constant(np.zeros((2, 2), np.float32))
    table = g.op("Reshape", g.op("Sqrt", g.constant(np.array([4, 9, 16, 25], np.float32))), shape)
    y = g.op("Mul", "x", g.op("Reshape", table, g.constant(np.array([4], np.int64))))
    found = hub.canonical(g.model(y, [4]))
    assert found.facts["ops"] == ["Mul"]
    assert found.facts["folded"] == 5
    assert nodes.constant(found.model.graph[0].inputs[1]) is not None


def test_random_nodes_are_refused_and_not_folded_into_one_draw() -> None:
    g = GraphBuilder((4,))
    y = g.op("Add", "x", g.op("RandomNormal", shape=[4]))
    with pytest.raises(SourceError, match=r"RandomNormal .* draws random numbers"):
        hub.canonical(g.model(y, [4]))


def test_a_quantized_weight_stays_quantized() -> None:
    g = GraphBuilder((4,))
    one, zero = g.constant(np.float32(0.1)), g.constant(np.int8(3))
    weight = g.op("DequantizeLinear", g.constant(np.ones((4, 2), np.int8)), one, zero)
    found = hub.canonical(g.model(g.op("MatMul", "x", weight), [2]))
    assert found.facts["ops"] == ["DequantizeLinear", "MatMul"]


def test_a_free_batch_stays_free_through_inference() -> None:
    model = _model()
    run(model, [InferShapes(), RemoveDeadCode()])
    for value in (*model.graph.inputs, *model.graph.outputs):
        known = nodes.dims(value)
        assert known is not None
        assert known[0] is None
        assert None not in known[1:]


def test_what_a_builder_makes_has_types_shapes_and_names_of_its_own() -> None:
    build = Builder(Names({"v.0"}))
    x = ir.Value(name="x", shape=ir.Shape(["N", 3]), type=ir.TensorType(ir.DataType.FLOAT16))
    y = build("Mul", build("Transpose", x, perm=[1, 0]), 2.0)
    assert y.dtype == ir.DataType.FLOAT16
    assert nodes.dims(y) == (3, None)
    assert len({value.name for node in build.nodes for value in node.outputs}) == 2
    assert build.constants[0].dtype == ir.DataType.FLOAT16


def test_a_lowering_reads_and_refuses_nodes_by_name() -> None:
    node = next(item for item in _model().graph if item.op_type == "MaxPool")
    assert nodes.attr_ints(node, "strides") == (2, 2)
    assert nodes.attr_int(node, "ceil_mode") == 0
    assert nodes.operand(node, 5) is None
    assert nodes.static_shape(node.outputs[0]) is None
    with pytest.raises(Refusal, match=r"MaxPool 'MaxPool_\d' \(computes 't5'\): why not") as caught:
        nodes.refuse(node, "why not", code="unsupported_attribute")
    assert caught.value.code == "unsupported_attribute"


def test_a_split_keeps_the_outputs_that_nobody_reads() -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[8] x) => (float[3] y)'
    model = onnx.parser.parse_model(f"{text} {{ a, b, c = Split<num_outputs=3>(x) y = Neg(a) }}")
    made = hub.to_proto(hub.canonical(model).model)
    assert len(next(node for node in made.graph.node if node.op_type == "Split").output) == 3
    onnx.checker.check_model(made)
