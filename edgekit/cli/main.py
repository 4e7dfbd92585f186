"""Entry point of `edgekit`: finds commands by entry point, prints errors, keeps the exit codes.

Exit codes: 0 done, 1 failed, 2 usage, 3 a gate or check refused, 4 time-out, 5 inconclusive.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points

from edgekit.cli.registry import DISTRIBUTION, GROUP, SHORT_HELP
from edgekit.errors import EdgekitError

try:
    import click
except ModuleNotFoundError:  # the core alone, without its extra
    sys.exit("edgekit: the command line needs click; install edgekit-core[cli]")


class _Commands(click.Group):
    """Commands by entry point, imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        installed = _installed()
        known = [name for name in SHORT_HELP if name in installed]
        return known + sorted(set(installed) - set(known))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _installed().get(cmd_name)
        if entry is None:
            if cmd_name in DISTRIBUTION:
                ctx.fail(
                    f"'{cmd_name}' comes with {DISTRIBUTION[cmd_name]}: pip install {DISTRIBUTION[cmd_name]}"
                )
            return None
        command = entry.load()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, SHORT_HELP.get(name) or self._help_of(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def _help_of(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str() if command else ""


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgekit-core", prog_name="edgekit")
def cli() -> None:
    """Take one machine-learning model, verified, onto many kinds of devices."""


def main() -> None:
    """Run the command line; every EdgekitError becomes one message and its exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("edgekit: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EdgekitError as error:
        click.echo(f"edgekit: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
