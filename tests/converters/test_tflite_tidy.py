"""Reshapes that say nothing cost memory and a copy: none is left, and the answers stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit_converters import hub
from edgekit_converters.targets.tflite.lower import Options, build
from tests.converters.tflite_ops import agrees, floats, parsed

CHAIN = """g (float[2, 12] x) => (float[4, 6] y)
<int64[3] a = {2, 3, 4}, int64[2] b = {4, 6}> {
    h = Reshape(x, a)
    k = Reshape(h, b)
    y = Relu(k)
}"""
BACK = """g (float[2, 12] x) => (float[2, 12] y)
<int64[3] a = {2, 3, 4}, int64[2] b = {2, 12}> {
    h = Reshape(x, a)
    k = Reshape(h, b)
    y = Relu(k)
}"""
READ_TWICE = """g (float[2, 12] x) => (float[2, 12] y, float[2, 3, 4] z)
<int64[3] a = {2, 3, 4}, int64[2] b = {2, 12}> {
    h = Reshape(x, a)
    z = Neg(h)
    k = Reshape(h, b)
    y = Relu(k)
}"""
PORTS = """g (float[2, 12] x) => (float[2, 12] y)
<int64[2] b = {2, 12}> {
    y = Reshape(x, b)
}"""
FLAT = """g (float[1, 2, 2, 3] x) => (float[1, 2] y)
<int64[2] b = {1, 12}, float[12, 2] w =
{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0}> {
    h = Reshape(x, b)
    y = MatMul(h, w)
}"""


@pytest.mark.parametrize(("graph", "left"), [(CHAIN, 1), (BACK, 0), (READ_TWICE, 1), (PORTS, 1)])
def test_a_chain_of_reshapes_costs_at_most_one_and_changes_no_answer(graph: str, left: int) -> None:
    made = agrees(graph, {"x": floats(2, 12)})
    assert made.facts["ops"].get("RESHAPE", 0) == left


def test_what_nobody_reads_leaves_the_file_with_its_constants() -> None:
    made = agrees(BACK, {"x": floats(2, 12)})
    interpreter = Interpreter(model_content=made.data)
    assert len(interpreter.get_tensor_details()) == 2
    assert made.facts["ops"] == {"RELU": 1}


def test_a_dense_layer_reads_any_rank_only_where_the_runtime_takes_it() -> None:
    model = hub.canonical(parsed(FLAT)).model
    plain, flat = (build(model, options=Options(flat_dense=wanted)) for wanted in (False, True))
    assert plain.facts["ops"] == {"FULLY_CONNECTED": 1, "RESHAPE": 1}
    assert flat.facts["ops"] == {"FULLY_CONNECTED": 1}
    answers = []
    for made in (plain, flat):
        runner = Interpreter(model_content=made.data).get_signature_runner()
        answers.append(runner(x=floats(1, 2, 2, 3))["y"])
    np.testing.assert_array_equal(*answers)
