"""Every limit of the TIDL rules has a case that breaks it; the graph is cut where it must be."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgekit.rules import Rules, list_rules, load_rules
from edgekit_converters.targets.tidl.checks import Known
from edgekit_converters.targets.tidl.legacy import CHECKS
from edgekit_converters.targets.tidl.partition import Partition, Refused, partition
from edgekit_converters.targets.tidl.soc import MOST_SUBGRAPHS
from tests.converters.graphs import GraphBuilder
from tests.converters.tidl_cases import CASES, Build, Case, conv, inferred, one, parts

RULES = {name: load_rules(name) for name in list_rules() if name.startswith("tidl-")}
AM62A, AM68A, TDA4VM, AM57 = (
    RULES[f"tidl-{name}"] for name in ("am62a-11.0", "am68a-11.0", "tda4vm-11.0", "am57-6.3")
)
SIGNED = Known(ranges={"x": (-1.0, 1.0), "t0": (0.0, 1.0), "t1": (-1.0, 1.0)})
PRODUCT = Known(ranges={"t0": (0.0, 1.0), "t1": (0.0, 1.0)})


def node_of(model: ir.Model, op: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op)


def broken(case: Case) -> ir.Model:
    return inferred(case.bad, case.shape, batch="N" if case.check == "free_shape" else 1)


def fine(case: Case) -> ir.Model:
    if case.check.startswith("over_"):
        return inferred(case.good, (*case.shape[:-1], 1) if case.check == "over_6_axes" else case.shape[:-1])
    return inferred(case.good, case.shape)


def test_every_check_that_a_rules_file_names_exists_and_has_a_case() -> None:
    named = {limit.check for rules in RULES.values() for limit in rules.limits}
    assert "" not in named
    assert named == set(CHECKS) == {case.check for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda item: item.check)
def test_a_node_over_the_limit_is_caught_and_one_within_it_is_not(case: Case) -> None:
    assert CHECKS[case.check](node_of(broken(case), case.op), SIGNED)
    if case.check != "always":
        assert not CHECKS[case.check](node_of(fine(case), case.op), PRODUCT)


@pytest.mark.parametrize("rules", RULES.values(), ids=list(RULES))
def test_every_limit_of_a_soc_refuses_with_its_own_reason_and_remedy(rules: Rules) -> None:
    by_check = {case.check: case for case in CASES}
    for limit in rules.limits:
        case = by_check[limit.check]
        if limit.op not in ("*", case.op):
            continue
        model = broken(case)
        name = str(node_of(model, case.op).outputs[0].name)
        cut = partition(model.graph, rules, SIGNED)
        if cut.refused[name].reason_code == limit.reason_code:
            assert cut.refused[name] == Refused(
                reason_code=limit.reason_code, detail=limit.detail, remedy=limit.remedy
            )
        else:  # an earlier limit of the same rules names the same node
            earlier = [item.reason_code for item in rules.limits[: rules.limits.index(limit)]]
            assert cut.refused[name].reason_code in earlier


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Softmax", "Gelu", "Elu"])
def test_am62a_has_no_activation_by_table_and_am68a_has(op: str) -> None:
    model = inferred(lambda g: g.op(op, conv()(g)))
    assert partition(model.graph, AM62A, Known()).refused["t1"].reason_code == "no_lookup_activation"
    assert not partition(model.graph, AM68A, Known()).refused


def test_a_16_bit_deconvolution_is_not_there_on_the_small_socs() -> None:
    for name in ("tidl-am62a-11.0", "tidl-am67a-11.0"):
        assert RULES[name].rule("ConvTranspose", "int16") is None
    assert AM68A.rule("ConvTranspose", "int16") is not None


def test_a_layer_takes_in_its_activation_in_sixteen_bits_as_in_eight() -> None:
    """Else the tensor between them would be rounded, of which no range is stored."""
    for rules in RULES.values():
        for op in {name for rule in rules.ops for name in rule.ops}:
            eight, sixteen = (rules.rule(op, kind) for kind in ("int8", "int16"))
            if eight is not None and sixteen is not None:
                assert eight.merges_activation == sixteen.merges_activation, (rules.name, op)


def test_mixed_signs_are_refused_on_tda4vm_only_and_unknown_ranges_are_not_guessed() -> None:
    case = next(item for item in CASES if item.check == "mixed_sign_product")
    graph = broken(case).graph
    assert partition(graph, TDA4VM, SIGNED).refused["t2"].reason_code == "mixed_sign_product"
    assert not partition(graph, TDA4VM, Known()).refused
    assert not partition(graph, AM68A, SIGNED).refused


def test_an_operator_without_a_layer_is_refused_by_name() -> None:
    cut = partition(inferred(one("Erf")).graph, AM57, Known())
    assert cut.refused["t0"].reason_code == "unsupported_operator"
    assert "Erf" in cut.refused["t0"].detail


# How the graph is cut.


def chain(*kinds: str) -> Build:
    def build(g: GraphBuilder) -> str:
        y = "x"
        for kind in kinds:
            y = g.op("Conv", y, g.weight(4, 4, 1, 1)) if kind == "Conv" else g.op(kind, y)
        return y

    return build


def cut_of(build: Build) -> Partition:
    return partition(inferred(build).graph, AM68A, Known())


def test_an_unsupported_node_in_the_middle_leaves_a_subgraph_on_either_side() -> None:
    cut = cut_of(chain("Conv", "Relu", "Erf", "Conv", "Relu"))
    assert [item.nodes for item in cut.subgraphs] == [("t0", "t1"), ("t3", "t4")]
    assert [(item.inputs, item.outputs) for item in cut.subgraphs] == [
        (("x",), ("t1",)),
        (("t2",), ("t4",)),
    ]
    assert list(cut.refused) == ["t2"]
    assert cut.share == 1.0
    found = cut.to_dict()
    assert found["arm"][0]["reason_code"] == "lone_erf"
    assert found["accelerated_nodes"] == 4
    assert not cut.whole


def test_a_path_that_leaves_and_comes_back_splits_the_subgraph() -> None:
    """t0 feeds t2 directly and through the refused t1: one subgraph of t0 and t2 could not be run."""

    def build(g: GraphBuilder) -> str:
        y = g.op("Conv", "x", g.weight(4, 4, 1, 1))
        return g.op("Add", y, g.op("Erf", y))

    assert [item.nodes for item in cut_of(build).subgraphs] == [("t0",), ("t2",)]


def test_a_branch_beside_a_refused_node_stays_in_one_piece() -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Conv", "x", g.weight(4, 4, 1, 1))
        side = g.op("Erf", "x")
        return g.op("Add", g.op("Relu", y), side)

    cut = cut_of(build)
    assert [item.nodes for item in cut.subgraphs] == [("t0", "t2"), ("t3",)]


def test_no_more_than_sixteen_subgraphs_are_kept_and_the_heaviest_are() -> None:
    def build(g: GraphBuilder) -> str:
        y = "x"
        for index in range(MOST_SUBGRAPHS + 2):
            y = g.op("Conv", y, g.weight(4, 4, 1, 1)) if index > 1 else g.op("Relu", y)
            y = g.op("Erf", y)
        return y

    cut = cut_of(build)
    assert len(cut.subgraphs) == MOST_SUBGRAPHS
    assert [name for name, why in cut.refused.items() if why.reason_code == "too_many_subgraphs"] == [
        "t0",
        "t2",
    ]
    assert cut.share == 1.0


def test_a_graph_that_fits_is_whole_and_the_cut_is_the_same_every_time() -> None:
    cut = cut_of(chain("Conv", "Relu", "Relu", "Conv"))
    assert cut.whole
    assert cut == cut_of(chain("Conv", "Relu", "Relu", "Conv"))


def test_a_split_of_the_batch_is_refused_and_one_of_the_channels_is_not() -> None:
    many = inferred(parts(0), (4, 16, 16), batch=4)
    assert CHECKS["slice_batch"](node_of(many, "Split"), Known())
    assert not CHECKS["slice_batch"](node_of(inferred(parts(1)), "Split"), Known())
