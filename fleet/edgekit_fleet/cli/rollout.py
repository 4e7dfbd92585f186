"""`edgekit rollout`: bring a release out in rings behind gates; watch it, stop it, take it back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgekit_fleet.cli.options import dry_run_option, home_option, json_option, print_json

if TYPE_CHECKING:
    from edgekit_fleet.client import FleetClient

F = TypeVar("F", bound=Callable[..., Any])
Json = Mapping[str, Any]
_WIDE = 1000


_url_option = click.option(
    "--url",
    envvar="EDGEKIT_URL",
    help="Address of the service (or EDGEKIT_URL); without it the one that runs on the home.",
)


def _connection(command: F) -> F:
    """The options every command has: which fleet, and whether to print JSON."""
    for option in (json_option, _url_option, home_option):
        command = option(command)
    return command


def _target_options(command: F) -> F:
    """What a rollout to start, or to show the plan of, is."""
    for option in (
        click.option(
            "--allow-empty", is_flag=True, help="Let a ring select devices that are not enrolled yet."
        ),
        click.option(
            "--allow-unverified", is_flag=True, help="Also give out variants whose verdict is unverified."
        ),
        click.option(
            "--plan", type=click.Path(path_type=Path), help="Plan file (default: canary 10 %, half, rest)."
        ),
        click.option("--slot", required=True, help="Slot that shall run it."),
        click.argument("release", metavar="NAME@VERSION"),
    ):
        command = option(command)
    return command


def _client(url: str | None, home: Path) -> FleetClient:
    from edgekit_fleet.cli.rollout_calls import open_client

    return open_client(url, home)


@click.group(short_help="Bring a release out in rings behind gates; watch it, stop it, take it back.")
def rollout() -> None:
    """Bring a release out in rings behind gates; watch it, stop it, take it back.

    Exit codes: 0 done, 1 failed, 2 usage, 3 a gate failed or it was taken back, 4 time-out,
    5 inconclusive.
    """


def _plan_body(plan: Path | None) -> dict[str, Any]:
    """The plan file as the service takes it; read here first, so that errors name file and key."""
    if plan is None:
        return {}
    from edgekit_fleet.rollout.plan import read_plan

    return {"plan": read_plan(plan, truth_probes=True).to_dict(), "plan_file": str(plan)}


def _plan_text(plan: Path | None) -> dict[str, Any]:
    """Like `_plan_body`, but gates that a ring does not name are left to the service to choose."""
    body = _plan_body(plan)
    if plan is None:
        return body
    import tomllib

    given = tomllib.loads(plan.read_text(encoding="utf-8"))
    for ring, written in zip(body["plan"]["ring"], given["ring"], strict=True):
        if "gates" not in written:
            del ring["gates"]
    return body


@rollout.command("start")
@_target_options
@click.option("--wait", is_flag=True, help="Wait until it has ended or is held.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: wait no longer; exit code 4.")
@dry_run_option
@_connection
def start(
    release: str,
    slot: str,
    plan: Path | None,
    allow_unverified: bool,
    allow_empty: bool,
    wait: bool,
    timeout: float | None,
    dry_run: bool,
    url: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Start to roll a release out to a slot."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    body = {
        **_plan_text(plan),
        "release": release,
        "slot": slot,
        "allow_unverified": allow_unverified,
        "allow_empty": allow_empty,
        "dry_run": dry_run,
    }
    with _client(url, home) as client:
        document = client.post("/v1/rollouts", body)
        if dry_run:
            print_json(document) if as_json else _print_preview(document)
            return
        if not wait:
            print_json(document) if as_json else click.echo(_started(document))
            return
        if not as_json:
            click.echo(_started(document))
        _follow(client, url, home, document["id"], as_json=as_json, timeout=timeout)


def _started(document: Json) -> str:
    rings = ", ".join(ring["name"] for ring in document["rings"])
    lines = [f"rollout {document['id']} of {document['release']} started: {rings}"]
    return "\n".join([*lines, *(f"warning: {text}" for text in document["warnings"])])


@rollout.command("plan")
@_target_options
@_connection
def plan_command(
    release: str,
    slot: str,
    plan: Path | None,
    allow_unverified: bool,
    allow_empty: bool,
    url: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Show which devices would get what in which ring, with today's fleet."""
    body = {
        **_plan_text(plan),
        "release": release,
        "slot": slot,
        "allow_unverified": allow_unverified,
        "allow_empty": allow_empty,
        "dry_run": True,
    }
    with _client(url, home) as client:
        document = client.post("/v1/rollouts", body)
    print_json(document) if as_json else _print_preview(document)


