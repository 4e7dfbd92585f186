"""`edgekit demo`: the whole line on this machine, every claim measured in the run."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from edgekit.errors import RefusedError


@click.command(
    short_help="The whole line on this machine: train, convert, sign, roll out, stop a bad release."
)
@click.option("--keep", is_flag=True, help="Leave the fleet running at the end, until Ctrl-C.")
@click.option("--fast", is_flag=True, help="Shorter training and soaks.")
@click.option(
    "--devices", type=click.IntRange(6, 60), default=12, show_default=True, help="How many devices."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for models, fleet and logs (default: temporary)."
)
@click.option(
    "--broker", type=click.Choice(["mosquitto", "fallback"]), help="Broker (default: what is found)."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print all that was measured as JSON; the story to stderr."
)
def demo(keep: bool, fast: bool, devices: int, out: Path | None, broker: str | None, as_json: bool) -> None:
    """The whole line on this machine.

    Trains a model on real handwritten digits, compiles and signs it, enrols devices that run the real
    agent, and rolls it out. Then a second model, good in every check of its author and wrong in the
    field, is rolled out twice: once with ground-truth probes enforced, once with probes that only
    observe. Exit code 0 when every claim held, 3 when one did not.
    """
    from rich.console import Console

    from edgekit_fleet.demo.claims import nothing_left
    from edgekit_fleet.demo.processes import Children
    from edgekit_fleet.demo.run import Demo, Options, demand_everything
    from edgekit_fleet.demo.story import Story

    demand_everything()
    story = Story(Console(stderr=as_json))
    options = Options(devices=devices, fast=fast, broker=broker)
    with _folder(out, keep=keep or out is not None) as folder, _ended_politely():
        with Children(folder=folder / "logs") as children:
            play = Demo(options, folder, story, children)
            try:
                play.play()
                if keep:
                    _wait_for_ctrl_c(play.result.url)
            finally:
                play.stop_traffic()
                groups = list(children.running)
                children.stop()
                left = [pid for child in groups for pid in child.left_over()]
        play.result.claims.append(nothing_left(left))
        story.claims(play.result.claims[-1:])
        met = sum(claim.met for claim in play.result.claims)
        story.ending(met, len(play.result.claims))
        if as_json:
            click.echo(json.dumps(play.result.to_dict(), indent=2))
        if not play.result.met:
            raise RefusedError(f"{len(play.result.claims) - met} claims were not met", code="claims_not_met")


def _wait_for_ctrl_c(url: str) -> None:
    click.echo(f"Still running, page at {url}; Ctrl-C ends it.", err=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


@contextlib.contextmanager
def _folder(out: Path | None, *, keep: bool) -> Iterator[Path]:
    """The demo's folder; a temporary one is removed unless the demo failed, so that logs can be read."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise click.UsageError(f"--out {out}: the folder is not empty; name another")
        yield out.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="edgekit-demo-"))
    try:
        yield folder
    except BaseException:
        click.echo(f"edgekit demo: models, fleet and logs are kept in {folder}", err=True)
        raise
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo like Ctrl-C does: children first."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(f"signal {number}")

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
