"""The budget's grammar.

::

    budget  = item *("," item)
    item    = metric op number [unit] | "fastest" | "smallest" | "best"
    op      = "<" | "<=" | ">" | ">="
    metric  = latency | latency_p90 | size | memory | arena | flash | snr | accuracy
            | a metric of a task (top1 …)

A cost (latency, size, memory, arena, flash) is bounded from above and has a unit; a quality (snr and every
metric of a task) is bounded from below, but for an error such as rmse, which is a cost without a unit.
``accuracy`` is whatever metric decides the verdict. One word without a comparison says what to prefer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from edgekit.contract import Serving
from edgekit.errors import UsageError
from edgekit.profile import Budgets
from edgekit.tomlfile import did_you_mean

OBJECTIVES = ("fastest", "smallest", "best")
_TIME = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
COSTS = {
    "latency": _TIME,
    "latency_p90": _TIME,
    "size": _BYTES,
    "memory": _BYTES,
    "arena": _BYTES,
    "flash": _BYTES,
}
ERRORS = ("rmse", "mae")
"""Metrics of tasks of which less is better."""
_SHARES = frozenset(("top1", "top5", "auc", "map", "map50", "miou", "pixel_accuracy", "recall1"))
"""Metrics of tasks that are never more than 1."""
SNR = "snr"
ACCURACY = "accuracy"
_ITEM = re.compile(r"\s*([A-Za-z][A-Za-z0-9_@.]*)\s*(<=|>=|<|>|==?)\s*([0-9.eE+-]+)\s*([^\s\d]*)\s*\Z")
_SHOWN_TIME = (("s", 1e6), ("ms", 1e3), ("µs", 1.0))
_SHOWN_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


@dataclass(frozen=True, kw_only=True)
class Term:
    """One bound: microseconds for times, bytes for sizes, plain numbers else (shares from 0 to 1)."""

    metric: str
    op: str
    limit: float

    @property
    def cost(self) -> bool:
        """Whether less is better."""
        return self.op.startswith("<")

    def met(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        return {
            "<": value < self.limit,
            "<=": value <= self.limit,
            ">": value > self.limit,
            ">=": value >= self.limit,
        }[self.op]

    @property
    def text(self) -> str:
        """As people write it."""
        return f"{self.metric}{self.op}{shown(self.metric, self.limit)}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All bounds, and what to prefer among what keeps them (empty: it follows from the bounds).

    `standing` are bounds of the contract or the profile, which nobody named; they are among the terms.
    """

    terms: tuple[Term, ...]
    objective: str = ""
    standing: tuple[Term, ...] = ()

    def bounds(self, *metrics: str) -> bool:
        """Whether any of these is bounded by name."""
        return any(term.metric in metrics for term in self.terms if term not in self.standing)

    @property
    def bounds_quality(self) -> bool:
        """Whether a quality is bounded: what keeps it is good enough."""
        return any(term.metric not in COSTS for term in self.terms)

    @property
    def text(self) -> str:
        """As people write it."""
        return ",".join([*(term.text for term in self.terms), *([self.objective] if self.objective else [])])


def shown(metric: str, value: float) -> str:
    """A figure of `metric` with its unit."""
    scale = COSTS.get(metric)
    if scale is None:
        return f"{value:.4g}" + (" dB" if metric == SNR else "")
    steps = _SHOWN_TIME if scale is _TIME else _SHOWN_BYTES
    unit, size = next(((u, s) for u, s in steps if value >= s), steps[-1])
    return f"{value / size:.4g} {unit}"


def with_standing(budget: Budget, promised: Serving, board: Budgets) -> Budget:
    """The budget with the bounds of the contract, else of the board's profile, that it does not name."""
    standing = (
        ("latency", "ms", promised.latency_budget_ms or board.latency_ms),
        ("memory", "MiB", promised.memory_budget_mb or board.memory_mb),
        ("size", "MiB", board.size_mb),
    )
    added = tuple(
        Term(metric=metric, op="<=", limit=value * COSTS[metric][unit])
        for metric, unit, value in standing
        if value is not None and not budget.bounds(metric)
    )
    return replace(budget, terms=(*budget.terms, *added), standing=added)


