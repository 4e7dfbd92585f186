"""The engine's rescue: a breach is answered with a finer mix, and never hidden."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import EdgekitError
from edgekit.package import Requirements
from edgekit.profile import load_profile
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.plan import Wanted
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request, Result
from edgekit_converters.engine.rescue import OPTION, STEPS, compared, rescued
from edgekit_converters.engine.variants import Checked
from edgekit_converters.npz import save_arrays
from edgekit_converters.values import Built
from edgekit_converters.verify.verdict import Verdict
from tests.converters.graphs import GraphBuilder, save


def steep(path: Path, width: int) -> Path:
    """A network of which one convolution reads an exponential: few large values, many small that count."""
    g = GraphBuilder((3, 8, 8), seed=1)
    y = g.op("Relu", g.op("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1]))
    y = g.op("Conv", y, g.weight(8, 8, 3, 3), g.weight(8), pads=[1, 1, 1, 1])
    y = g.op("Exp", g.op("Mul", y, g.constant(np.float32(0.6))))
    y = g.op("Abs", g.op("Conv", y, g.weight(8, 8, 1, 1), g.weight(8)))
    y = g.op("Log", g.op("Add", y, g.constant(np.float32(0.05))))
    channels = 8
    for _ in range(3 if width else 0):
        weight = g.weight(width, channels, 3, 3, scale=0.03)
        y, channels = g.op("Relu", g.op("Conv", y, weight, g.weight(width), pads=[1, 1, 1, 1])), width
    return save(g.model(g.op("Conv", y, g.weight(8, channels, 3, 3), g.weight(8)), [8, 6, 6]), path)


def rescue_of(width: int, folder: Path, workers: Pool) -> Result:
    random = np.random.default_rng(0)
    for name, n in (("calibration", 50), ("validation", 60)):
        save_arrays(folder / f"{name}.npz", {"x": random.standard_normal((n, 3, 8, 8)).astype(np.float32)})
    request = Request(
        source=steep(folder / "m.onnx", width),
        out=folder / "out",
        profiles=("x86-64-onnx", "x86-64-litert"),
        precisions=("int8",),
        calibration=folder / "calibration.npz",
        validation=folder / "validation.npz",
        cache=folder / "cache",
    )
    return convert(request, pool=workers)


@pytest.mark.slow
def test_one_layer_in_float_saves_both_runtimes_and_the_package_says_which(
    workers: Pool, tmp_path: Path
) -> None:
    result = rescue_of(96, tmp_path, workers)
    assert [item.verification.verdict for item in result.manifest.variants] == ["pass", "pass"]
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    for facts in report["variants"].values():
        rescue = facts["facts"]["quantization"]["rescue"]
        assert rescue["layers"] == ["t5"]
        assert rescue["snr_before"] < 20 <= rescue["snr_after"]
        assert rescue["more_bytes"] == 3 * 64
    assert any("1 layers stay in float32, 192 bytes more" in note for note in report["notes"])


def test_a_network_that_a_rescue_makes_larger_than_float_is_refused(workers: Pool, tmp_path: Path) -> None:
    result = rescue_of(0, tmp_path, workers)
    refused = {item.id: item for item in result.manifest.refused}
    assert refused["x86-64-onnx-onnx-int8"].reason_code == "rescue_without_gain"
    assert "fp32" in refused["x86-64-onnx-onnx-int8"].detail


def wanted(precision: str = "int8") -> Wanted:
    profile = load_profile("x86-64-onnx")
    return Wanted(profile=profile, target="onnx", precision=precision, options={"other": 1})


def checked(verdict: str, *, quantized: bool = True, why: str = "") -> Checked:
    needs = Requirements(runtime="onnxruntime", min_runtime="1.19.0")
    facts: dict[str, Any] = {"quantization": {"snr_db": 21.0}} if quantized else {}
    built = Built(main="m", inputs=(), outputs=(), requires=needs, route="r", facts=facts)
    return Checked(
        key="k",
        folder=Path("f"),
        built=built,
        executed=None,
        verdict=Verdict(verdict=verdict, why=why),
        probes=None,
        figures=(),
        evidence={},
        errors={},
    )


def passing_from(goal: float) -> tuple[list[float], Callable[[Mapping[str, Any]], Checked]]:
    seen: list[float] = []

    def attempt(options: Mapping[str, Any]) -> Checked:
        assert options["other"] == 1
        seen.append(float(options.get(OPTION, 0.0)))
        return checked("pass" if seen[-1] >= goal else "breach", why=f"at {seen[-1]}")

    return seen, attempt


def test_a_variant_that_passes_is_built_once() -> None:
    seen, attempt = passing_from(0.0)
    assert rescued(attempt, wanted()).verdict.verdict == "pass"
    assert seen == [0.0]


def test_a_breach_raises_the_goal_until_the_verdict_passes() -> None:
    seen, attempt = passing_from(30.0)
    assert rescued(attempt, wanted()).verdict.verdict == "pass"
    assert seen == [0.0, 21.0 + STEPS[0], 21.0 + STEPS[1]]


def test_what_nothing_helps_stays_the_plain_breach() -> None:
    seen, attempt = passing_from(1000.0)
    found = rescued(attempt, wanted())
    assert (found.verdict.verdict, found.verdict.why) == ("breach", "at 0.0")
    assert len(seen) == 1 + len(STEPS)


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_precision_without_calibration_is_not_tried_again(precision: str) -> None:
    seen, attempt = passing_from(1000.0)
    assert rescued(attempt, wanted(precision)).verdict.verdict == "breach"
    assert len(seen) == 1


def test_a_route_that_measured_nothing_is_not_tried_again() -> None:
    assert rescued(lambda _: checked("breach", quantized=False), wanted()).verdict.verdict == "breach"


def test_a_rescue_that_cannot_be_built_leaves_the_breach() -> None:
    def attempt(options: Mapping[str, Any]) -> Checked:
        if OPTION in options:
            raise EdgekitError("too little is left in integers", code="nothing_quantized")
        return checked("breach")

    assert rescued(attempt, wanted()).verdict.verdict == "breach"


def test_a_full_disk_is_no_failed_rescue() -> None:
    def attempt(options: Mapping[str, Any]) -> Checked:
        if OPTION in options:
            raise EdgekitError("full", code="disk_full")
        return checked("breach")

    with pytest.raises(EdgekitError, match="full"):
        rescued(attempt, wanted())


RESCUE = {"layers": ["t5"], "to": "float32"}


@pytest.mark.parametrize(
    ("sizes", "times", "ships"),
    [
        ((60, 100), (20.0, 40.0), True),
        ((60, 100), (40.5, 40.0), True),  # the same, as well as it can be measured
        ((60, 100), (None, None), True),  # nothing here runs it: its size decides
        ((60, 100), (50.0, 40.0), False),
        ((100, 100), (20.0, 40.0), False),
        ((110, 100), (None, None), False),
    ],
)
def test_a_rescue_that_costs_more_than_float_is_refused(
    sizes: tuple[int, int], times: tuple[float | None, float | None], ships: bool
) -> None:
    found = compared(wanted(), RESCUE, (1000 * sizes[0], 1000 * sizes[1]), times)
    assert (found is None) == ships
    if found is not None:
        assert found.reason_code == "rescue_without_gain"
        assert "1 layers in float32" in found.detail
        assert f"{sizes[0]:.1f} kB" in found.detail
