"""Fixtures of the fleet's tests: an initialised fleet in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_fleet.context import Fleet
from tests.conftest import FrozenClock
from tests.fleet.homes import make_fleet


@pytest.fixture
def base_fleet(tmp_path: Path, clock: FrozenClock) -> Iterator[Fleet]:
    """A fleet with keys and metadata, its clock frozen."""
    fleet = make_fleet(tmp_path, clock)
    yield fleet
    fleet.database.close()
