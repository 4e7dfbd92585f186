"""What is known of one variant that was tried, where each figure comes from, and which bounds it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgekit_converters.budget.terms import ACCURACY, COSTS, ERRORS, SNR, Budget, Term, shown

TARGET, HOST, BUILT = "target", "host", "built"
"""Where a figure comes from: an enrolled device of that profile, this computer, the artifact itself."""


class Kept(StrEnum):
    """Whether a bound is kept; what nobody measured is unknown."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value in the budget's units and where it comes from."""

    value: float
    source: str = BUILT


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One variant.

    `figures` by metric (latency in microseconds, sizes in bytes, the task's metrics under their names),
    `decisive` the metric that decided its verdict, `refusal` why it cannot be had (empty: it can), `rank` its
    place in the profile's own order of preference, `measured_on` the device of its latency, if any.
    """

    id: str
    profile: str
    target: str
    precision: str
    rank: int
    verdict: str = ""
    decisive: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    refusal: str = ""
    measured_on: str = ""

    def figure(self, metric: str) -> Figure | None:
        """What is known of a metric; ``accuracy`` is the decisive one."""
        return self.figures.get(self.decisive if metric == ACCURACY and self.decisive else metric)

    @property
    def quality(self) -> float | None:
        """One number of which more is better: the decisive metric, else the signal-to-noise ratio."""
        name = self.decisive or SNR
        found = self.figures.get(name)
        return None if found is None else -found.value if name in ERRORS else found.value

    def cost(self, metric: str) -> float | None:
        """A figure of which less is better."""
        found = self.figures.get(metric)
        return None if found is None else found.value


def keeps(candidate: Candidate, term: Term) -> Kept:
    """Whether a candidate keeps a bound."""
    found = candidate.figure(term.metric)
    if found is None:
        return Kept.UNKNOWN
    return Kept.MET if term.met(found.value) else Kept.MISSED


def fits(candidate: Candidate, budget: Budget) -> bool:
    """Whether it can be had and misses no bound."""
    return not candidate.refusal and all(keeps(candidate, term) is not Kept.MISSED for term in budget.terms)


def proven(candidate: Candidate, budget: Budget) -> bool:
    """Whether every bound is known to be kept."""
    return not candidate.refusal and all(keeps(candidate, term) is Kept.MET for term in budget.terms)


def document(candidate: Candidate, budget: Budget) -> dict[str, Any]:
    """The candidate as JSON."""
    return {
        "id": candidate.id,
        "profile": candidate.profile,
        "target": candidate.target,
        "precision": candidate.precision,
        "verdict": candidate.verdict or None,
        "refusal": candidate.refusal or None,
        "measured_on": candidate.measured_on or None,
        "decisive": candidate.decisive or (SNR if SNR in candidate.figures else None),
        "figures": {
            name: {
                "value": item.value,
                "from": item.source,
                "text": shown(name, item.value),
            }
            for name, item in sorted(candidate.figures.items())
        },
        "bounds": {term.text: keeps(candidate, term).value for term in budget.terms},
    }


def costs(candidate: Candidate) -> dict[str, float]:
    """The costs that are known."""
    return {name: candidate.figures[name].value for name in COSTS if name in candidate.figures}


__all__ = [
    "BUILT",
    "HOST",
    "TARGET",
    "Candidate",
    "Figure",
    "Kept",
    "costs",
    "document",
    "fits",
    "keeps",
    "proven",
]
