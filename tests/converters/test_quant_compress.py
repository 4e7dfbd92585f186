"""Pruning and clustering: as strong as the verdict accepts, never more, and only where it gains something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.rules import load_rules
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize import analysis
from edgekit_converters.quantize.cluster import BITS, cluster, palettized
from edgekit_converters.quantize.emulate import emulate
from edgekit_converters.quantize.graphs import clone, constant
from edgekit_converters.quantize.levels import strongest
from edgekit_converters.quantize.prune import SHARES, mask, prune
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import canonical, samples

RULES = replace(load_rules("coreml-ios17"), compression=("sparse", "palette"))
POOR = replace(RULES, compression=())


def build(g: GraphBuilder) -> tuple[str, list[int]]:
    """A layer that bears many zeros (most of its weights are tiny) and one that bears few."""
    heavy = (np.abs(g.random.standard_normal((16, 16, 3, 3))) ** 6).astype(np.float32)
    y = g.op("Relu", g.op("Conv", "x", g.weight(16, 3, 3, 3), g.weight(16), pads=[1, 1, 1, 1]))
    y = g.op("Relu", g.op("Conv", y, g.constant(heavy / heavy.max()), g.weight(16)))
    return g.op("Conv", y, g.weight(16, 16, 3, 3)), [16, 4, 4]


def verdict(model: ir.Model, limit: float) -> Any:
    (name,) = (str(item.name) for item in model.graph.outputs)
    expected = emulate(model, samples(16, seed=4))[name]

    def accepted(candidate: ir.Model) -> bool:
        return analysis.snr(expected, emulate(candidate, samples(16, seed=4))[name]) >= limit

    return accepted


def test_each_layer_gets_the_strongest_level_that_is_accepted_with_the_others() -> None:
    """A budget of ten: a level of `a` costs one, of `b` three."""

    def accepted(choice: Mapping[str, int]) -> bool:
        return choice["a"] + 3 * choice["b"] <= 10

    choice = strongest(["a", "b"], 8, accepted)
    assert accepted(choice)
    for layer in choice:
        assert choice[layer] == 7 or not accepted({**choice, layer: choice[layer] + 1})


def test_nothing_accepted_means_nothing_done() -> None:
    assert strongest(["a", "b"], 8, lambda _: False) == {"a": 0, "b": 0}


def test_the_search_never_returns_what_was_not_accepted() -> None:
    seen: list[dict[str, int]] = []

    def accepted(choice: Mapping[str, int]) -> bool:
        good = sum(choice.values()) % 3 != 1
        if good:
            seen.append(dict(choice))
        return good

    choice = strongest(["a", "b", "c"], 6, accepted)
    assert not any(choice.values()) or choice in seen


def test_the_least_weights_go_first() -> None:
    kept = mask(np.array([3.0, -0.1, 2.0, 0.2]), 0.5)
    assert kept.tolist() == [True, False, True, False]


def test_pruning_takes_more_from_the_layer_that_bears_more() -> None:
    model = canonical(build)
    accepted = verdict(model, 20.0)
    found = prune(model, samples(), accepted, RULES)
    assert accepted(found.model)
    convs = [str(node.outputs[0].name) for node in model.graph if node.op_type == "Conv"]
    assert found.shares[convs[1]] > found.shares[convs[2]]
    for node in found.model.graph:
        share = found.shares.get(str(node.outputs[0].name), 0.0)
        if share:
            assert np.mean(constant(node.inputs[1]) == 0) == pytest.approx(share, abs=0.01)


def test_mean_and_spread_are_estimated_again_after_pruning() -> None:
    model = canonical(build)
    (name,) = (str(item.name) for item in model.graph.outputs)
    seen: list[ir.Model] = []

    def accepted(candidate: ir.Model) -> bool:
        seen.append(candidate)
        return len(seen) < 3

    prune(model, samples(), accepted, RULES)
    expected = emulate(model, samples())[name]
    found = emulate(seen[1], samples())[name]
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), expected.mean(axis=(0, 2, 3)), atol=0.15)
    np.testing.assert_allclose(found.std(axis=(0, 2, 3)), expected.std(axis=(0, 2, 3)), rtol=0.1)


def test_what_training_saves_may_be_pruned_further_in_few_trainings() -> None:
    """A training that undoes all harm: as many zeros as there are levels, after at most five calls."""
    model = canonical(build)
    good, calls = verdict(model, 20.0), []
    plain = prune(model, samples(), good, RULES)

    def tune(candidate: ir.Model, masks: Mapping[str, Any]) -> ir.Model:
        weights = {
            str(node.inputs[1].name) for node in candidate.graph if node.op_type == "Conv" and node.inputs[1]
        }
        assert masks.keys() <= weights
        calls.append(candidate)
        return model

    found = prune(model, samples(), good, RULES, tune=tune)
    assert found.tuned
    assert found.model is model
    assert len(calls) <= 5
    assert all(found.shares[layer] > share for layer, share in plain.shares.items() if share < SHARES[-1])


def test_a_training_that_harms_leaves_what_was_found_without_it() -> None:
    model = canonical(build)
    good = verdict(model, 20.0)
    plain = prune(model, samples(), good, RULES)
    found = prune(model, samples(), good, RULES, tune=lambda candidate, _: prune_all(candidate))
    assert not found.tuned
    assert found.shares == plain.shares


def prune_all(model: ir.Model) -> ir.Model:
    copy = clone(model)
    for value in copy.graph.initializers.values():
        value.const_value = ir.Tensor(np.zeros_like(constant(value)))
    return copy


def test_a_model_that_bears_nothing_is_refused() -> None:
    model = canonical(build)
    with pytest.raises(Refusal) as caught:
        prune(model, samples(), lambda _: False, RULES)
    assert caught.value.code == "nothing_pruned"
    with pytest.raises(Refusal) as caught:
        cluster(model, lambda _: False, RULES)
    assert caught.value.code == "nothing_clustered"


def test_a_runtime_that_gains_nothing_gets_neither_zeros_nor_palettes() -> None:
    model = canonical(build)
    for attempt in (
        lambda: prune(model, samples(), lambda _: True, POOR),
        lambda: cluster(model, lambda _: True, POOR),
    ):
        with pytest.raises(Refusal) as caught:
            attempt()
        assert caught.value.code == "no_gain"


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_a_palette_has_at_most_its_number_of_values(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    found = palettized(weight, bits)
    assert len(np.unique(found)) <= 2**bits
    assert found.dtype == np.float32
    assert analysis.snr(weight, found) > 4 * bits
    np.testing.assert_array_equal(found, palettized(weight, bits))


def test_few_values_are_left_as_they_are() -> None:
    weight = np.array([[0.25, -1.0], [0.25, 3.0]], np.float32)
    assert palettized(weight, 2) is weight


def test_clustering_takes_the_fewest_bits_that_are_accepted() -> None:
    model = canonical(build)
    accepted = verdict(model, 25.0)
    found = cluster(model, accepted, RULES)
    assert accepted(found.model)
    assert any(0 < bits < 8 for bits in found.bits.values())
    for node in found.model.graph:
        bits = found.bits.get(str(node.outputs[0].name), 0)
        if bits:
            assert len(np.unique(constant(node.inputs[1]))) <= 2**bits


def test_levels_grow_from_nothing() -> None:
    assert SHARES[0] == 0.0
    assert list(SHARES) == sorted(SHARES)
    assert BITS[0] == 0
    assert list(BITS[1:]) == sorted(BITS[1:], reverse=True)
