"""What exporters write out is recognised, computes the same, and is left alone where it only looks alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgekit_converters import hub
from edgekit_converters.hub.patterns.attention import attention_of
from tests.converters.graphs import GraphBuilder
from tests.converters.hub_nodes import run

Form = Callable[[GraphBuilder], str]


def number(g: GraphBuilder, value: float) -> str:
    return g.constant(np.array(value, np.float32))


def axis(g: GraphBuilder, *axes: int) -> str:
    return g.constant(np.array(axes, np.int64))


def gelu_of_torch(g: GraphBuilder) -> str:
    """x · 0.5 · (erf(x / √2) + 1)."""
    gate = g.op("Add", g.op("Erf", g.op("Div", "x", number(g, math.sqrt(2)))), number(g, 1))
    return g.op("Mul", g.op("Mul", "x", number(g, 0.5)), gate)


def gelu_of_keras(g: GraphBuilder) -> str:
    """(x · (1 + erf(x · 0.7071))) · 0.5."""
    gate = g.op("Add", number(g, 1), g.op("Erf", g.op("Mul", number(g, 0.70710677), "x")))
    return g.op("Mul", number(g, 0.5), g.op("Mul", "x", gate))


def gelu_by_tanh(g: GraphBuilder) -> str:
    """0.5 · x · (1 + tanh(√(2/π)(x + 0.044715 x³)))."""
    cube = g.op("Mul", g.op("Pow", "x", number(g, 3)), number(g, 0.044715))
    inner = g.op("Mul", number(g, math.sqrt(2 / math.pi)), g.op("Add", "x", cube))
    gate = g.op("Add", g.op("Tanh", inner), number(g, 1))
    return g.op("Mul", g.op("Mul", number(g, 0.5), "x"), gate)


def gelu_by_tanh_of_products(g: GraphBuilder) -> str:
    """The same with x · x · x."""
    cube = g.op("Mul", g.op("Mul", g.op("Mul", "x", "x"), "x"), number(g, 0.044715))
    inner = g.op("Mul", g.op("Add", cube, "x"), number(g, 0.7978846))
    return g.op("Mul", "x", g.op("Mul", g.op("Add", number(g, 1), g.op("Tanh", inner)), number(g, 0.5)))


def hard_swish_of_tensorflow(g: GraphBuilder) -> str:
    """x · relu6(x + 3) / 6."""
    hard = g.op("Clip", g.op("Add", "x", number(g, 3)), number(g, 0), number(g, 6))
    return g.op("Mul", "x", g.op("Mul", hard, number(g, 1 / 6)))


def hard_swish_of_torch(g: GraphBuilder) -> str:
    """x · hardsigmoid(x)."""
    return g.op("Mul", g.op("HardSigmoid", "x", alpha=1 / 6, beta=0.5), "x")


def _unit(g: GraphBuilder, *, square: str = "Pow", axes: tuple[int, ...] = (-1,)) -> str:
    centred = g.op("Sub", "x", g.op("ReduceMean", "x", axis(g, *axes)))
    squared = g.op("Pow", centred, number(g, 2)) if square == "Pow" else g.op("Mul", centred, centred)
    variance = g.op("Add", g.op("ReduceMean", squared, axis(g, *axes)), number(g, 1e-3))
    return g.op("Div", centred, g.op("Sqrt", variance))


def layer_norm_by_power(g: GraphBuilder) -> str:
    """As torch exports it."""
    return g.op("Add", g.op("Mul", _unit(g), g.weight(8)), g.weight(8))


def layer_norm_by_product(g: GraphBuilder) -> str:
    """With the operands the other way round."""
    return g.op("Add", g.weight(8), g.op("Mul", g.weight(8), _unit(g, square="Mul", axes=(2,))))


FORMS: dict[Form, str] = {
    gelu_of_torch: "Gelu",
    gelu_of_keras: "Gelu",
    gelu_by_tanh: "Gelu",
    gelu_by_tanh_of_products: "Gelu",
    hard_swish_of_tensorflow: "HardSwish",
    hard_swish_of_torch: "HardSwish",
    layer_norm_by_power: "LayerNormalization",
    layer_norm_by_product: "LayerNormalization",
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_function_written_out_is_recognised_and_computes_the_same(form: Form) -> None:
    g = GraphBuilder((4, 8))
    model = g.model(g.op("Neg", form(g)), [4, 8])
    found = hub.canonical(model)
    assert found.facts["ops"] == sorted([FORMS[form], "Neg"])
    assert found.facts["recognised"] == {FORMS[form]: 1}
    inputs = {"x": (3 * np.random.default_rng(0).standard_normal((2, 4, 8))).astype(np.float32)}
    (expected,), (got,) = run(model, inputs).values(), run(hub.to_proto(found.model), inputs).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6)


def other_divisor(g: GraphBuilder) -> str:
    """erf(x / 2) is no Gelu."""
    gate = g.op("Add", g.op("Erf", g.op("Div", "x", number(g, 2))), number(g, 1))
    return g.op("Mul", g.op("Mul", "x", number(g, 0.5)), gate)


def other_value(g: GraphBuilder) -> str:
    """The gate reads another value than it gates."""
    gate = g.op("Add", g.op("Erf", g.op("Mul", g.op("Abs", "x"), number(g, math.sqrt(0.5)))), number(g, 1))
    return g.op("Mul", g.op("Mul", "x", number(g, 0.5)), gate)


def gate_read_elsewhere(g: GraphBuilder) -> str:
    """What is inside is a result too."""
    gate = g.op("Add", g.op("Erf", g.op("Mul", "x", number(g, math.sqrt(0.5)))), number(g, 1))
    return g.op("Add", g.op("Mul", g.op("Mul", "x", number(g, 0.5)), gate), gate)


def clip_at_five(g: GraphBuilder) -> str:
    """x · clip(x + 3, 0, 5)/6 is no HardSwish."""
    hard = g.op("Clip", g.op("Add", "x", number(g, 3)), number(g, 0), number(g, 5))
    return g.op("Div", g.op("Mul", "x", hard), number(g, 6))


def scale_along_another_axis(g: GraphBuilder) -> str:
    """A scale for each row is none for each feature."""
    return g.op("Add", g.op("Mul", _unit(g), g.weight(4, 1)), g.weight(8))


def other_axis(g: GraphBuilder) -> str:
    """Normalised over the middle axis."""
    return g.op("Add", g.op("Mul", _unit(g, axes=(1,)), g.weight(8)), g.weight(8))


@pytest.mark.parametrize(
    "form",
    [other_divisor, other_value, gate_read_elsewhere, clip_at_five, scale_along_another_axis, other_axis],
    ids=lambda form: form.__name__,
)
def test_what_only_looks_alike_is_left_alone(form: Form) -> None:
    g = GraphBuilder((4, 8))
    model = g.model(form(g), [4, 8])
    found = hub.canonical(model)
    assert found.facts["recognised"] == {}
    inputs = {"x": (3 * np.random.default_rng(0).standard_normal((2, 4, 8))).astype(np.float32)}
    (expected,), (got,) = run(model, inputs).values(), run(hub.to_proto(found.model), inputs).values()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_found_with_its_scale_and_mask(masked: bool) -> None:
    g = GraphBuilder((6, 8))
    queries, keys, values = (g.op("MatMul", "x", g.weight(8, 8)) for _ in range(3))
    scores = g.op("MatMul", queries, g.op("Transpose", keys, perm=[0, 2, 1]))
    scores = g.op("Div", scores, number(g, math.sqrt(8)))
    if masked:
        scores = g.op("Add", scores, g.constant(np.triu(np.full((6, 6), -np.inf, np.float32), 1)))
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), values)
    found = hub.canonical(g.model(y, [6, 8]))
    assert found.facts["recognised"] == {"Attention": 1}
    attention = attention_of(next(item for item in reversed(found.model.graph) if item.op_type == "MatMul"))
    assert attention is not None
    assert math.isclose(attention.scale, 1 / math.sqrt(8), rel_tol=1e-6)
    assert (attention.mask is not None) == masked
