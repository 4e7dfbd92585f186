"""A fake service per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulators.service import FakeService, fake_service


@pytest.fixture
def service() -> Iterator[FakeService]:
    """The HTTP side of a fleet service, with faults to order."""
    with fake_service() as running:
        yield running
