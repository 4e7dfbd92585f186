"""A model too large for a board is refused before work starts; the other boards go on.

Twice: by the bytes of the source, before it is read at all, which catches what is far too large; and by the
weights of the canonical graph, before anything is built from it (`edgekit_converters.budget.weights`).
"""

from __future__ import annotations

from dataclasses import replace

from edgekit.errors import RefusedError
from edgekit.package import Refusal
from edgekit.profile import Profile, list_profiles, load_profile
from edgekit_converters.budget.weights import least_weights, too_large
from edgekit_converters.engine.plan import Plan
from edgekit_converters.engine.prepare import Hub
from edgekit_converters.values import Source


def with_room_for_source(plan: Plan, source: Source) -> Plan:
    """The plan without what the source is far too large for.

    Raises:
        RefusedError: nothing is left (exit 3): there is no need to read the source.
    """
    found = _with_room(plan, least_weights(source.kind, source.bytes))
    if plan.wanted and not found.wanted:
        first = found.refused[len(plan.refused)]
        raise RefusedError(
            f"the model is too large for every board asked for: {first.detail}",
            where=source.path,
            remedy=first.remedy,
            code="too_large",
        )
    return found


def with_room(plan: Plan, hub: Hub) -> Plan:
    """The plan without what the graph's weights do not fit."""
    return _with_room(plan, int((hub.facts or {}).get("weights", 0)))


def _with_room(plan: Plan, weights: int) -> Plan:
    wanted, refused = [], list(plan.refused)
    others: list[Profile] = []
    for item in plan.wanted:
        short = too_large(weights, item.profile, item.target, item.precision)
        if short is None:
            wanted.append(item)
            continue
        others = others or [load_profile(name) for name in list_profiles()]
        short = too_large(weights, item.profile, item.target, item.precision, others)
        assert short is not None
        refused.append(Refusal(id=item.id, reason_code="too_large", detail=short.detail, remedy=short.remedy))
    return replace(plan, wanted=tuple(wanted), refused=tuple(refused))


__all__ = ["with_room", "with_room_for_source"]
