"""The feed: nothing missed, nothing unbounded, whatever a reader does."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from edgekit.documents import DeviceStep, Window
from edgekit.sketches import LatencyRecorder
from edgekit_fleet.web.feed import Feed, Frame
from edgekit_fleet.web.views import LogView, ServiceView, SlotView, device_status, point_view
from tests.contract.samples import SAMPLES
from tests.fleet.synthetic_fleet import SyntheticFleet


def window_sample(**changes: Any) -> Window:
    window = SAMPLES["window"]
    assert isinstance(window, Window)
    return replace(window, **changes)


def feed(**settings: Any) -> Feed:
    return Feed(now=lambda: 1000.0, epoch="e1", **settings)


def service(tenant: str) -> ServiceView:
    return ServiceView(tenant=tenant, broker="b", connected=True, version="1", started=0.0)


async def frames(source: Feed, count: int, last: str | None = None) -> list[Frame]:
    found: list[Frame] = []
    async with aclosing(source.read(last, beat=0.05, pause=0.0)) as reading:
        async for frame in reading:
            found.append(frame)
            if len(found) == count:
                break
    return found


async def test_a_reader_gets_the_snapshot_first_and_then_only_changes() -> None:
    source = feed()
    source.put(service("a"))
    reading = asyncio.create_task(frames(source, 2))
    await asyncio.sleep(0.02)
    source.put(service("b"))
    first, second = await reading
    assert (first.event, second.event) == ("snapshot", "changes")
    assert json.loads(first.data)["service"][0]["tenant"] == "a"
    assert [change["body"]["tenant"] for change in json.loads(second.data)["changes"]] == ["b"]


async def test_a_reader_that_comes_back_gets_what_it_missed_and_no_snapshot() -> None:
    source = feed()
    source.put(service("a"))
    [first] = await frames(source, 1)
    source.put(LogView(at=1.0, kind="x", text="one"), LogView(at=2.0, kind="x", text="two"))
    [second] = await frames(source, 1, first.id)
    assert second.event == "changes"
    assert [change["body"]["text"] for change in json.loads(second.data)["changes"]] == ["one", "two"]


async def test_a_reader_that_fell_too_far_behind_gets_a_snapshot() -> None:
    source = feed(backlog=3)
    source.put(service("a"))
    [first] = await frames(source, 1)
    for number in range(10):
        source.put(service(f"t{number}"))
    [second] = await frames(source, 1, first.id)
    assert second.event == "snapshot"


async def test_positions_of_another_start_or_made_up_ones_get_a_snapshot() -> None:
    source = feed()
    source.put(service("a"))
    for last in ("e0-1", "e1-99999", "e1--1", "e1-", "-", "x" * 5000, "e1-" + "9" * 4000, "e1-٣"):
        [frame] = await frames(source, 1, last)
        assert frame.event == "snapshot", last


async def test_a_silent_feed_beats() -> None:
    source = feed()
    first, beat = await frames(source, 2)
    assert (first.event, beat.event, beat.id) == ("snapshot", "beat", None)


async def test_changes_of_the_same_thing_are_sent_once_with_the_newest_state() -> None:
    source = feed()
    [first] = await frames(source, 1)
    for number in range(5):
        source.put(service(f"t{number}"))
    [second] = await frames(source, 1, first.id)
    assert [change["body"]["tenant"] for change in json.loads(second.data)["changes"]] == ["t4"]


async def test_the_same_state_again_is_no_change() -> None:
    source = feed()
    source.put(service("a"))
    [first] = await frames(source, 1)
    source.put(service("a"))
    [second] = await frames(source, 1, first.id)
    assert second.event == "beat"


async def test_a_thing_that_is_removed_leaves_the_snapshot_and_is_told() -> None:
    source = feed()
    source.put(SlotView(name="digits"))
    [first] = await frames(source, 1)
    source.remove("slot", "digits")
    [second] = await frames(source, 1, first.id)
    assert json.loads(second.data)["changes"] == [{"kind": "slot", "key": "digits", "body": None}]
    [third] = await frames(source, 1)
    assert json.loads(third.data)["slot"] == []


async def test_memory_is_bounded_however_much_arrives() -> None:
    source = feed(backlog=10, points=20)
    for number in range(100):
        source.put(LogView(at=float(number), kind="x", text="line"), point_view("dev-1", window_sample()))
    [frame] = await frames(source, 1)
    body = json.loads(frame.data)
    assert len(body["point"]) == 20
    assert len(source.history("dev-1")) == 20
    assert len(body["log"]) <= 200


async def test_readers_that_leave_are_forgotten() -> None:
    source = feed()
    for _ in range(20):
        await frames(source, 1)
    assert source.readers == 0


async def test_views_put_from_another_thread_wake_the_reader() -> None:
    source = feed()
    reading = asyncio.create_task(frames(source, 2))
    await asyncio.sleep(0.02)
    threading.Thread(target=source.put, args=(service("late"),)).start()
    _, second = await reading
    assert "late" in second.data


async def test_closing_the_feed_ends_its_readers() -> None:
    source = feed()
    reading = asyncio.create_task(frames(source, 1_000))
    await asyncio.sleep(0.02)
    source.close()
    await asyncio.wait_for(reading, 2)


def test_a_window_becomes_a_point_with_errors_told_apart() -> None:
    recorder = LatencyRecorder()
    for milliseconds in (1.0, 1.0, 1.0, 8.0):
        recorder.record(milliseconds)
    window = window_sample(
        errors={"client:shape": 3, "model:nan": 1}, latency={"total": recorder.snapshot()}, requests=4
    )
    point = point_view("dev-1", window)
    assert (point.client_errors, point.model_errors, point.requests) == (3, 1, 4)
    assert point.p50 is not None
    assert abs(point.p50 - 1.0) < 0.05
    assert point.p99 is not None
    assert abs(point.p99 - 8.0) < 0.4


def test_a_device_that_is_gone_is_shown_as_gone_whatever_it_last_said() -> None:
    assert device_status("lost", DeviceStep.COMMITTED) == "offline"
    assert device_status("online", DeviceStep.REVERTED) == "bad"
    assert device_status("online", DeviceStep.CURRENT) == "good"
    assert device_status("online", DeviceStep.SUPERSEDED) == "idle"
    assert {device_status("online", step) for step in DeviceStep} == {"good", "bad", "busy", "idle"}


def test_every_view_is_json() -> None:
    fleet = SyntheticFleet()
    fleet.tick()
    assert fleet.feed.history("dev-05")
