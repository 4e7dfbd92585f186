"""Packages for the end-to-end tests, trained and converted once a session, and lines to put them on.

``EDGEKIT_E2E_PACKAGES=FOLDER`` keeps the packages between sessions of somebody who works on these tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit_fleet.demo.calls import Calls, Kind, kinds, wait_child
from edgekit_fleet.demo.processes import Children
from tests.conftest import REPOSITORY, require_service
from tests.e2e.line import Line

BROKERS = ("mosquitto", "fallback")
MakeLine = Callable[..., Line]


@dataclass(frozen=True, kw_only=True)
class Packages:
    """Folders of trained models with their ``package``: `good` and `better` are right, `bad` is wrong in
    the field."""

    good: Path
    better: Path
    bad: Path

    GOOD = "digits@1.0.0"
    BETTER = "digits@1.1.0"
    BAD = "digits@2.0.0"

    def all(self) -> list[tuple[Path, str]]:
        """(package folder, release) of each."""
        folders = ((self.good, self.GOOD), (self.better, self.BETTER), (self.bad, self.BAD))
        return [(folder / "package", ref) for folder, ref in folders]


@pytest.fixture(scope="session")
def host_kinds() -> tuple[Kind, ...]:
    """Kinds of devices this machine can be."""
    return kinds()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, host_kinds: tuple[Kind, ...]) -> Packages:
    """Trains a good and a bad model, converts good (as two versions) and bad for this machine."""
    kept = os.environ.get("EDGEKIT_E2E_PACKAGES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("e2e-packages")
    found = Packages(good=folder / "good", better=folder / "better", bad=folder / "bad")
    if not all((package / "package.json").is_file() for package, _ in found.all()):
        _build(found, folder, (host_kinds[0], host_kinds[1]))
    return found


def _build(found: Packages, folder: Path, chosen: Sequence[Kind]) -> None:
    script = REPOSITORY / "examples" / "digits" / "train.py"
    with Children(folder=folder / "logs", environment={"XDG_CACHE_HOME": str(folder / "cache")}) as children:
        calls = Calls(children=children, folder=folder)
        trained = [
            calls.train(script, found.good, version="1.0.0", inverted=False, epochs=16),
            calls.train(script, found.bad, version="2.0.0", inverted=True, epochs=16),
        ]
        for child in trained:
            wait_child(child, 240)
        found.better.mkdir()
        for path in found.good.iterdir():
            (found.better / path.name).write_bytes(path.read_bytes())
        contract = found.better / "model.toml"
        contract.write_text(contract.read_text().replace('version = "1.0.0"', 'version = "1.1.0"'))
        converted = [
            calls.convert(found.good, version="1.0.0", chosen=chosen),
            calls.convert(found.bad, version="2.0.0", chosen=chosen),
        ]
        wait_child(converted[0], 240)
        converted.append(calls.convert(found.better, version="1.1.0", chosen=chosen))
        for child in converted:
            wait_child(child, 240)


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[MakeLine]:
    """Lines of this test, ended with it; their logs are shown when it fails."""
    made: list[Line] = []

    def make(broker: str = "mosquitto", name: str = "line", **settings: str) -> Line:
        if broker == "mosquitto":
            require_service("mosquitto")
        line = Line(tmp_path / name, broker=broker, **settings)
        line.__enter__()
        made.append(line)
        return line

    yield make
    for line in made:
        line.__exit__()
        for log in sorted(line.children.folder.glob("*.log")):
            print(f"==== {log.name}", log.read_text(errors="replace")[-1500:], sep="\n", file=sys.stderr)