def read_budget(text: str) -> Budget:
    """Read what stands after ``--budget``.

    Raises:
        UsageError: not understood; says what was expected.
    """
    terms: list[Term] = []
    objective = ""
    for part in text.split(","):
        word = part.strip()
        if word in OBJECTIVES:
            if objective:
                raise _wrong(f"{objective} and {word}: one of them", "name what matters most")
            objective = word
        else:
            terms.append(_term(word))
    if not terms:
        raise _wrong(f"{text!r} bounds nothing", 'for example --budget "latency<30ms,size<2MB,top1>=0.97"')
    return Budget(terms=tuple(terms), objective=objective)


def _term(word: str) -> Term:
    match = _ITEM.match(word)
    if match is None:
        close = did_you_mean(word, OBJECTIVES) if word.isalpha() else "for example latency<30ms"
        raise _wrong(f"{word!r} is no bound (METRIC<NUMBER UNIT)", close or "for example latency<30ms")
    metric, op, number, unit = match.groups()
    if op.startswith("="):
        way = "<=" if metric in (*COSTS, *ERRORS) else ">="
        raise _wrong(
            f"{word!r}: a figure that is measured is never equal to a number",
            f"use {metric}{way}{number}{unit}",
        )
    try:
        value = float(number)
    except ValueError:
        raise _wrong(f"{word!r}: {number!r} is no number", "for example latency<30ms") from None
    if not 0 <= value < 1e15:
        raise _wrong(f"{word!r}: a number from 0 on was expected", "for example latency<30ms")
    return (
        _cost(word, metric, op, value, unit) if metric in COSTS else _quality(word, metric, op, value, unit)
    )


def _cost(word: str, metric: str, op: str, value: float, unit: str) -> Term:
    units = COSTS[metric]
    known = ", ".join(dict.fromkeys(units))
    if op.startswith(">"):
        raise _wrong(f"{word!r}: {metric} is a cost, bounded from above", f"use {metric}<{value:g}{unit}")
    if unit not in units:
        what = f"{unit!r} is no unit of {metric}" if unit else f"{metric} needs a unit"
        raise _wrong(f"{word!r}: {what}", f"one of {known}")
    return Term(metric=metric, op=op, limit=value * units[unit])


def _quality(word: str, metric: str, op: str, value: float, unit: str) -> Term:
    allowed = ("", "dB") if metric == SNR else ("", "%")
    if unit not in allowed:
        close = did_you_mean(metric, COSTS) or "a share, such as 0.97 or 97%"
        raise _wrong(f"{word!r}: {unit!r} is no unit of {metric}", close)
    error = metric in ERRORS
    if op.startswith("<") and not error:
        right = f"{metric}>={value:g}{unit}"
        if metric in (*_SHARES, SNR, ACCURACY):
            raise _wrong(f"{word!r}: {metric} is a quality, bounded from below", f"use {right}")
        close = did_you_mean(metric, COSTS)
        raise _wrong(f"{word!r}: {metric} is no cost", f"{close}; a quality is bounded from below, {right}")
    if metric in _SHARES and value > (100 if unit else 1):
        raise _wrong(f"{word!r}: {metric} is never more than 1", "a share, such as 0.97 or 97%")
    if op.startswith(">") and error:
        raise _wrong(f"{word!r}: {metric} is an error, bounded from above", f"use {metric}<{value:g}")
    return Term(metric=metric, op=op, limit=value / 100 if unit == "%" else value)


def _wrong(message: str, remedy: str) -> UsageError:
    return UsageError(message, where="--budget", remedy=remedy, code="bad_budget")


__all__ = [
    "ACCURACY",
    "COSTS",
    "ERRORS",
    "OBJECTIVES",
    "SNR",
    "Budget",
    "Term",
    "read_budget",
    "shown",
    "with_standing",
]
