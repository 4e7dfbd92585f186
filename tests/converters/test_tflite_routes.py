"""Two routes to a TFLite file: which sources have which, and what becomes of one that is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit.package import Requirements
from edgekit_converters.engine import variants
from edgekit_converters.engine.variants import Checked, check_variant
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.routes import Route
from edgekit_converters.targets.tflite import TfliteTarget
from edgekit_converters.values import Built
from edgekit_converters.verify.verdict import Verdict

PREPARED: Any = SimpleNamespace(source=SimpleNamespace(kind="keras"), hub=SimpleNamespace(problem=None))
WANTED: Any = SimpleNamespace(target="tflite", precision="fp32", id="x-tflite-fp32")


@pytest.mark.parametrize(
    ("kind", "precision", "names"),
    [
        ("onnx", "fp32", ["hub"]),
        ("keras", "int8", ["hub", "tensorflow"]),
        ("savedmodel", "fp16", ["hub", "tensorflow"]),
        ("keras", "int16x8", ["hub"]),
    ],
)
def test_our_own_route_comes_first_and_needs_no_tensorflow(
    kind: str, precision: str, names: list[str]
) -> None:
    routes = TfliteTarget().routes(kind, precision)
    assert [item.name for item in routes] == names
    assert routes[0].worker == "plain"


def checked(verdict: str) -> Checked:
    """A variant with that verdict."""
    built = Built(
        main="model.tflite", inputs=(), outputs=(), requires=Requirements(runtime="litert"), route="r"
    )
    return Checked(
        key="k",
        folder=Path("f"),
        built=built,
        executed=None,
        verdict=Verdict(verdict=verdict, why=verdict),
        probes=None,
        figures=(),
        evidence={},
        errors={},
    )


def run(monkeypatch: pytest.MonkeyPatch, outcomes: Mapping[str, Checked | Refusal]) -> Checked:
    """Try the routes with these outcomes."""

    def one(context: Any, prepared: Any, wanted: Any, ranges: Any, route: Route) -> Checked:
        outcome = outcomes[route.name]
        if isinstance(outcome, Refusal):
            raise outcome
        return replace(outcome, built=replace(outcome.built, route=route.name))

    monkeypatch.setattr(variants, "_check_route", one)
    context: Any = None
    return check_variant(context, PREPARED, WANTED, None)


def test_a_refused_route_is_reported_beside_the_one_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Refusal("no kernel", code="unsupported_op")
    found = run(monkeypatch, {"hub": refusal, "tensorflow": checked("pass")})
    assert found.built.route == "tensorflow"
    assert [item["code"] for item in found.built.facts["refused_routes"]] == ["unsupported_op"]


def test_a_route_that_passes_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, {"hub": checked("pass")})
    assert found.built.route == "hub"
    assert "refused_routes" not in found.built.facts


def test_a_breach_is_tried_by_the_other_route_before_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, {"hub": checked("breach"), "tensorflow": checked("pass")})
    assert found.built.route == "tensorflow"
    found = run(monkeypatch, {"hub": checked("breach"), "tensorflow": checked("breach")})
    assert (found.built.route, found.verdict.verdict) == ("hub", "breach")


def test_when_every_route_is_refused_the_first_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {"hub": Refusal("first", code="dynamic_shape"), "tensorflow": Refusal("second", code="other")}
    with pytest.raises(Refusal, match="first"):
        run(monkeypatch, outcomes)