def _print_preview(document: Json) -> None:
    click.echo(f"{document['release']} in slot {document['slot']}: {document['devices']} devices")
    for text in document["warnings"]:
        click.echo(f"warning: {text}")
    for index, ring in enumerate(document["rings"]):
        names = [f"{member['device']} ({member['variant']})" for member in ring["members"]]
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        gates = ", ".join(f"{gate['name']} ≤ {gate['limit']:g}" for gate in ring["gates"]) or "none"
        click.echo(f"# ring {index} {ring['name']}: {len(names)} devices, soak {ring['soak']:g} s")
        click.echo(f"    {shown or 'no device'}")
        click.echo(f"    gates {gates}; on fail {ring['on_fail']}, inconclusive {ring['on_inconclusive']}")
    for device, why in document["excluded"].items():
        click.echo(f"left out: {device}: {why}")
    if document["unassigned"]:
        click.echo(f"in no ring: {', '.join(document['unassigned'])}")


@rollout.command("list")
@click.option("--slot", help="Only this slot's.")
@_connection
def list_command(slot: str | None, url: str | None, home: Path, as_json: bool) -> None:
    """List rollouts, newest first."""
    with _client(url, home) as client:
        document = client.get("/v1/rollouts", {"slot": slot} if slot else None)
    if as_json:
        print_json(document)
        return
    for item in document["rollouts"]:
        counts = item["counts"]
        click.echo(
            f"{item['id']}  {item['slot']}  {item['release']}  {item['state']}"
            f"  {counts['good']}/{counts['members']} good, {counts['failed']} failed"
        )


@rollout.command("watch")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--timeout", type=float, metavar="SECONDS", help="Watch no longer; exit code 4.")
@_connection
def watch(rollout_id: str, timeout: float | None, url: str | None, home: Path, as_json: bool) -> None:
    """Draw a rollout live until it ends or is held; plain lines where there is no terminal."""
    with _client(url, home) as client:
        _follow(client, url, home, rollout_id, as_json=as_json, timeout=timeout, live=True)


def _follow(
    client: FleetClient,
    url: str | None,
    home: Path,
    rollout_id: str,
    *,
    as_json: bool,
    timeout: float | None,
    live: bool = False,
) -> None:
    from edgekit_fleet.cli.rollout_calls import looking
    from edgekit_fleet.cli.rollout_watch import draw, wait

    until = time.monotonic() + timeout if timeout is not None else None
    with looking(client, url, home, rollout_id) as look:
        if live and not as_json and sys.stdout.isatty():
            draw(look, until=until)
        else:
            wait(look, as_json=as_json, until=until)


@rollout.command("status")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--exit-code", is_flag=True, help="Exit with the code of its state (0, 3, 5; 4 while it runs).")
@_connection
def status(rollout_id: str, exit_code: bool, url: str | None, home: Path, as_json: bool) -> None:
    """Show where a rollout stands."""
    with _client(url, home) as client:
        document = client.get(f"/v1/rollouts/{rollout_id}")
    if as_json:
        print_json(document)
    else:
        from rich.console import Console

        from edgekit_fleet.cli.rollout_tree import rollout_tree

        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDE)  # nobody wants a file's lines cut
        console.print(rollout_tree(document, now=time.time()))
    if exit_code:
        _exit_by_state(document)


def _exit_by_state(document: Json) -> None:
    from edgekit.errors import OperationTimeout
    from edgekit_fleet.cli.rollout_calls import demand_good_end, settled

    if not settled(document):
        raise OperationTimeout(
            f"it is {document['state']}", where=f"rollout {document['id']}", code="not_ended"
        )
    demand_good_end(document)


def _order(verb: str, target: str, summary: str, *, reason: bool) -> click.Command:
    """A command that gives one order."""

    def command(
        rollout_id: str,
        dry_run: bool,
        url: str | None,
        home: Path,
        as_json: bool,
        why: str = "",
    ) -> None:
        with _client(url, home) as client:
            if dry_run:
                document = _check_order(client.get(f"/v1/rollouts/{rollout_id}"), verb, target)
            else:
                document = client.post(f"/v1/rollouts/{rollout_id}/{verb}", {"reason": why})
        if as_json:
            print_json(document)
        else:
            would = "would be" if dry_run else "is"
            state = target if dry_run else document["state"]
            click.echo(f"rollout {rollout_id} {would} {state}")

    command.__doc__ = summary
    made: Callable[..., Any] = _connection(command)
    made = dry_run_option(made)
    if reason:
        made = click.option("--reason", "why", default="", help="Why; stands in the audit trail.")(made)
    made = click.argument("rollout_id", metavar="ROLLOUT")(made)
    return rollout.command(verb)(made)


