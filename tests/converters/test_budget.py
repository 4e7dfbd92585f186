"""Budgets by threat: bounds misread, figures trusted too far, what cannot fit built all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgekit.contract import Serving
from edgekit.errors import UsageError
from edgekit.profile import load_profile
from edgekit_converters.budget.candidate import HOST, TARGET, Candidate, Figure, Kept, document, keeps
from edgekit_converters.budget.front import choose, pareto, unknown_metrics
from edgekit_converters.budget.order import not_worth_trying, rounds, rung_above
from edgekit_converters.budget.terms import Budget, read_budget, with_standing
from edgekit_converters.budget.weights import least_bytes, least_weights, too_large


def candidate(precision: str, *, rank: int = 0, profile: str = "board", **facts: Any) -> Candidate:
    """A variant with figures; `latency` in ms on the host, or on the target with ``on_target``."""
    source = TARGET if facts.pop("on_target", False) else HOST
    refusal = facts.pop("refusal", "")
    figures = {}
    for name, value in facts.items():
        scale, place = {"latency": (1e3, source), "size": (1e6, "built")}.get(name, (1.0, "built"))
        figures[name] = Figure(value=value * scale, source=place)
    return Candidate(
        id=f"{profile}-tflite-{precision}",
        profile=profile,
        target="tflite",
        precision=precision,
        rank=rank,
        decisive="top1" if "top1" in facts else "",
        figures=figures,
        refusal=refusal,
        measured_on="cam-1" if source == TARGET else "",
    )


INT8 = candidate("int8", rank=0, latency=3, size=1, top1=0.97)
FP16 = candidate("fp16", rank=1, latency=5, size=2, top1=0.98)
FP32 = candidate("fp32", rank=2, latency=4, size=4, top1=0.98)


def test_the_budget_of_the_documentation_is_read_with_its_units() -> None:
    budget = read_budget("latency<30ms, size <= 2MB,top1>=97%,snr>20 dB,arena<64KiB,smallest")
    limits = [(term.metric, term.op, term.limit) for term in budget.terms]
    assert limits == [
        ("latency", "<", 30_000.0),
        ("size", "<=", 2e6),
        ("top1", ">=", 0.97),
        ("snr", ">", 20.0),
        ("arena", "<", 65_536.0),
    ]
    assert budget.objective == "smallest"
    assert budget.text == "latency<30 ms,size<=2 MB,top1>=0.97,snr>20 dB,arena<65.54 kB,smallest"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is no bound"),
        ("fastest", "bounds nothing"),
        ("latency<30", "needs a unit"),
        ("size<2ms", "is no unit of size"),
        ("latency>30ms", "is a cost"),
        ("top1<0.9", "is a quality"),
        ("rmse>0.1", "is an error"),
        ("top1=0.9", "never equal"),
        ("latency==3ms", "use latency<=3ms"),
        ("top1<0.9", "use top1>=0.9"),
        ("top1>=97", "never more than 1"),
        ("top1>=101%", "never more than 1"),
        ("frames<3", "a quality is bounded from below, frames>=3"),
        ("latency<fast", "is no bound"),
        ("latency<1e99ms", "from 0 on"),
        ("latency<-1ms", "from 0 on"),
        ("lateny<30ms", "is no unit of lateny"),
        ("size<2MB,smallest,fastest", "one of them"),
        ("size<2MB;top1>0.9", "is no bound"),
        ("size<1e9e9MB", "is no number"),
    ],
)
def test_a_bound_that_means_nothing_is_refused_in_words(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        read_budget(text)
    assert caught.value.remedy
    assert caught.value.where == "--budget"


def test_what_contract_and_board_bound_stands_unless_the_budget_names_it() -> None:
    promised, board = Serving(latency_budget_ms=20.0), load_profile("web-wasm").budgets
    found = with_standing(read_budget("top1>=0.9"), promised, board)
    assert found.text.startswith("top1>=0.9,latency<=20 ms,memory<=")
    assert ",size<=20.97 MB" in found.text
    named = with_standing(read_budget("latency<1s,size<1MB,memory<1GB"), promised, board)
    assert named.text == "latency<1 s,size<1 MB,memory<1 GB"


def test_a_misspelt_metric_is_met_with_the_right_one() -> None:
    with pytest.raises(UsageError) as caught:
        read_budget("laetncy<30ms")
    assert "latency" in str(caught.value.remedy)


def test_the_front_has_what_nothing_beats_and_no_refusal() -> None:
    beaten = candidate("dynamic", rank=3, latency=9, size=3, top1=0.90)
    refused = candidate("int4", rank=4, refusal="accuracy_breach: too much")
    front = pareto([FP32, beaten, INT8, refused, FP16])
    assert [item.precision for item in front] == ["int8", "fp16", "fp32"]
    other = candidate("int8", profile="other", latency=1, size=0.5, top1=0.99)
    assert len(pareto([INT8, other])) == 2, "boards do not compete"


def test_a_host_latency_never_decides_between_variants_of_a_board() -> None:
    quick = replace(FP32, figures={**FP32.figures, "latency": Figure(value=1.0, source=HOST)})
    choice = choose("board", [INT8, quick], read_budget("top1>=0.9,latency<30ms"))
    assert choice.picked is INT8
    assert "profile prefers it" in choice.why
    assert "this computer's" in choice.why


def test_latencies_of_the_board_decide_and_alike_ones_do_not() -> None:
    slow = candidate("int8", rank=0, latency=8, size=1, top1=0.97, on_target=True)
    quick = candidate("fp16", rank=1, latency=5, size=2, top1=0.98, on_target=True)
    close = candidate("fp32", rank=2, latency=4.95, size=4, top1=0.98, on_target=True)
    choice = choose("board", [slow, quick, close], read_budget("top1>=0.9,latency<30ms"))
    assert choice.picked is quick, "one percent is no difference, the smaller one is taken"
    assert "on cam-1" in choice.why
    assert "this computer's" not in choice.why


def test_without_a_bound_on_quality_the_best_is_taken_and_with_an_objective_that() -> None:
    known = [INT8, FP16, FP32]
    preferred = replace(FP32, rank=-1)
    assert choose("board", [INT8, preferred], read_budget("size<5MB,top1>=0.5")).picked is INT8
    assert (
        choose("board", [INT8, preferred], read_budget("size<5MB,top1>=0.5,latency<1s")).picked is preferred
    )
    assert choose("board", known, read_budget("size<5MB")).picked is FP16
    assert choose("board", known, read_budget("size<5MB,smallest")).picked is INT8
    assert choose("board", known, read_budget("size<5MB,fastest")).picked is INT8
    assert choose("board", known, read_budget("top1>=0.5,best")).picked is FP16


def test_what_is_not_measured_is_not_called_kept() -> None:
    unknown = candidate("int8", rank=0, size=1, top1=0.97)
    budget = read_budget("latency<30ms,top1>=0.9")
    assert keeps(unknown, budget.terms[0]) is Kept.UNKNOWN
    assert choose("board", [unknown, FP32], budget).picked is FP32, "the proven one goes first"
    alone = choose("board", [unknown], budget)
    assert alone.picked is unknown
    assert "not proven" in alone.why
    assert document(unknown, budget)["bounds"] == {"latency<30 ms": "unknown", "top1>=0.9": "met"}


def test_nothing_fits_says_what_would() -> None:
    choice = choose("board", [INT8, FP32], read_budget("latency<1ms,top1>=0.975,size<5MB"))
    assert choice.picked is None
    assert "latency 3 ms on this host (latency<1 ms)" in choice.why
    assert choice.would_fit == "tflite fp32 would fit a budget of latency 4 ms"
    nothing = choose("board", [candidate("int8", refusal="needs_calibration: none")], read_budget("size<1MB"))
    assert "needs_calibration" in nothing.why
    assert "can be built" in nothing.would_fit


def test_an_accuracy_is_the_decisive_metric_and_an_unknown_one_is_named() -> None:
    budget = read_budget("accuracy>=0.975")
    assert keeps(INT8, budget.terms[0]) is Kept.MISSED
    assert keeps(FP32, budget.terms[0]) is Kept.MET
    assert unknown_metrics([INT8], read_budget("top5>=0.9,top1>=0.1")) == ("top5",)
    error = replace(INT8, decisive="rmse", figures={"rmse": Figure(value=0.1)})
    worse = replace(error, id="x", figures={"rmse": Figure(value=0.2)})
    assert pareto([error, worse]) == (error,)


def test_a_coarser_rung_is_not_built_when_the_finer_one_misses() -> None:
    names = ["fp16", "palettized8", "palettized4", "palettized2", "sparse50", "sparse75", "int4"]
    assert rounds(names) == [
        ["fp16", "palettized8", "sparse50", "int4"],
        ["palettized4", "sparse75"],
        ["palettized2"],
    ]
    assert rung_above("palettized2", names) == "palettized4"
    assert rung_above("fp16", names) is None
    budget = read_budget("top1>=0.975,size<2MB")
    missed = replace(INT8, precision="palettized4")
    why = not_worth_trying("palettized2", missed, budget, 0)
    assert why is not None
    assert "palettized4" in why
    assert not_worth_trying("palettized2", replace(FP32, precision="palettized4"), budget, 0) is None
    gone = replace(missed, refusal="accuracy_breach: 3 points")
    assert "is refused" in str(not_worth_trying("palettized2", gone, budget, 0))


def test_what_cannot_have_the_size_is_not_built() -> None:
    budget = read_budget("size<2MB")
    assert "weights alone take 12.00 MB" in str(not_worth_trying("fp32", None, budget, 3_000_000))
    assert not_worth_trying("int4", None, budget, 3_000_000) is None
    assert not_worth_trying("fp32", None, Budget(terms=()), 10**9) is None


def test_a_model_too_large_for_a_board_is_told_what_would_fit() -> None:
    board, large = load_profile("cortex-m7"), load_profile("cortex-m4")
    found = too_large(1_000_000, large, "tflm", "fp32")
    assert found is not None
    assert "1.0 M weights take at least 3.8 MiB as fp32, cortex-m4 has 768 KiB" in found.detail
    found = too_large(1_000_000, large, "tflm", "int8", [board, large])
    assert found is not None
    assert "room on cortex-m7" in found.remedy
    found = too_large(1_000_000, board, "tflm", "fp32", [board, large])
    assert found is not None
    assert "--precision int" in found.remedy
    found = too_large(10**9, board, "tflm", "int8", [board, large])
    assert found is not None
    assert "smaller model: at most 1.6 M weights" in found.remedy
    assert too_large(1_000_000, board, "tflm", "int8") is None


@pytest.mark.parametrize("kind", ["onnx", "keras", "tflite", "saved_model"])
def test_the_bound_from_the_file_is_never_more_than_the_model_has(kind: str) -> None:
    weights = 1_000_000
    stored = {"onnx": 4, "tflite": 4, "keras": 4, "saved_model": 12}[kind]
    assert 0 < least_weights(kind, weights * stored) <= weights
    assert least_bytes(weights, "int4") < least_bytes(weights, "int8") < least_bytes(weights, "fp32")
