"""The rollout plan: which devices when, how long to soak, which gates, what happens on FAIL.

A plan is a TOML file of ``[[ring]]`` tables; without one there are a canary ring of 10 %, a ring of
half and the rest. `read_plan` is strict: every error names file, key and what was allowed. What
stands in the database is `Plan.to_dict`, read back by `plan_from_dict`.

Percentages are of the fleet, cumulative: a ring of 50 % after one of 10 % brings the devices
between. The timers are the service's own, one for every step a device can stand in, `preparing`
included; `whole` bounds all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgekit.errors import PlanError
from edgekit.tomlfile import Table, read_toml
from edgekit_fleet.rollout.gates.base import GATE_TYPES, GateSpec

TIMED_STEPS = ("notified", "accepted", "downloading", "verifying", "preparing", "probing", "trial")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\Z")
_TERM = re.compile(r"([a-z_]+(?:\.[A-Za-z0-9_.-]+)?)(!?=)(\S+)\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
QUERY_KEYS = ("device", "hardware", "machine", "model", "os", "agent", "runtime", "label.NAME")


class OnInconclusive(StrEnum):
    """What a ring does whose gates prove neither good nor bad."""

    PAUSE = "pause"
    PROCEED = "proceed_after_soak"


class OnFail(StrEnum):
    """What a failed ring does."""

    PAUSE = "pause"
    ABORT = "abort"
    ROLLBACK_RING = "rollback_ring"
    ROLLBACK_ALL = "rollback_all"


@dataclass(frozen=True, kw_only=True)
class Term:
    """One condition of a query: `key` matches the pattern (``*`` and ``?``) or, `negated`, does not."""

    key: str
    pattern: str
    negated: bool = False


@dataclass(frozen=True, kw_only=True)
class Select:
    """Which devices a ring takes; what is given must hold together. All empty: every device."""

    percent: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    query: str = ""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The query's conditions."""
        return tuple(_term(word) for word in self.query.split())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, only what is given."""
        body = {
            "percent": self.percent,
            "labels": dict(self.labels),
            "devices": list(self.devices),
            "query": self.query,
        }
        return {key: value for key, value in body.items() if value not in (None, {}, [], "")}

    @property
    def words(self) -> str:
        """One phrase for people."""
        parts = [f"{self.percent:g} %"] if self.percent is not None else []
        parts += [f"{key}={value}" for key, value in self.labels.items()]
        parts += [f"{len(self.devices)} named"] if self.devices else []
        return ", ".join([*parts, *([self.query] if self.query else [])]) or "everything"


@dataclass(frozen=True, kw_only=True)
class RatePlan:
    """At most `per_minute` devices are notified a minute; 0: no limit."""

    per_minute: int = 0


@dataclass(frozen=True, kw_only=True)
class Disruption:
    """At most `max_unavailable` devices of a ring, per value of label `group_by`, change at once."""

    max_unavailable: int = 0
    group_by: str = ""


@dataclass(frozen=True, kw_only=True)
class RingPlan:
    """One ring. `soak` in seconds counts from the moment all its devices have finished."""

    name: str
    select: Select = Select()
    soak: float = 60.0
    min_n: int = 1
    on_inconclusive: OnInconclusive = OnInconclusive.PROCEED
    on_fail: OnFail = OnFail.ROLLBACK_ALL
    approval: bool = False
    early_stop: bool = True
    rate_limit: RatePlan = RatePlan()
    disruption: Disruption = Disruption()
    gates: tuple[GateSpec, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the plan file's own words."""
        return {
            "name": self.name,
            "select": self.select.to_dict(),
            "soak": self.soak,
            "min_n": self.min_n,
            "on_inconclusive": self.on_inconclusive.value,
            "on_fail": self.on_fail.value,
            "approval": self.approval,
            "early_stop": self.early_stop,
            "rate_limit": {"per_minute": self.rate_limit.per_minute},
            "disruption": {
                "max_unavailable": self.disruption.max_unavailable,
                "group_by": self.disruption.group_by,
            },
            "gates": [gate.to_dict() for gate in self.gates],
        }


@dataclass(frozen=True, kw_only=True)
class Timers:
    """Seconds a device may stand in a step before the service counts it as timed out."""

    steps: Mapping[str, float] = field(
        default_factory=lambda: {
            "notified": 120.0,
            "accepted": 120.0,
            "downloading": 1800.0,
            "verifying": 120.0,
            "preparing": 900.0,
            "probing": 300.0,
            "trial": 300.0,
        }
    )
    whole: float = 3600.0

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return {**self.steps, "whole": self.whole}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole rollout. `retries` are further attempts after a retryable failure, `trial_seconds` how
    long a device watches the new model before it commits."""

    rings: tuple[RingPlan, ...]
    timers: Timers = Timers()
    retries: int = 1
    retry_delay: float = 10.0
    trial_seconds: float = 5.0
    sticky_salt: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the plan file's own words."""
        return {
            "ring": [ring.to_dict() for ring in self.rings],
            "timers": self.timers.to_dict(),
            "retries": self.retries,
            "retry_delay": self.retry_delay,
            "trial_seconds": self.trial_seconds,
            "sticky_salt": self.sticky_salt,
        }


