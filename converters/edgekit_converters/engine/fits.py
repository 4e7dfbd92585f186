"""Does a built variant fit a microcontroller? A pure comparison of what it takes with the profile's budgets.

What it takes was measured when it was built (`Requirements.arena_kb`, `flash_kb`); one artifact may fit one
board and not another, so the question is asked for each variant.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.package import Refusal, Requirements
from edgekit.profile import Budgets, Profile, list_profiles, load_profile
from edgekit_converters.engine.plan import Wanted

_SHOWN = 3


def over_budget(wanted: Wanted, needs: Requirements) -> Refusal | None:
    """Why the variant does not fit its board, with the boards that it would fit; None when it does."""
    short = _short(needs, wanted.profile.budgets)
    if not short:
        return None
    return Refusal(
        id=wanted.id,
        reason_code="over_budget",
        detail=f"{wanted.profile.name} has too little memory: {'; '.join(short)}",
        remedy=_remedy(wanted, needs, (load_profile(name) for name in list_profiles())),
    )


def _short(needs: Requirements, budgets: Budgets) -> list[str]:
    pairs = (
        ("working memory (arena)", needs.arena_kb, budgets.arena_kb),
        ("program memory (flash)", needs.flash_kb, budgets.flash_kb),
    )
    return [
        f"it needs {need} KiB of {what}, {least} KiB are there for it"
        for what, need, least in pairs
        if need is not None and least is not None and need > least
    ]


def _remedy(wanted: Wanted, needs: Requirements, profiles: Iterable[Profile]) -> str:
    """Boards with the same target that have room, else what would help."""
    roomy = [
        item.name
        for item in profiles
        if any(target.name == wanted.target for target in item.targets) and not _short(needs, item.budgets)
    ]
    smaller = "a smaller model or input"
    if wanted.precision != "int8":
        smaller = f"int8, {smaller}"
    if not roomy:
        return f"use {smaller}; no shipped profile with this target has that much"
    return f"it fits {', '.join(roomy[:_SHOWN])}; or use {smaller}"
