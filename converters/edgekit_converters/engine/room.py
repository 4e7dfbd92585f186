"""A model too large for a board is refused before work starts; the other boards go on.

Twice: by the bytes of the source, before it is read at all, where it is far too large for everything asked
for; and by the weights of the canonical graph, before anything is built from it
(`edgekit_converters.budget.weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgekit.errors import RefusedError
from edgekit.package import Refusal
from edgekit.profile import Profile, list_profiles, load_profile
from edgekit_converters.budget.weights import BITS, TooLarge, least_weights, too_large
from edgekit_converters.engine.plan import Plan, Wanted
from edgekit_converters.engine.prepare import Hub
from edgekit_converters.values import Source


def with_room_for_source(plan: Plan, source: Source) -> None:
    """See that the source is not far too large for every board, in whatever precision.

    Raises:
        RefusedError: it is (exit 3): there is no need to read it.
    """
    weights = least_weights(source.kind, source.bytes)
    found = [_smallest(weights, item, ()) for item in plan.wanted]
    if not found or any(item is None for item in found):
        return
    others = [load_profile(name) for name in list_profiles()]
    short = _smallest(weights, plan.wanted[0], others)
    assert short is not None
    raise RefusedError(
        f"the model is too large for every board asked for: at least {short.detail}",
        where=source.path,
        remedy=short.remedy,
        code="too_large",
    )


def _smallest(weights: int, item: Wanted, others: Sequence[Profile]) -> TooLarge | None:
    """Whether even the smallest precision of its board is too large."""
    precision = min(item.profile.target(item.target).precisions, key=lambda name: BITS.get(name, 32.0))
    return too_large(weights, item.profile, item.target, precision, others)


def with_room(plan: Plan, hub: Hub) -> Plan:
    """The plan without what the graph's weights do not fit."""
    weights = int((hub.facts or {}).get("weights", 0))
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
