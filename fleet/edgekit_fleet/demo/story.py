"""How the demo is told: acts, lines with the time since the start, tables. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table

from edgekit_fleet.demo.claims import Act, Claim


class Story:
    """Prints on `console`; every line carries the seconds since the demo began."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def act(self, title: str) -> None:
        """Begin an act."""
        self._console.print()
        self._console.print(Rule(f"[bold]{escape(title)}[/bold]", align="left", style="blue"))

    def say(self, text: str, *, style: str = "") -> None:
        """One line."""
        self._console.print(f"[dim]{self.seconds:6.1f} s[/dim]  {escape(text)}", style=style, soft_wrap=True)

    def page(self, url: str) -> None:
        """Where to look."""
        self._console.print(Panel(f"Watch it live: [bold]{escape(url)}[/bold]", style="green", expand=False))

    def plan(self, text: str) -> None:
        """A rollout plan, as it is handed over."""
        self._console.print(Syntax(text.strip(), "toml", background_color="default", word_wrap=True))

    def outcome(self, act: Act) -> None:
        """How a rollout ended, with its gates."""
        style = "green" if act.state == "completed" else "yellow"
        self.say(f"rollout of {act.release}: {act.state} after {act.seconds:.1f} s", style=style)
        for ring in act.rings:
            devices = ", ".join(ring["devices"])
            self.say(f"  ring {ring['name']}: {ring['state']} ({devices or 'not opened'})")
        for name, why in act.why.items():
            self.say(f"  gate {name}: {why}")

    def claims(self, claims: Sequence[Claim]) -> None:
        """What was asserted."""
        for claim in claims:
            sign = "[green]✔[/green]" if claim.met else "[bold red]✘[/bold red]"
            self._console.print(
                f"[dim]{self.seconds:6.1f} s[/dim]  {sign} {escape(claim.text)}  "
                f"[dim]{escape(claim.detail)}[/dim]",
                soft_wrap=True,
            )

    def devices(self, rows: Sequence[Sequence[str]]) -> None:
        """The final table."""
        table = Table(title="What every device did (right: answers of v1)", title_justify="left")
        for name in ("device", "variant", "runtime"):
            table.add_column(name, no_wrap=True)
        for name in ("sent", "lost", "right", "p99"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*map(escape, row))
        self._console.print(table)

    def timings(self, rows: Sequence[tuple[str, float]]) -> None:
        """How long each stage took."""
        table = Table(title="How long it took", title_justify="left")
        table.add_column("stage")
        table.add_column("seconds", justify="right")
        for name, seconds in rows:
            table.add_row(escape(name), f"{seconds:.1f}")
        self._console.print(table)

    def ending(self, met: int, claims: int) -> None:
        """The last line."""
        good = met == claims
        style = "bold green" if good else "bold red"
        self.say(f"{met} of {claims} claims met", style=style)
