"""Following a rollout on the screen: drawn live on a terminal, in plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
from rich.live import Live

from edgekit_fleet.cli.options import print_json
from edgekit_fleet.cli.rollout_calls import Json, demand_good_end, follow
from edgekit_fleet.cli.rollout_tree import changes, rollout_tree

_EVERY = 0.5


class Away:
    """Says once on standard error that the service does not answer, and once that it does again."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, seconds: float | None) -> None:
        if seconds is None:
            click.echo("the service answers again", err=True)
        elif not self._told:
            click.echo("the service does not answer; waiting for it", err=True)
        self._told = seconds is not None


def wait(look: Callable[[], Json], *, as_json: bool, until: float | None) -> None:
    """Follow a rollout to its end in plain lines, or print its last state as JSON.

    Raises:
        RefusedError, InconclusiveError: as `demand_good_end`.
        OperationTimeout, UnavailableError: as `follow`.
    """
    last: Json | None = None
    for document in follow(look, every=_EVERY, until=until, away=Away()):
        if not as_json:
            for line in changes(last, document):
                click.echo(line)
        last = document
    assert last is not None
    if as_json:
        print_json(last)
    demand_good_end(last)


def draw(look: Callable[[], Json], *, until: float | None) -> None:
    """Follow a rollout to its end as a tree that is drawn anew; errors as `wait`."""
    last: Json | None = None

    def away(seconds: float | None) -> None:
        if seconds is not None and last is not None:
            live.update(rollout_tree(last, now=time.time(), away=seconds), refresh=True)

    with Live(auto_refresh=False) as live:
        for document in follow(look, every=_EVERY, until=until, away=away):
            live.update(rollout_tree(document, now=time.time()), refresh=True)
            last = document
    assert last is not None
    demand_good_end(last)
