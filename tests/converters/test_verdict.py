from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.contract import OutputSpec
from edgekit.package import Quantization, Tensor
from edgekit_converters.verify.compare import output_error
from edgekit_converters.verify.distributions import reference
from edgekit_converters.verify.probes import make_probes
from edgekit_converters.verify.tasks import Judged, figures_of, judged
from edgekit_converters.verify.verdict import Verdict, judge

RANDOM = np.random.default_rng(0)


def outputs(n: int = 400, classes: int = 10) -> Any:
    raw = np.exp(4 * RANDOM.standard_normal((n, classes)))
    return (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def top1(
    source: Any,
    variant: Any,
    labels: Any,
    slices: Any = None,
    *,
    tolerance: float = 0.01,
    activation: str = "softmax",
) -> Judged:
    spec = OutputSpec(name="y", task="classification", activation=activation)
    figure = figures_of(spec, {"y": source}, {}, labels, "labels")[0]
    return judged(figure, {"y": source}, {"y": variant}, slices, tolerance)


def decide(
    source: Any,
    variant: Any,
    *,
    precision: str,
    labels: Any = None,
    tolerance: float = 0.01,
    origin: str = "validation",
) -> Verdict:
    return judge(
        precision=precision,
        errors={"y": output_error(source, variant, activation="softmax")},
        figures=() if labels is None else (top1(source, variant, labels, tolerance=tolerance),),
        origin=origin,
        n=len(source),
    )


def test_equal_outputs_pass() -> None:
    y = outputs()
    assert decide(y, y, precision="fp32").verdict == "pass"


@pytest.mark.parametrize(("precision", "error"), [("fp32", 2e-4), ("fp16", 2e-2)])
def test_a_numeric_error_above_the_threshold_is_a_breach(precision: str, error: float) -> None:
    y = outputs()
    assert decide(y, y + np.float32(error), precision=precision).verdict == "breach"
    assert decide(y, y + np.float32(error / 10), precision=precision).verdict == "pass"


def test_noise_below_20_db_is_a_breach_for_int8() -> None:
    y = outputs()
    noisy = y + (0.05 * RANDOM.standard_normal(y.shape)).astype(np.float32)
    assert "dB" in decide(y, noisy, precision="int8").why
    assert decide(y, noisy, precision="int8").verdict == "breach"


def test_nan_is_a_breach_whatever_the_labels_say() -> None:
    y = outputs()
    broken = y.copy()
    broken[0, 0] = np.nan
    verdict = decide(y, broken, precision="int8", labels=y.argmax(1))
    assert verdict.verdict == "breach"
    assert "NaN" in verdict.why


@pytest.mark.parametrize("doubt", ["constant_samples", "duplicate_samples"])
def test_agreement_on_calibration_data_that_says_nothing_is_no_pass(doubt: str) -> None:
    y = outputs()
    errors = {"y": output_error(y, y, activation="softmax")}
    given: dict[str, Any] = {"precision": "int8", "errors": errors, "figures": ()}
    verdict = judge(**given, origin="calibration", n=len(y), doubts=(doubt,))
    assert (verdict.verdict, doubt in verdict.reasons) == ("unverified", True)
    assert judge(**given, origin="validation", n=len(y), doubts=(doubt,)).verdict == "pass"


def test_a_float_variant_that_computes_something_else_is_a_breach_though_labels_do_not_mind() -> None:
    y = outputs()
    wrong_labels = (y.argmax(1) + 1) % y.shape[1]
    assert decide(y, np.full_like(y, 0.1), precision="fp32", labels=wrong_labels).verdict == "breach"


def test_an_offset_does_not_hide_that_the_signal_is_lost() -> None:
    kelvin = (300 + RANDOM.standard_normal((200, 1))).astype(np.float32)
    assert "dB" in decide(kelvin, np.full_like(kelvin, 300), precision="int8").why


def test_a_second_output_that_is_wrong_is_not_hidden_by_labels_of_the_first() -> None:
    y, other = outputs(), outputs()
    verdict = judge(
        precision="int8",
        errors={
            "y": output_error(y, y, activation="softmax"),
            "angle": output_error(other, other[::-1], activation=None),
        },
        figures=(top1(y, y, y.argmax(1)),),
        origin="validation",
        n=len(y),
    )
    assert verdict.verdict == "breach"
    assert "angle" in verdict.why


def test_a_model_that_is_wrong_in_the_field_is_a_breach_with_few_labels() -> None:
    y = outputs(20)
    assert decide(y, np.roll(y, 1, axis=1), precision="int8", labels=y.argmax(1)).verdict == "breach"


def test_a_drop_that_chance_explains_passes_and_says_what_n_could_show() -> None:
    y = outputs(50)
    worse = y.copy()
    worse[0] = np.roll(worse[0], 1)
    verdict = decide(y, worse, precision="int8", labels=y.argmax(1), tolerance=0.01)
    assert verdict.verdict == "pass"
    assert "n=50" in verdict.why
    assert "detectable 10.00" in verdict.why


def test_with_a_thousand_samples_the_point_drop_decides() -> None:
    y = outputs(2000)
    worse = y.copy()
    worse[:25] = np.roll(worse[:25], 1, axis=1)
    labels = y.argmax(1)
    result = decide(y, worse, precision="int8", labels=labels, tolerance=0.012)
    assert result.verdict == "breach"
    assert (
        decide(y[:900], worse[:900], precision="int8", labels=labels[:900], tolerance=0.025).verdict == "pass"
    )


def test_synthetic_inputs_never_pass() -> None:
    y = outputs()
    verdict = decide(y, y, precision="fp32", origin="synthetic")
    assert verdict.verdict == "unverified"
    assert verdict.reasons == ("synthetic_inputs",)
    assert decide(y, y + 1, precision="fp32", origin="synthetic").verdict == "breach"
    noisy = decide(y, np.zeros_like(y), precision="dynamic", origin="synthetic")
    assert (noisy.verdict, noisy.reasons) == ("unverified", ("synthetic_inputs", "below_threshold"))


def test_the_worst_slice_is_named() -> None:
    y = outputs(100)
    worse = y.copy()
    worse[:5] = np.roll(worse[:5], 1, axis=1)
    slices = np.array(["dark"] * 10 + ["light"] * 90)
    result = top1(y, worse, y.argmax(1), slices)
    assert result.worst_slice == ("dark", 0.5)


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        output_error(np.zeros((2, 3)), np.zeros((2, 4)), activation=None)


@given(st.floats(-1e6, 1e6, allow_nan=False, width=32), st.integers(1, 5))
def test_constant_outputs_never_divide_by_zero(value: float, n: int) -> None:
    y = np.full((n, 3), value, np.float32)
    found = output_error(y, y, activation="softmax")
    assert (found.max_abs, found.max_relative, found.snr_db) == (0.0, 0.0, 200.0)


def probes(y: Any, spread: float, scale: float | None) -> Any:
    quantization = None if scale is None else Quantization(scale=scale, zero_point=-128)
    return make_probes(
        inputs={"x": np.arange(len(y), dtype=np.float32)[:, None]},
        outputs={"y": y},
        spreads={"y": np.full(len(y), spread)},
        ports=(Tensor(name="y", dtype="float32", shape=(-1, 10), quantization=quantization),),
        precision="int8",
        classifier="y",
    )


def test_probe_tolerance_is_the_measured_spread_and_at_least_one_step() -> None:
    y = outputs()
    assert probes(y, 0.03, 1 / 256).atol == pytest.approx(0.0302, abs=2e-4)
    assert probes(y, 0.0, 1 / 256).atol >= 1 / 256


def test_probes_are_clear_cases_of_many_classes() -> None:
    found = probes(outputs(), 0.03, 1 / 256)
    values = np.sort(found.arrays["out:y"], axis=1)
    assert found.n == 16
    assert (values[:, -1] - values[:, -2] > 2 * found.atol).all()
    assert len(np.unique(found.arrays["out:y"].argmax(1))) == 10
    assert found.argmax_agreement == 1.0


def test_a_model_without_clear_cases_asks_for_no_agreement() -> None:
    found = probes(np.full((20, 10), 0.1, np.float32), 0.0, None)
    assert (found.n, found.argmax_agreement) == (16, None)


def test_reference_counts_every_sample_once() -> None:
    y = outputs()
    spec = OutputSpec(name="y", task="classification", activation="softmax", shape=(-1, 10))
    found = reference({"x": RANDOM.random((400, 6)).astype(np.float32)}, {"y": y}, (spec,), 10)
    assert sum(found.outputs["y"].counts) == sum(found.confidence["y"].counts) == 400
    assert len(found.confidence["y"].counts) == 10
    assert sum(found.inputs["x"].counts) == 2400
    assert len(found.inputs["x"].edges) + 1 == len(found.inputs["x"].counts)


def test_confidence_of_logits_is_their_softmax() -> None:
    spec = OutputSpec(name="y", task="classification", activation="logits", shape=(-1, 2))
    found = reference({}, {"y": np.array([[0.0, 9.0], [0.0, 0.0]], np.float32)}, (spec,), 4)
    assert found.confidence["y"].counts == (0, 0, 1, 1)


@pytest.mark.parametrize(("activation", "half"), [("sigmoid", 0.5), ("none", 0.5), ("logits", 0.0)])
def test_a_single_unit_that_flips_its_answer_is_seen(activation: str, half: float) -> None:
    source = (half + RANDOM.uniform(-0.4, 0.4, (400, 1))).astype(np.float32)
    labels = (source[:, 0] > half).astype(np.int64)
    flipped = (2 * half - source).astype(np.float32)
    assert top1(source, source, labels, activation=activation).source == 1.0
    assert top1(source, flipped, labels, activation=activation).variant == 0.0
    assert output_error(source, flipped, activation=activation).argmax == 0.0


def test_a_single_unit_has_two_classes_in_the_reference_as_on_the_device() -> None:
    values = np.asarray([[0.9], [0.8], [0.1]], np.float32)
    spec = OutputSpec(name="y", shape=(-1, 1), task="classification", activation="sigmoid")
    found = reference({}, {"y": values}, (spec,), 4)
    assert found.outputs["y"].counts == (1, 2)
    assert found.confidence["y"].counts == (0, 0, 0, 3)


@pytest.mark.parametrize(
    ("precision", "flipped", "verdict"),
    [
        ("fp16", 2, "pass"),
        ("fp16", 20, "breach"),
        ("int8", 2, "pass"),
        ("fp32", 0, "pass"),
        ("fp32", 2, "breach"),
    ],
)
def test_a_chosen_class_is_the_same_or_not_however_far_its_number_is(
    precision: str, flipped: int, verdict: str
) -> None:
    """Two trees of a forest that vote against each other: one rounding decides between class 0 and 9."""
    source = np.arange(400, dtype=np.int64) % 10
    variant = source.copy()
    variant[np.flatnonzero(source == 0)[:flipped]] = 9
    errors = {"label": output_error(source, variant, activation=None)}
    found = judge(precision=precision, errors=errors, figures=(), origin="validation", n=400)
    assert found.verdict == verdict
    assert found.metrics["outputs"]["label"]["equal"] == pytest.approx(1 - flipped / 400)


def test_whole_numbers_that_are_amounts_are_judged_by_their_noise() -> None:
    source = np.random.default_rng(0).integers(0, 255, (50, 8, 8)).astype(np.uint8)
    errors = {"y": output_error(source, source ^ np.uint8(1), activation=None)}
    assert judge(precision="int8", errors=errors, figures=(), origin="validation", n=50).verdict == "pass"


def test_a_label_that_flips_between_kernels_sets_no_tolerance_and_is_no_probe() -> None:
    y = outputs()
    labels = y.argmax(1).astype(np.int64)
    spread = np.zeros(len(y))
    spread[:3] = 9.0
    ports = (
        Tensor(name="y", dtype="float32", shape=(-1, 10)),
        Tensor(name="label", dtype="int64", shape=(-1,)),
    )
    found = make_probes(
        inputs={"x": np.arange(len(y), dtype=np.float32)[:, None]},
        outputs={"y": y, "label": labels},
        spreads={"y": np.full(len(y), 1e-6), "label": spread},
        ports=ports,
        precision="fp16",
        classifier="y",
    )
    assert found.atol < 1
    assert found.arrays["in:x"].min() >= 3
