"""Fixtures of the fleet's tests: an initialised fleet in a temporary folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_fleet.context import Fleet, open_fleet
from edgekit_fleet.home import Home
from tests.conftest import FrozenClock
from tests.fleet.homes import make_fleet


@pytest.fixture(scope="session")
def fleet_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet's folder made once and copied for each test: tables and keys take a second to make."""
    folder = tmp_path_factory.mktemp("template")
    make_fleet(folder, FrozenClock()).database.close()
    return folder


@pytest.fixture
def base_fleet(fleet_template: Path, tmp_path: Path, clock: FrozenClock) -> Iterator[Fleet]:
    """A fleet with keys and metadata, its clock frozen."""
    shutil.copytree(fleet_template / "home", tmp_path / "home")
    fleet = open_fleet(Home(path=tmp_path / "home"), clock=clock)
    yield fleet
    fleet.database.close()
