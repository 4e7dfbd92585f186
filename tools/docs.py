"""Writes every generated page and fills every figure; ``--check`` fails where text and source differ.

Generated whole: docs/cli.md (from the commands), docs/hardware.md (from the profiles),
docs/benchmarks.md (from the result files), docs/coverage.md (from the outcomes of the node tests).
Filled in: the figures between markers in README.md and docs/. Links from one document of the project
to another are checked too.

    python -m tools.docs           write
    python -m tools.docs --check   compare, write nothing
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import cli_reference, coverage, figures, hardware

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def documents() -> tuple[Path, ...]:
    """All written documents: README, changelog and docs/."""
    return (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))


def generated() -> dict[Path, str]:
    """Whole pages, by path."""
    from edgekit.cli.main import cli
    from edgekit_agent.cli import build_parser

    results = figures.read_results(ROOT / "benchmarks" / "results")
    return {
        ROOT / "docs" / "cli.md": cli_reference.reference(cli, build_parser()),
        ROOT / "docs" / "hardware.md": hardware.page(),
        ROOT / "docs" / "benchmarks.md": figures.page(results),
        ROOT / "docs" / "coverage.md": coverage.page(ROOT / "benchmarks" / "results" / "coverage"),
    }


def expected() -> dict[Path, str]:
    """What every document should say: pages generated, figures filled in."""
    results = figures.read_results(ROOT / "benchmarks" / "results")
    wanted = {path: figures.fill(path.read_text(), results) for path in documents()}
    return wanted | generated()


def broken_links() -> Iterator[str]:
    """Links from a document to a file that is not there."""
    for path in documents():
        for target in LINK.findall(path.read_text()):
            if not (path.parent / target).exists():
                yield f"{path.relative_to(ROOT)}: no file {target}"


def differences(wanted: dict[Path, str]) -> Iterator[str]:
    """Unified diffs of documents that say something else."""
    for path, text in wanted.items():
        there = path.read_text() if path.exists() else ""
        if there != text:
            name = str(path.relative_to(ROOT))
            lines = difflib.unified_diff(
                there.splitlines(),
                text.splitlines(),
                f"{name} (there)",
                f"{name} (generated)",
                lineterm="",
                n=1,
            )
            yield "\n".join(list(lines)[:40])


def main(arguments: list[str] | None = None) -> int:
    """Write or check; 0 when documents and sources agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args(arguments)
    wanted = expected()
    if not options.check:
        for path, text in wanted.items():
            path.write_text(text)
    problems = [*(differences(wanted) if options.check else ()), *broken_links()]
    for problem in problems:
        print(problem)
    if problems:
        print("documents and sources differ: run `make docs` and look at what changed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
