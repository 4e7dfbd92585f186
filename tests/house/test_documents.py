"""Documents cannot drift: commands exist and are documented, figures are measured, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgekit.cli.main import cli
from edgekit.cli.registry import DISTRIBUTION, SHORT_HELP
from edgekit_agent.cli import build_parser
from tools import cli_reference, docs, figures

ROOT = docs.ROOT
FENCE = re.compile(r"^```(?:sh|console|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WRITTEN = [path for path in docs.documents() if path.name not in ("cli.md", "hardware.md", "benchmarks.md")]


def commands_in(path: Path) -> Iterator[str]:
    """Every `edgekit …` and `edgekit-agent …` line in the shell blocks of a document."""
    for block in FENCE.findall(path.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            text = re.sub(r"^(\$ |\.venv/bin/)", "", line.partition(" #")[0].strip())
            if re.match(r"edgekit(-agent)? ", text):
                yield " ".join(text.split())


COMMANDS = [
    pytest.param(text, id=f"{path.name}: {text[:60]}") for path in WRITTEN for text in commands_in(path)
]


def leaf_of(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """The command a line calls and the words that are left for it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="edgekit")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, rest = command.resolve_command(context, words)
        assert found is not None, f"there is no command {words[0]!r}"
        command, context, words = found, click.Context(found, info_name=name, parent=context), rest
    return command, context, words


def test_the_readme_shows_commands() -> None:
    assert len([case for case in COMMANDS if str(case.id).startswith("README")]) > 5


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_a_document_exists_with_its_options(line: str) -> None:
    program, *words = shlex.split(line.partition(" | ")[0])
    if program == "edgekit-agent":
        if "--help" not in words:
            build_parser().parse_args(words)
        else:
            assert words[0] in build_parser().format_help()
        return
    command, context, rest = leaf_of(words)
    values, left, _ = command.make_parser(context).parse_args(args=list(rest))
    assert not left or isinstance(command, click.Group)
    missing = [
        p.human_readable_name for p in command.params if p.required and values.get(str(p.name)) in (None, ())
    ]
    assert not missing, f"{line}: {missing} not given"


def test_every_command_and_option_has_help() -> None:
    assert list(cli_reference.undocumented(cli)) == []
    assert list(cli_reference.undocumented_by_agent(build_parser())) == []


def test_the_short_helps_name_every_command_there_is() -> None:
    context = click.Context(cli, info_name="edgekit")
    assert set(cli.list_commands(context)) == set(SHORT_HELP) == set(DISTRIBUTION)


def test_generated_pages_and_figures_are_up_to_date() -> None:
    assert list(docs.differences(docs.expected())) == []


def test_every_link_leads_somewhere() -> None:
    assert list(docs.broken_links()) == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    assert [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in index] == []


def test_no_document_names_a_path_of_a_machine() -> None:
    private = re.compile(r"/(work|tmp|home|root|opt)/|\bpypi\.org|\.library")
    assert [path.name for path in docs.documents() if private.search(path.read_text())] == []


def result_file(folder: Path, median: float) -> Path:
    figure = {"name": "start", "title": "t", "unit": "s", "n": 3, "median": median, "spread": 0.1}
    document = {"benchmark": "b", "commit": "c", "command": "d", "machine": {"cpu": "e"}, "figures": [figure]}
    path = folder / "b.json"
    path.write_text(json.dumps(document))
    return path


def test_a_figure_that_differs_from_its_measurement_is_replaced(tmp_path: Path) -> None:
    result_file(tmp_path, 0.25)
    text = "in <!-- figure:start -->0.1 s<!-- /figure -->."
    filled = figures.fill(text, figures.read_results(tmp_path))
    assert filled == "in <!-- figure:start -->0.25 s<!-- /figure -->."


def test_a_figure_nobody_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(figures.UnknownFigureError, match="other"):
        figures.fill("<!-- figure:other --><!-- /figure -->", figures.read_results(tmp_path))


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.12345, "0.123"), (1234.5, "1230"), (45.678, "45.7"), (2.0, "2")]
)
def test_a_figure_shows_three_significant_digits(value: float, shown: str) -> None:
    assert figures.number(value) == shown
