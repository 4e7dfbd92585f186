"""Ingest as it runs: its own thread, batches, a database that cannot be written, the bus."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from edgekit.documents import Ack, Window
from edgekit.errors import StorageError
from edgekit.topics import device_topic
from edgekit_fleet.context import Part, SystemClock
from edgekit_fleet.db.rollouts import TelemetryRow
from edgekit_fleet.events import Event, EventBus
from edgekit_fleet.rollout.reducers import Arrived
from edgekit_fleet.service.app import create_app
from edgekit_fleet.service.ingest import Ingest
from edgekit_fleet.telemetry import store_batch
from tests.simulators.sim_fleet import SimFleet

TOPIC = device_topic("acme", "d-0000", "tm", "digits")


def window(seq: int, *, boot: int = 1, oldest: int = 0) -> Window:
    return Window(
        slot="digits",
        boot_id=f"{boot:08d}-t",
        seq=seq,
        oldest=oldest,
        release="digits@1.0.0",
        variant="v",
        digest="sha256:" + "1" * 64,
        deployment="r-0001",
        at=0.0,
        seconds=1.0,
        requests=3,
    )


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimFleet]:
    fleet = SimFleet(tmp_path)
    fleet.add_slot()
    fleet.add_devices(2)
    yield fleet
    fleet.fleet.database.close()


@pytest.fixture
def ingest(sim: SimFleet) -> Iterator[Ingest]:
    made = Ingest(replace(sim.fleet, clock=SystemClock()), EventBus())
    made.start()
    yield made
    made.stop()


def wait(done: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def acks(sim: SimFleet) -> list[Ack]:
    topic = device_topic("acme", "d-0000", "ack")
    return [Ack.parse(sim.broker.retained[topic])] if topic in sim.broker.retained else []


def stored(sim: SimFleet) -> int:
    with sim.fleet.database.read() as session:
        return session.scalar(select(func.count()).select_from(TelemetryRow)) or 0


def test_what_arrives_together_is_stored_together_and_acknowledged_after(
    sim: SimFleet, ingest: Ingest
) -> None:
    for seq in range(200):
        ingest.on_message(TOPIC, window(seq).to_bytes(), False)
    wait(lambda: bool(acks(sim)) and acks(sim)[0].seq == 199)
    assert stored(sim) == 200


def test_a_window_sent_twice_is_stored_once_and_acknowledged_again(sim: SimFleet, ingest: Ingest) -> None:
    ingest.on_message(TOPIC, window(0).to_bytes(), False)
    wait(lambda: bool(acks(sim)))
    sim.broker.retained.clear()
    ingest.on_message(TOPIC, window(0).to_bytes(), False)
    wait(lambda: bool(acks(sim)))
    assert stored(sim) == 1
    assert ingest.dropped.counts["duplicate"] == 1


def test_a_gap_is_not_acknowledged_over(sim: SimFleet, ingest: Ingest) -> None:
    ingest.on_message(TOPIC, window(0).to_bytes(), False)
    ingest.on_message(TOPIC, window(2).to_bytes(), False)
    wait(lambda: bool(acks(sim)) and bool(acks(sim)[0].also))
    assert (acks(sim)[0].seq, acks(sim)[0].also) == (0, (2,))


def test_windows_of_an_earlier_boot_are_taken_and_acknowledged_too(sim: SimFleet, ingest: Ingest) -> None:
    ingest.on_message(TOPIC, window(0, boot=2).to_bytes(), False)
    wait(lambda: bool(acks(sim)))
    ingest.on_message(TOPIC, window(41, boot=1, oldest=41).to_bytes(), False)
    wait(lambda: acks(sim)[0].boot_id == "00000001-t")
    assert acks(sim)[0].seq == 41
    assert stored(sim) == 2


def test_a_full_disk_keeps_the_batch_and_acknowledges_nothing_until_it_is_stored(
    sim: SimFleet, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit_fleet.service.ingest._RETRY_SECONDS", 0.05)
    full = threading.Event()
    full.set()
    store = ingest.store

    def failing(batch: list[Arrived]) -> None:
        if full.is_set():
            raise StorageError("no space left on device", code="disk_full")
        store(batch)

    monkeypatch.setattr(ingest, "store", failing)
    ingest.on_message(TOPIC, window(0).to_bytes(), False)
    time.sleep(0.3)
    assert not acks(sim)
    full.clear()
    wait(lambda: bool(acks(sim)))
    assert stored(sim) == 1


def test_stopping_stores_what_is_queued(sim: SimFleet) -> None:
    ingest = Ingest(replace(sim.fleet, clock=SystemClock()), EventBus())
    for seq in range(50):
        ingest.on_message(TOPIC, window(seq).to_bytes(), False)
    ingest.start()
    ingest.stop()
    assert stored(sim) == 50


async def test_what_is_stored_while_the_service_ends_is_acknowledged_before_the_connection_goes(
    sim: SimFleet,
) -> None:
    ingest = Ingest(replace(sim.fleet, clock=SystemClock()), EventBus())
    app = create_app(sim.fleet, [Part(tasks=[ingest], on_message=ingest.on_message)])
    async with app.router.lifespan_context(app):
        for seq in range(50):
            ingest.on_message(TOPIC, window(seq).to_bytes(), False)
    assert stored(sim) == 50
    assert acks(sim)[0].seq == 49


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5), st.integers(1, 10_000))
def test_however_windows_are_batched_each_is_stored_once(
    sim: SimFleet, batches: list[list[int]], boot: int
) -> None:
    with sim.fleet.database.write() as session:
        for batch in batches:
            store_batch(session, [("d-0001", window(seq, boot=boot)) for seq in batch], now=0.0)
        query = select(TelemetryRow.seq).where(TelemetryRow.boot_id == f"{boot:08d}-t")
        assert sorted(session.scalars(query)) == sorted({seq for batch in batches for seq in batch})
        session.rollback()


async def test_the_bus_tells_a_slow_subscriber_how_much_it_missed() -> None:
    bus = EventBus(backlog=3)
    subscription = bus.subscribe()
    first = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    bus.publish("device", {"n": 0})
    assert (await first).body == {"n": 0}
    for n in range(1, 9):
        bus.publish("device", {"n": n})
    event: Event = await anext(subscription)
    assert (event.body, event.missed) == ({"n": 6}, 5)
    await subscription.aclose()  # type: ignore[attr-defined]  # an async generator
    assert bus.subscribers == 0


async def test_closing_the_bus_ends_its_subscribers() -> None:
    bus = EventBus()
    seen: list[str] = []

    async def listen() -> None:
        async for event in bus.subscribe():
            seen.append(event.kind)

    task = asyncio.create_task(listen())
    await asyncio.sleep(0.01)
    threading.Thread(target=bus.publish, args=("rollout", {})).start()
    await asyncio.sleep(0.05)
    bus.close()
    await asyncio.wait_for(task, 2)
    assert "rollout" in seen
