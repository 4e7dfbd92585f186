"""A fake service per test."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulators.service import FakeService, fake_service


@pytest.fixture
def service() -> Iterator[FakeService]:
    """The HTTP side of a fleet service, with faults to order."""
    with fake_service() as running:
        yield running


@pytest.fixture(autouse=True)
def databases_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test left open, as a killed process would: Python 3.13 warns of each."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    yield
    for connection in opened:
        with contextlib.suppress(sqlite3.ProgrammingError):
            connection.close()