def default_gates(*, truth_probes: bool) -> tuple[GateSpec, ...]:
    """The gates of a ring that names none; probes only where the slot has ground-truth probes."""
    specs = {"failures": 0.1, "latency": 1.5, "predictions": 0.25} | (
        {"probes": 0.05} if truth_probes else {}
    )
    return tuple(GateSpec(type=kind, name=kind, limit=specs[kind]) for kind in GATE_TYPES if kind in specs)


def default_plan(*, truth_probes: bool, soak: float = 60.0) -> Plan:
    """Canary 10 %, half, rest; everything is rolled back on FAIL, missing evidence does not stop."""
    gates = default_gates(truth_probes=truth_probes)
    rings = (("canary", 10.0), ("half", 50.0), ("rest", 100.0))
    return Plan(
        rings=tuple(
            RingPlan(name=name, select=Select(percent=percent), soak=soak, gates=gates)
            for name, percent in rings
        )
    )


def read_plan(path: Path, *, truth_probes: bool) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: unreadable, a key unknown or of the wrong type, or a plan that cannot work.
    """
    return _plan(read_toml(path, PlanError), truth_probes)


def plan_from_dict(value: Mapping[str, Any], *, where: str = "plan", truth_probes: bool = True) -> Plan:
    """Read a plan that is parsed already (from the database or an HTTP body); equally strict."""
    return _plan(Table(value, where=where, error=PlanError), truth_probes)


def _plan(table: Table, truth_probes: bool) -> Plan:
    plan = Plan(
        rings=table.tables("ring", lambda t: _ring(t, truth_probes)),
        timers=_timers(table.table("timers")),
        retries=table.integer("retries", 1),
        retry_delay=_duration(table, "retry_delay", 10.0),
        trial_seconds=_duration(table, "trial_seconds", 5.0),
        sticky_salt=table.text("sticky_salt", ""),
    )
    table.finish()
    if not plan.rings:
        raise table.fail("ring", "at least one [[ring]] was expected")
    names = [ring.name for ring in plan.rings]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise table.fail("ring", f"two rings are called {repeated[0]!r}")
    if "late" in names:
        raise table.fail("ring", "'late' is the name of the ring of late arrivals; choose another")
    _check_growth(table, plan)
    _check_trial(table, plan)
    return plan


def _check_growth(table: Table, plan: Plan) -> None:
    top = 0.0
    for index, ring in enumerate(plan.rings):
        only_percent = ring.select.percent is not None and len(ring.select.to_dict()) == 1
        if only_percent and ring.select.percent is not None:
            if ring.select.percent <= top:
                raise table.fail(
                    f"ring[{index}].select.percent",
                    f"{ring.select.percent:g} brings no device: percentages are cumulative, "
                    f"{top:g} stands before it",
                )
            top = ring.select.percent


def _check_trial(table: Table, plan: Plan) -> None:
    if plan.trial_seconds >= plan.timers.steps["trial"]:
        raise table.fail(
            "timers.trial",
            f"{plan.timers.steps['trial']:g} s would end before the trial of {plan.trial_seconds:g} s does",
        )


def _ring(table: Table, truth_probes: bool) -> RingPlan:
    name = table.text("name")
    if not _NAME.match(name):
        raise table.fail("name", f"{name!r}: letters, digits and . _ - were expected (at most 64)")
    gates = table.tables("gates", _gate)
    if not truth_probes and any(gate.type == "probes" for gate in gates):
        raise table.fail(
            "gates", "a probes gate needs ground-truth probes", "edgekit slot probes add SLOT FILE.npz"
        )
    labels = [gate.label for gate in gates]
    if len(set(labels)) != len(labels):
        raise table.fail("gates", "two gates have the same name; give one a `name`")
    return RingPlan(
        name=name,
        select=_select(table.table("select")),
        soak=_duration(table, "soak", 60.0),
        min_n=table.integer("min_n", 1, low=1),
        on_inconclusive=OnInconclusive(
            table.text("on_inconclusive", "proceed_after_soak", allowed=[o.value for o in OnInconclusive])
        ),
        on_fail=OnFail(table.text("on_fail", "rollback_all", allowed=[o.value for o in OnFail])),
        approval=table.flag("approval", False),
        early_stop=table.flag("early_stop", True),
        rate_limit=_rate(table.table("rate_limit")),
        disruption=_disruption(table.table("disruption")),
        gates=gates if table.has("gates") else default_gates(truth_probes=truth_probes),
    )


def _select(table: Table) -> Select:
    percent = table.maybe_number("percent")
    if percent is not None and not 0 < percent <= 100:
        raise table.fail("percent", f"more than 0 and at most 100 was expected, not {percent:g}")
    labels = table.mapping("labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise table.fail("labels", "strings were expected")
    query = table.text("query", "")
    for word in query.split():
        match = _TERM.match(word)
        key = match.group(1) if match else ""
        if not match or not (key in QUERY_KEYS or key.startswith("label.")):
            keys = ", ".join(QUERY_KEYS)
            raise table.fail("query", f"{word!r}: KEY=PATTERN or KEY!=PATTERN was expected; keys: {keys}")
    select = Select(percent=percent, labels=labels, devices=table.texts("devices"), query=query)
    table.finish()
    return select


def _term(word: str) -> Term:
    match = _TERM.match(word)
    if not match:
        raise PlanError(f"{word!r}: KEY=PATTERN was expected", where="select.query")
    return Term(key=match.group(1), pattern=match.group(3), negated=match.group(2) == "!=")


def _rate(table: Table) -> RatePlan:
    rate = RatePlan(per_minute=table.integer("per_minute", 0))
    table.finish()
    return rate


def _disruption(table: Table) -> Disruption:
    budget = Disruption(
        max_unavailable=table.integer("max_unavailable", 0), group_by=table.text("group_by", "")
    )
    table.finish()
    if budget.group_by and not budget.max_unavailable:
        raise table.fail("max_unavailable", "is required with group_by, at least 1")
    return budget


def _timers(table: Table) -> Timers:
    standard = Timers()
    steps = {step: _duration(table, step, standard.steps[step]) for step in TIMED_STEPS}
    whole = _duration(table, "whole", max(standard.whole, max(steps.values())))
    table.finish()
    for step, seconds in steps.items():
        if seconds <= 0:
            raise table.fail(step, "more than 0 seconds was expected")
        if seconds > whole:
            raise table.fail(step, f"{seconds:g} s is more than the whole timer's {whole:g} s")
    return Timers(steps=steps, whole=whole)


def _duration(table: Table, key: str, default: float) -> float:
    """Seconds from a number or a text such as ``10m``."""
    value = table.free(key)
    if value is None:
        return default
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return float(match.group(1)) * _UNITS[match.group(2)]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise table.fail(key, f"seconds, or a text such as '30s', '10m', '2h', was expected, not {value!r}")
    return float(value)


def _gate(table: Table) -> GateSpec:
    kind = table.text("type", allowed=GATE_TYPES)
    standard = {spec.type: spec.limit for spec in default_gates(truth_probes=True)}
    spec = GateSpec(
        type=kind,
        name=table.text("name", "") or kind,
        limit=table.number("limit", standard[kind]),
        confidence=table.number("confidence", 0.95),
        dry_run=table.flag("dry_run", False),
        options={key: value for key, read in _OPTIONS[kind].items() if (value := read(table)) is not None},
    )
    low, high = _LIMITS[kind]
    if not low <= spec.limit <= high:
        raise table.fail("limit", f"within [{low:g}, {high:g}] was expected for {kind}, not {spec.limit:g}")
    if not 0.5 < spec.confidence < 1:
        raise table.fail("confidence", f"between 0.5 and 1 was expected, not {spec.confidence:g}")
    return spec


# A latency ratio below 1.1 is finer than the histograms of telemetry resolve.
_LIMITS = {"failures": (0.0, 1.0), "latency": (1.1, 100.0), "probes": (0.0, 1.0), "predictions": (0.0, 10.0)}


def _share(table: Table, key: str) -> float | None:
    value = table.maybe_number(key)
    if value is not None and not 0 <= value <= 1:
        raise table.fail(key, f"a share within [0, 1] was expected, not {value:g}")
    return value


def _count(table: Table, key: str) -> int | None:
    return table.maybe_integer(key, low=1)


def _word(table: Table, key: str, *allowed: str) -> str | None:
    return table.text(key, allowed=allowed) if table.has(key) else None


_OPTIONS: dict[str, dict[str, Any]] = {
    "failures": {"error_share": lambda t: _share(t, "error_share")},
    "latency": {
        "stage": lambda t: _word(t, "stage", "preprocess", "infer", "postprocess", "total"),
        "quantile": lambda t: _share(t, "quantile"),
        "min_requests": lambda t: _count(t, "min_requests"),
        "slow_share": lambda t: _share(t, "slow_share"),
    },
    "probes": {
        "tolerate": lambda t: _share(t, "tolerate"),
        "min_accuracy": lambda t: _share(t, "min_accuracy"),
    },
    "predictions": {
        "metric": lambda t: _word(t, "metric", "psi", "jsd"),
        "min_devices": lambda t: _count(t, "min_devices"),
        "min_requests": lambda t: _count(t, "min_requests"),
        "of": lambda t: _word(t, "of", "predictions", "confidence", "inputs"),
        "output": lambda t: t.maybe_text("output"),
    },
}
