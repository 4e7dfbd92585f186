"""Every decomposition computes what its operator does: both forms run in onnxruntime."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.hub.decompose import DECOMPOSITIONS
from edgekit_converters.hub.functions import body
from edgekit_converters.hub.nodes import attr_int, attr_ints, rank, required
from tests.converters.graphs import Array
from tests.converters.hub_nodes import NodeTest, of_op, run, runs_right, same

_EACH = 4
"""How many node tests of an operator are enough here; all of them are run by hand before a release."""
RANDOM = np.random.default_rng(12)


def _plain_pool(node: ir.Node) -> bool:
    pads, dilations = attr_ints(node, "pads"), attr_ints(node, "dilations") or (1,)
    square = pads is not None and len(pads) == 4 and not any(pads)
    return square and set(dilations) == {1} and not attr_int(node, "ceil_mode") and len(node.outputs) == 1


def _two(node: ir.Node) -> bool:
    return len(node.inputs) == 2


# Operators that are decomposed into simpler forms of themselves: what counts as simple here.
FORMS: dict[str, Callable[[ir.Node], bool]] = {
    "AveragePool": _plain_pool,
    "MaxPool": _plain_pool,
    "Conv": lambda node: rank(required(node, 0)) == 4 and attr_int(node, "group", 1) == 1,
    "Max": _two,
    "Min": _two,
    "ReduceMean": lambda node: required(node, 0).dtype == ir.DataType.FLOAT,
}


@functools.cache
def everything() -> frozenset[str]:
    """All operators of the default domain."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain)