def _check_order(document: Json, verb: str, target: str) -> Json:
    from edgekit_fleet.rollout.states import RolloutState, check_move

    now, then = RolloutState(document["state"]), RolloutState(target)
    if verb != "promote" or now is not then:
        check_move(now, then, rollout=document["id"])
    return document


pause = _order(
    "pause", "paused", "Hold a rollout: nobody further is notified, nothing is judged.", reason=True
)
resume = _order(
    "resume", "running", "Let a held rollout go on; a ring held by gates soaks once more.", reason=False
)
promote = _order(
    "promote", "running", "Approve a waiting ring, or let an unproven ring through.", reason=False
)
abort = _order(
    "abort",
    "aborted",
    "End a rollout; devices that have the release keep it, nobody else gets it.",
    reason=True,
)
rollback = _order(
    "rollback", "rolling_back", "Send every device that got the release back to what it had.", reason=True
)


@rollout.command("explain")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--device", help="Only this device's way.")
@_connection
def explain(rollout_id: str, device: str | None, url: str | None, home: Path, as_json: bool) -> None:
    """Say why: each judgement with test, n, effect, interval and limit; each device's steps."""
    with _client(url, home) as client:
        document = client.get(f"/v1/rollouts/{rollout_id}/explain")
    if device is not None:
        document["devices"] = {name: way for name, way in document["devices"].items() if name == device}
    print_json(document) if as_json else _print_explanation(document)


def _print_explanation(document: Json) -> None:
    click.echo(f"rollout {document['id']} of {document['release']}: {document['state']}")
    if document["reason"]:
        click.echo(document["reason"])
    for item in document["judgements"]:
        click.echo(f"\nring {item['ring']} ({item['look']} look): {item['verdict']} → {item['action']}")
        for gate in item["gates"]:
            click.echo(f"  {_gate_line(gate)}")
    for name, way in document["devices"].items():
        if any(step["reason"] for step in way) or len(document["devices"]) <= 20:
            click.echo(f"\n{name}")
            for step in way:
                click.echo(f"  {_step_line(step, way[0]['at'])}")
    for name, why in document["excluded"].items():
        click.echo(f"left out: {name}: {why}")


def _gate_line(gate: Json) -> str:
    low, high = (("–" if bound is None else f"{bound:.4g}") for bound in gate["interval"])
    effect = "–" if gate["effect"] is None else f"{gate['effect']:.4g}"
    return (
        f"{gate['gate']}: {gate['why']}\n      effect {effect}, bounds [{low}, {high}] at "
        f"{100 * gate['confidence']:g} % one-sided, limit {gate['limit']:g}, p {gate['p_fail']:.3g}"
    )


def _step_line(step: Json, began: float) -> str:
    words = [f"+{step['at'] - began:7.1f} s", "back:" if step["back"] else "", step["step"]]
    words += ["(late)"] if step["late"] else []
    words += [f"(attempt {step['attempt']})"] if step["attempt"] > 1 else []
    words += [f"{step['reason']['code']}: {step['reason']['text']}"] if step["reason"] else []
    return " ".join(word for word in words if word)


@rollout.command("gate-replay")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--ring", help="Only this ring's judgements.")
@click.option("--plan", type=click.Path(path_type=Path), help="Judge by this plan's gates instead.")
@_connection
def gate_replay(
    rollout_id: str,
    ring: str | None,
    plan: Path | None,
    url: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Recompute the verdicts from stored windows; exit code 3 when one differs (unless --plan is given)."""
    body = {**_plan_body(plan), "ring": ring or ""}
    with _client(url, home) as client:
        document = client.post(f"/v1/rollouts/{rollout_id}/replay", body)
    if as_json:
        print_json(document)
    else:
        _print_replays(document)
    if plan is None and not all(item["same"] for item in document["replays"]):
        from edgekit.errors import RefusedError

        raise RefusedError("a recomputed verdict differs from the stored one", code="replay_differs")


def _print_replays(document: Json) -> None:
    for item in document["replays"]:
        same = "the same" if item["same"] else f"stored was {item['stored']['verdict']}"
        again = item["replayed"]
        click.echo(
            f"ring {item['ring']} ({again['look']} look): {again['verdict']} → {again['action']}, {same}"
        )
        for gate in again["gates"]:
            click.echo(f"  {_gate_line(gate)}")
