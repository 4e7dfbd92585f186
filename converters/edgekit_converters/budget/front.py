"""What no other variant beats, which one is picked for a profile, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit_converters.budget.candidate import (
    HOST,
    TARGET,
    Candidate,
    Kept,
    fits,
    keeps,
    proven,
)
from edgekit_converters.budget.terms import Budget, Term, shown

_ALIKE = 0.03
"""Latencies that differ by less are alike: two measurements of one file differ as much."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The variant picked for a profile, or None; `why` in sentences, `would_fit` what would fit instead."""

    profile: str
    picked: Candidate | None
    why: str
    would_fit: str = ""


def pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other of the same profile beats in quality, latency and size, smallest first.

    What is not known of both is not compared.
    """
    able = [item for item in candidates if not item.refusal]
    best = [item for item in able if not any(_beats(other, item) for other in able if other is not item)]
    return tuple(sorted(best, key=lambda item: (item.cost("size") or 0.0, item.rank)))


def _beats(one: Candidate, other: Candidate) -> bool:
    if one.profile != other.profile:
        return False
    pairs = [(one.quality, other.quality)]
    for metric in ("latency", "size"):
        mine, theirs = one.cost(metric), other.cost(metric)
        pairs.append((None if mine is None else -mine, None if theirs is None else -theirs))
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return bool(known) and all(a >= b for a, b in known) and any(a > b for a, b in known)


def choose(profile: str, candidates: Sequence[Candidate], budget: Budget) -> Choice:
    """Pick one of a profile's candidates.

    Of those that miss no bound, the proven ones go first. Then, unless the budget says what to prefer: where
    it bounds no quality, the best is taken. Where it does, what keeps it is good enough: the smallest is
    taken if it bounds a size and no latency; else the fastest, if every latency was measured on the target;
    else the profile's own order decides, because a latency of this computer says little about a board.
    """
    own = [item for item in candidates if item.profile == profile]
    able = [item for item in own if fits(item, budget)]
    if not able:
        return Choice(profile=profile, picked=None, why=_none(own, budget), would_fit=_near(own, budget))
    sure = [item for item in able if proven(item, budget)]
    among = sure or able
    objective, reason = _objective(among, budget)
    picked = _best(among, objective)
    return Choice(profile=profile, picked=picked, why=_explained(picked, among, own, budget, reason))


def _objective(among: Sequence[Candidate], budget: Budget) -> tuple[str, str]:
    if budget.objective:
        return budget.objective, f"the {budget.objective} was asked for"
    if not budget.bounds_quality:
        return "best", "the budget leaves the quality open, so the best is taken"
    if budget.bounds("size", "flash") and not budget.bounds("latency", "latency_p90"):
        return (
            "smallest",
            "its quality is good enough, and it is the smallest (the budget bounds size)",
        )
    latencies = [item.figure("latency") for item in among]
    if all(found is not None and found.source == TARGET for found in latencies):
        return "fastest", "its quality is good enough, and it is the fastest measured on the target"
    return "preferred", (
        "its quality is good enough, and the profile prefers it "
        "(not every latency was measured on the target)"
    )


def _best(among: Sequence[Candidate], objective: str) -> Candidate:
    quality = {item.id: item.quality for item in among}

    def size(item: Candidate) -> float:
        return item.cost("size") or 0.0

    def grade(item: Candidate) -> float:
        return -(quality[item.id] if quality[item.id] is not None else float("-inf"))  # type: ignore[operator]  # checked in the same line

    if objective == "preferred":
        return min(among, key=lambda item: (item.rank, size(item)))
    if objective == "smallest":
        return min(among, key=lambda item: (size(item), item.rank))
    if objective == "best":
        return min(among, key=lambda item: (round(grade(item), 6), item.rank))
    known = [item for item in among if item.cost("latency") is not None] or list(among)
    least = min(item.cost("latency") or 0.0 for item in known)
    alike = [item for item in known if (item.cost("latency") or 0.0) <= least * (1 + _ALIKE)]
    return min(alike, key=lambda item: (size(item), item.rank))


def _explained(
    picked: Candidate, among: Sequence[Candidate], own: Sequence[Candidate], budget: Budget, reason: str
) -> str:
    alone = "nothing else keeps the budget as surely" if len(own) > 1 else "it keeps the budget"
    why = reason if len(among) > 1 else alone
    parts = [f"{picked.id} is picked: {why}", "; ".join(_known(picked, term) for term in budget.terms)]
    if any(_on_host(picked, term) for term in budget.terms):
        parts.append("That latency is this computer's, not the board's: edgekit bench measures there")
    missed = [item for item in own if item is not picked and not fits(item, budget)]
    if missed:
        out = "; ".join(f"{item.target} {item.precision} ({_reason(item, budget)})" for item in missed)
        parts.append(f"Out: {out}")
    return ". ".join(parts)


def _on_host(item: Candidate, term: Term) -> bool:
    found = item.figure(term.metric)
    return term.metric.startswith("latency") and found is not None and found.source == HOST


def _known(item: Candidate, term: Term) -> str:
    found = item.figure(term.metric)
    if found is None:
        return f"{term.metric} is not measured, so {term.text} is not proven"
    where = {TARGET: f" on {item.measured_on}", HOST: " on this host"}.get(found.source, "")
    return f"{term.metric} {shown(term.metric, found.value)}{where} ({term.text})"


def _reason(item: Candidate, budget: Budget) -> str:
    if item.refusal:
        return brief(item.refusal)
    missed = [term for term in budget.terms if keeps(item, term) is Kept.MISSED]
    return ", ".join(_known(item, term) for term in missed)


def brief(reason: str) -> str:
    """The first clause of a reason; the whole stands with the candidate."""
    return reason.split(";")[0].split(", surely")[0]


def _none(own: Sequence[Candidate], budget: Budget) -> str:
    tried = "; ".join(f"{item.target} {item.precision}: {_reason(item, budget)}" for item in own)
    return f"nothing keeps {budget.text}: {tried or 'nothing could be tried'}"


def _near(own: Sequence[Candidate], budget: Budget) -> str:
    """The bounds that the nearest candidate would keep."""
    able = [item for item in own if not item.refusal]
    if not able:
        return "none of its variants can be built; the reasons are above"
    nearest = min(able, key=lambda item: (_missed(item, budget), item.rank))
    wider = [term for term in budget.terms if keeps(nearest, term) is Kept.MISSED]
    bounds = " and ".join(f"{term.metric} {shown(term.metric, _value(nearest, term))}" for term in wider)
    return f"{nearest.target} {nearest.precision} would fit a budget of {bounds}"


def _missed(item: Candidate, budget: Budget) -> float:
    """How many bounds are missed, and by how much."""
    total = 0.0
    for term in budget.terms:
        if keeps(item, term) is Kept.MISSED:
            value = _value(item, term)
            total += 1 + abs(value - term.limit) / (abs(value) + abs(term.limit) + 1e-12)
    return total


def _value(item: Candidate, term: Term) -> float:
    found = item.figure(term.metric)
    assert found is not None
    return found.value


def unknown_metrics(candidates: Sequence[Candidate], budget: Budget) -> tuple[str, ...]:
    """Metrics of the budget that no candidate at all has: a misspelt name, or no labels to judge by."""
    able = [item for item in candidates if not item.refusal]
    metrics = dict.fromkeys(term.metric for term in budget.terms)
    return tuple(name for name in metrics if able and all(item.figure(name) is None for item in able))


__all__ = ["Choice", "brief", "choose", "pareto", "unknown_metrics"]