def without(op: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in its canonical form, with `op` decomposed."""
    found = hub.canonical(model).model
    if op in FORMS:
        accepts = FORMS[op]
        return hub.to_proto(
            hub.legalise(found, everything(), lambda node: node.op_type != op or accepts(node))
        )
    return hub.to_proto(hub.legalise(found, everything() - {op}))


def _cases() -> list[tuple[str, NodeTest]]:
    return [
        (op, test)
        for op in sorted(DECOMPOSITIONS.kinds)
        for test in itertools.islice(filter(runs_right, of_op(op)), _EACH)
    ]


@pytest.mark.parametrize(("op", "test"), _cases(), ids=lambda item: getattr(item, "name", item))
def test_a_decomposition_computes_what_its_operator_does(op: str, test: NodeTest) -> None:
    data = test.data()
    assert data is not None
    try:
        model = without(op, test.model())
    except Refusal as error:
        # Sizes that are fed are not known to every rule; then nothing is built, and nothing wrong.
        assert error.code == "unsupported_op"  # noqa: PT017  # the code is what is asserted
        return
    got = run(model, data[0])
    assert all(same(value, got[name]) for name, value in data[1].items())


def test_every_decomposition_is_run_somewhere() -> None:
    run_here = {op for op, _ in _cases()} | {case[0] for case in CASES.values()}
    assert sorted(DECOMPOSITIONS.kinds - run_here) == []


def _normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


# Operator, inputs (those in capitals are constants of the graph), attributes, number of outputs.
Case = tuple[str, dict[str, Array], dict[str, Any], int]
CASES: dict[str, Case] = {
    "average pool, odd pads": (
        "AveragePool",
        {"x": _normal(1, 2, 7, 8)},
        {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "strides": [2, 3]},
        1,
    ),
    "average pool, pads counted, rounded up": (
        "AveragePool",
        {"x": _normal(1, 2, 7, 8)},
        {
            "kernel_shape": [3, 3],
            "pads": [1, 1, 1, 1],
            "strides": [2, 2],
            "count_include_pad": 1,
            "ceil_mode": 1,
        },
        1,
    ),
    "average pool, dilated": (
        "AveragePool",
        {"x": _normal(1, 2, 9, 9)},
        {"kernel_shape": [2, 3], "dilations": [2, 2], "pads": [1, 1, 0, 1]},
        1,
    ),
    "average pool, three axes": (
        "AveragePool",
        {"x": _normal(1, 2, 6, 5, 4)},
        {"kernel_shape": [2, 2, 3], "strides": [2, 1, 1]},
        1,
    ),
    "average pool, one axis": ("AveragePool", {"x": _normal(2, 3, 9)}, {"kernel_shape": [3]}, 1),
    "max pool, dilated, rounded up": (
        "MaxPool",
        {"x": -np.abs(_normal(1, 2, 9, 8)) - 1},
        {
            "kernel_shape": [3, 2],
            "dilations": [2, 1],
            "pads": [1, 1, 1, 0],
            "strides": [2, 2],
            "ceil_mode": 1,
        },
        1,
    ),
    "max pool, with places": (
        "MaxPool",
        {"x": _normal(2, 2, 6, 7)},
        {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]},
        2,
    ),
    "max pool, bytes": (
        "MaxPool",
        {"x": RANDOM.integers(-128, 0, (1, 1, 6, 6)).astype(np.int8)},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        1,
    ),
    "lp pool": (
        "LpPool",
        {"x": _normal(1, 2, 7, 7)},
        {"kernel_shape": [3, 2], "p": 3, "pads": [1, 1, 0, 0]},
        1,
    ),
    "conv, one axis, groups": (
        "Conv",
        {"x": _normal(2, 4, 9), "W": _normal(6, 2, 3), "B": _normal(6)},
        {"group": 2, "pads": [2, 0], "strides": [2]},
        1,
    ),
    "transposed conv, everything at once": (
        "ConvTranspose",
        {"x": _normal(1, 4, 5, 4), "W": _normal(4, 3, 3, 2), "B": _normal(6)},
        {
            "group": 2,
            "pads": [1, 0, 2, 1],
            "strides": [3, 2],
            "dilations": [2, 1],
            "output_padding": [2, 1],
        },
        1,
    ),
    "transposed conv, a wanted size": (
        "ConvTranspose",
        {"x": _normal(1, 2, 4, 4), "W": _normal(2, 3, 3, 3)},
        {"strides": [2, 2], "output_shape": [7, 9], "auto_pad": "SAME_UPPER"},
        1,
    ),
    "transposed conv, one axis": (
        "ConvTranspose",
        {"x": _normal(1, 2, 5), "W": _normal(2, 3, 4)},
        {"strides": [2], "pads": [1, 1]},
        1,
    ),
    "deformed conv": (
        "DeformConv",
        {
            "x": _normal(1, 4, 6, 6),
            "W": _normal(3, 4, 3, 3),
            "o": 2 * _normal(1, 36, 6, 6),
            "B": _normal(3),
            "m": _normal(1, 18, 6, 6),
        },
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "offset_group": 2},
        1,
    ),
    "lstm, both ways, peepholes, clip": (
        "LSTM",
        {
            "x": _normal(3, 2, 4),
            "W": _normal(2, 20, 4),
            "R": _normal(2, 20, 5),
            "B": _normal(2, 40),
            "l": np.array([3, 2], np.int32),
            "h": _normal(2, 2, 5),
            "c": _normal(2, 2, 5),
            "P": _normal(2, 15),
        },
        {"hidden_size": 5, "direction": "bidirectional", "clip": 0.7},
        3,
    ),
    "lstm, coupled gates, other functions": (
        "LSTM",
        {"x": _normal(3, 2, 4), "W": _normal(1, 20, 4), "R": _normal(1, 20, 5)},
        {
            "hidden_size": 5,
            "input_forget": 1,
            "activations": ["HardSigmoid", "Softsign", "Relu"],
            "activation_alpha": [0.3],
        },
        3,
    ),
    "gru, backwards, linear before reset": (
        "GRU",
        {"x": _normal(4, 2, 3), "W": _normal(1, 15, 3), "R": _normal(1, 15, 5), "B": _normal(1, 30)},
        {"hidden_size": 5, "direction": "reverse", "linear_before_reset": 1},
        2,
    ),
    "rnn": (
        "RNN",
        {"x": _normal(4, 2, 3), "W": _normal(1, 5, 3), "R": _normal(1, 5, 5)},
        {"hidden_size": 5},
        2,
    ),
    "resize, cubic, outside excluded": (
        "Resize",
        {
            "x": _normal(1, 2, 5, 6),
            "ROI": np.zeros(0, np.float32),
            "S": np.array([1, 1, 1.7, 0.6], np.float32),
        },
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
        1,
    ),
    "resize, nearest, up and down": (
        "Resize",
        {
            "x": _normal(1, 2, 5, 6),
            "ROI": np.zeros(0, np.float32),
            "S": np.array([1, 1, 2.5, 0.4], np.float32),
        },
        {"mode": "nearest", "nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"},
        1,
    ),
    "resize, sizes given and scales empty": (
        "Resize",
        {
            "x": _normal(1, 2, 5, 6),
            "ROI": np.zeros(0, np.float32),
            "S": np.zeros(0, np.float32),
            "Z": _ints(1, 2, 3, 9),
        },
        {"mode": "linear"},
        1,
    ),
    "resize, a size that is whole only when rounded": (
        "Resize",
        {"x": _normal(1, 1, 1, 5), "ROI": np.zeros(0, np.float32), "S": np.array([1, 1, 1, 2.6], np.float32)},
        {"mode": "linear"},
        1,
    ),
    "grid sample, cubic, reflected": (
        "GridSample",
        {"x": _normal(2, 3, 5, 6), "g": 1.5 * _normal(2, 3, 4, 2)},
        {"mode": "bicubic", "padding_mode": "reflection"},
        1,
    ),
    "einsum, a chain with an ellipsis": (
        "Einsum",
        {"a": _normal(2, 3, 4), "b": _normal(2, 4, 5), "c": _normal(5)},
        {"equation": "...ij,...jk,k->i..."},
        1,
    ),
    "einsum, nothing summed": ("Einsum", {"a": _normal(3), "b": _normal(4)}, {"equation": "i,j->ji"}, 1),
    "gemm, everything at once": (
        "Gemm",
        {"a": _normal(4, 3), "b": _normal(5, 4), "c": _normal(5)},
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
        1,
    ),
    "scatter, added": (
        "ScatterND",
        {"x": _normal(4, 3), "i": np.array([[1], [3], [1]], np.int64), "u": _normal(3, 3)},
        {"reduction": "add"},
        1,
    ),
    "scatter, largest": (
        "ScatterND",
        {"x": _normal(4, 3), "i": np.array([[1, 2], [3, 0], [1, 2]], np.int64), "u": _normal(3)},
        {"reduction": "max"},
        1,
    ),
    "gather with a batch": (
        "GatherND",
        {"x": _normal(2, 3, 4), "i": np.array([[[1], [-1]], [[0], [2]]], np.int64)},
        {"batch_dims": 1},
        1,
    ),
    "products of bytes longer than 256": (
        "MatMulInteger",
        {
            "a": RANDOM.integers(0, 255, (3, 700)).astype(np.uint8),
            "b": RANDOM.integers(-128, 127, (700, 2)).astype(np.int8),
            "z": np.array(200, np.uint8),
        },
        {},
        1,
    ),
    "convolutions of bytes": (
        "ConvInteger",
        {
            "a": RANDOM.integers(0, 255, (1, 64, 5, 5)).astype(np.uint8),
            "b": RANDOM.integers(0, 255, (2, 64, 3, 3)).astype(np.uint8),
            "z": np.array(3, np.uint8),
        },
        {"pads": [1, 1, 1, 1]},
        1,
    ),
    "columns to an image": (
        "Col2Im",
        {"x": _normal(2, 18, 12), "IMAGE": _ints(6, 7), "BLOCK": _ints(2, 3)},
        {"dilations": [1, 2], "pads": [0, 1, 1, 0], "strides": [2, 1]},
        1,
    ),
    "global norm": ("GlobalLpPool", {"x": _normal(2, 3, 4, 4)}, {"p": 3}, 1),
    "norms of nothing": ("LpNormalization", {"x": np.zeros((2, 3), np.float32)}, {"p": 2, "axis": 1}, 1),
    "softmax": ("Softmax", {"x": 40 * _normal(3, 5)}, {"axis": 0}, 1),
    "sizes": ("Size", {"x": _normal(3, 5)}, {}, 1),
    "unpooled": (
        "MaxUnpool",
        {"x": _normal(1, 1, 2, 2), "i": np.array([[[[0, 3], [8, 15]]]], np.int64)},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        1,
    ),
}


def model_of(case: Case) -> onnx.ModelProto:
    """A model of the one node, its inputs in capitals as constants."""
    kind, arrays, attributes, outputs = case
    fixed = [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items() if name.isupper()]
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in arrays.items()
        if not name.isupper()
    ]
    order = {"LSTM": "xWRBlhcP", "GRU": "xWRBlh", "RNN": "xWRBlh"}.get(kind)
    names = list(arrays) if order is None else [name if name in arrays else "" for name in order]
    results = [f"out{index}" for index in range(outputs)]
    node = helper.make_node(kind, names, results, **attributes)
    graph = helper.make_graph(
        [node], "case", ports, [onnx.ValueInfoProto(name=name) for name in results], fixed
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("name", CASES, ids=list(CASES))
def test_the_hard_forms_of_an_operator_are_decomposed_too(name: str) -> None:
    model = model_of(CASES[name])
    inputs = {key: value for key, value in CASES[name][1].items() if not key.isupper()}
    expected = run(model, inputs)
    plain = without(CASES[name][0], model)
    assert plain.graph.node[0].op_type != CASES[name][0] or CASES[name][0] in FORMS
    got = run(plain, inputs)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=2e-5)


FUNCTIONS = {
    "Sinh": np.array([-80, -1, -1e-4, 0, 1e-3, 0.5, 1, 20, 88], np.float32),
    "Cosh": np.array([-80, -1, 0, 1e-3, 20, 88], np.float32),
    "Tan": np.array([-1.5, -0.1, 0, 1, 1.5], np.float32),
    "Asin": np.array([-1, -0.999, -0.5, -1e-4, 0, 0.7, 0.71, 0.9999, 1], np.float32),
    "Acos": np.array([-1, -0.999, -0.5, 0, 0.7, 0.9999, 1], np.float32),
    "Atan": np.array([-1e20, -1.01, -1, -0.5, -1e-5, 0, 0.3, 1, 2, 1e30, np.inf], np.float32),
    "Asinh": np.array([-1e20, -100, -1e-5, 0, 1e-4, 0.5, 3, 1e10, 3e38], np.float32),
    "Acosh": np.array([1, 1.00001, 1.5, 3, 1e10, 3e38], np.float32),
    "Atanh": np.array([-0.9999, -0.5, -1e-5, 0, 1e-4, 0.3, 0.99999], np.float32),
    "Erf": np.array([-9, -4, -1, -0.999, -1e-5, 0, 1e-3, 0.5, 1, 1.001, 2, 3.9, 5, np.inf], np.float32),
    "Softplus": np.array([-200, -20, 0, 20, 200], np.float32),
    "Gelu": np.array([-9, -1, 0, 1, 9], np.float32),
    "Mish": np.array([-200, -2, 0, 2, 200], np.float32),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_elementary_functions_keep_their_digits_over_their_whole_range(kind: str) -> None:
    x = FUNCTIONS[kind]
    model = model_of((kind, {"x": x}, {}, 1))
    model.opset_import[0].version = 20
    (expected,) = run(model, {"x": x}).values()
    (got,) = run(without(kind, model), {"x": x}).values()
    np.testing.assert_allclose(got, expected, rtol=3e-6, atol=1e-7)


def test_what_no_rule_can_say_is_refused_by_name() -> None:
    x = RANDOM.integers(0, 9, 5)
    model = model_of(("Unique", {"x": x}, {}, 1))
    with pytest.raises(Refusal, match="Unique") as caught:
        hub.legalise(hub.canonical(model).model, frozenset({"Add"}))
    assert caught.value.code == "unsupported_op"


def test_bodies_that_onnx_itself_gives_are_used_where_we_have_no_rule() -> None:
    model = model_of(("MeanVarianceNormalization", {"x": _normal(2, 3, 4, 4)}, {}, 1))
    assert "MeanVarianceNormalization" not in DECOMPOSITIONS.kinds
    assert body(hub.canonical(model).model.graph[0]) is not None
    x = _normal(2, 3, 4, 4)
    (expected,) = run(model, {"x": x}).values()
    (got,) = run(without("MeanVarianceNormalization", model), {"x": x}).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
