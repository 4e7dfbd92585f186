"""A rollout's JSON as a tree for terminals, and as plain lines where there is no terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.tree import Tree

Json = Mapping[str, Any]
_ICONS = {
    "running": "⟳",
    "paused": "॥",
    "completed": "✔",
    "passed": "✔",
    "pass": "✔",
    "inconclusive": "?",
    "failed": "✖",
    "fail": "✖",
    "aborted": "✖",
    "rolling_back": "⟲",
    "rolled_back": "⟲",
    "rollback_failed": "✖",
    "deploying": "◌",
    "soaking": "◔",
    "skipped": "–",
    "cancelled": "–",
    "awaiting_approval": "॥",
}
_COLOURS = {"✔": "green", "✖": "red", "?": "yellow", "॥": "yellow", "⟲": "magenta", "◌": "cyan", "◔": "cyan"}
_BAD_STEPS = ("failed", "reverted", "rejected", "timed_out")
_SHOWN = 8


def rollout_tree(document: Json, *, now: float, away: float | None = None) -> Tree:
    """The whole rollout: rings, their gates, and the devices that need a look; `away` is for how many
    seconds the service has not answered."""
    tree = Tree(_head(document, now))
    for ring in document["rings"]:
        branch = tree.add(_ring_line(ring, now))
        for gate in ring["gates"]:
            branch.add(f"α {_marked(gate['verdict'])} {escape(gate['gate'])}  {escape(gate['why'])}")
        for member in _worth_showing(ring["members"]):
            branch.add(_member_line(member))
    if document["back"]:
        back = document["back"]
        tree.add(f"{_marked('rolling_back')} back: {back['good']}/{back['members']} devices{_offline(back)}")
    if document["reason"]:
        tree.add(f"[dim]{escape(document['reason'])}[/dim]")
    if away is not None:
        tree.add(f"[yellow]the service does not answer since {age(away)}; this is the last it said[/yellow]")
    return tree


def _head(document: Json, now: float) -> str:
    end = document["ended"] or now
    total = len(document["rings"])
    place = f"ring {min(document['ring'] + 1, total)}/{total}"
    earlier = f"{document['previous']} → " if document["previous"] else ""
    state = document["state"].upper() + (f" ({document['pause']})" if document["pause"] else "")
    return (
        f"{_marked(document['state'])} [bold]rollout {document['id']}[/bold]  "
        f"{escape(earlier)}{escape(document['release'])}  {state}  {place}  {age(end - document['created'])}"
    )


def _ring_line(ring: Json, now: float) -> str:
    counts = ring["counts"]
    words = [f"# ring {ring['index']} {escape(ring['name'])}", f"{counts['good']}/{counts['members']}"]
    words.append(f"{_marked(ring['state'])} {ring['state']}")
    if ring["soak_until"]:
        words.append(f"{age(max(0.0, ring['soak_until'] - now))} of the soak left")
    if ring["verdict"] == "inconclusive" and ring["closed"]:
        words.append("[yellow]not proven[/yellow]")
    for key, word in (
        ("failed", "failed"),
        ("offline", "offline"),
        ("pending", "on their way"),
        ("late", "late"),
    ):
        if counts[key]:
            words.append(f"{counts[key]} {word}")
    if ring["excluded"]:
        words.append(f"{len(ring['excluded'])} excluded")
    return "  ".join(words)


def _worth_showing(members: Sequence[Json]) -> Iterator[Json]:
    bad = [m for m in members if m["step"] in _BAD_STEPS]
    busy = [m for m in members if m["step"] not in (*_BAD_STEPS, "committed", "already_current", "targeted")]
    yield from (bad + busy)[:_SHOWN]


def _member_line(member: Json) -> str:
    bad = member["step"] in _BAD_STEPS
    mark = "[red]✖[/red]" if bad else "[cyan]◌[/cyan]"
    reason = f"  “{escape(member['reason']['text'])}”" if member["reason"] else ""
    late = f"  late: {member['late_step']}" if member["late_step"] else ""
    away = "" if member["online"] else "  offline"
    return f"□ {member['device']} {escape(member['variant'])}  {mark} {member['step']}{late}{away}{reason}"


def _offline(counts: Json) -> str:
    return f", {counts['offline']} offline" if counts["offline"] else ""


def _marked(state: str) -> str:
    icon = _ICONS.get(state, "•")
    colour = _COLOURS.get(icon)
    return f"[{colour}]{icon}[/{colour}]" if colour else icon


def age(seconds: float) -> str:
    """A duration for people: ``42s``, ``12m``, ``3h 20m``."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole}s"
    if whole < 6000:
        return f"{whole // 60}m {whole % 60:02d}s" if whole < 600 else f"{whole // 60}m"
    return f"{whole // 3600}h {whole % 3600 // 60}m"


def changes(before: Json | None, after: Json) -> Iterator[str]:
    """Lines about what is new in `after`."""
    earlier = {ring["name"]: ring for ring in before["rings"]} if before else {}
    if before is None or (before["state"], before["reason"]) != (after["state"], after["reason"]):
        reason = f": {after['reason']}" if after["reason"] else ""
        yield f"rollout {after['id']} {after['release']} {after['state']}{reason}"
    for ring in after["rings"]:
        yield from _ring_changes(earlier.get(ring["name"]), ring)
    if after["back"] and after["back"] != (before or {}).get("back"):
        yield f"back: {after['back']['good']}/{after['back']['members']} devices{_offline(after['back'])}"


def _ring_changes(before: Json | None, ring: Json) -> Iterator[str]:
    known = before or {"state": "pending", "members": [], "gates": [], "counts": None}
    counts = ring["counts"]
    if known["state"] != ring["state"]:
        yield f"ring {ring['name']}: {ring['state']} ({counts['good']}/{counts['members']} good)"
    steps = {member["device"]: member["step"] for member in known["members"]}
    for member in ring["members"]:
        step = member["step"]
        if step != steps.get(member["device"]) and (
            step in _BAD_STEPS or step in ("committed", "already_current")
        ):
            reason = f" ({member['reason']['text']})" if member["reason"] else ""
            yield f"  {member['device']}: {step}{reason}"
    if ring["look"] != "final" and not any(gate["verdict"] == "fail" for gate in ring["gates"]):
        return  # what an early look says changes every second
    told = {(gate["gate"], gate["verdict"], known.get("look")) for gate in known["gates"]}
    for gate in ring["gates"]:
        if (gate["gate"], gate["verdict"], ring["look"]) not in told:
            yield f"  gate {gate['gate']}: {gate['why']}"
