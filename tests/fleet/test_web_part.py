"""The page over the real ingest and reconciler with a simulated fleet: it shows what is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from edgekit.documents import DeviceStep, Reason
from edgekit_fleet.web.feed import Feed
from edgekit_fleet.web.part import Watch
from edgekit_fleet.web.rows import device_news
from edgekit_fleet.web.views import DeviceView
from tests.simulators.sim_fleet import SLOT, Behaviour, SimFleet

Snapshot = dict[str, Any]


class Watched:
    """A simulated fleet with the page's watch on it."""

    def __init__(self, folder: Path) -> None:
        self.sim = SimFleet(folder)
        self.feed = Feed(now=self.sim.clock.now, epoch="e1")
        self.watch = Watch(self.sim.fleet, self.feed, self.sim.events)

    async def snapshot(self) -> Snapshot:
        """What a page that opens now is told."""
        async with aclosing(self.feed.read(None, pause=0.0)) as frames:
            async for frame in frames:
                return dict(json.loads(frame.data))
        raise AssertionError("no snapshot")

    async def until(self, fits: Callable[[Snapshot], bool]) -> Snapshot:
        """The first snapshot that fits, in real time."""
        for _ in range(100):
            found = await self.snapshot()
            if fits(found):
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"the page never showed it: {found}")


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    found = Watched(tmp_path)
    found.sim.add_slot(truth="observe")
    found.sim.add_devices(6)
    found.sim.advance(1)
    found.watch.start()
    yield found
    found.watch.stop()
    found.sim.kill_service()


async def test_devices_and_a_finished_rollout_are_shown_as_stored(watched: Watched) -> None:
    ref = watched.sim.add_release("1.0.0")
    await watched.until(lambda s: len(s["device"]) == 6)
    rollout = watched.sim.start(ref)
    watched.sim.until_state(rollout, "completed")
    watched.sim.advance(6)
    shown = await watched.until(
        lambda s: bool(s["rollout"]) and s["rollout"][0]["state"] == "completed" and s["device"][5]["slots"]
    )
    [view] = shown["rollout"]
    assert (view["release"], view["slot"]) == (ref, SLOT)
    assert sum(ring["good"] for ring in view["rings"]) == 6
    assert {gate["type"] for ring in view["rings"] for gate in ring["gates"]} >= {"failures", "probes"}
    for device in shown["device"]:
        assert device["status"] == "good"
        assert device["ring"] in {ring["name"] for ring in view["rings"]}
        assert device["slots"][0]["release"] == ref
        assert device["probes"][0]["probe"] == "truth"
    assert shown["point"]
    assert shown["point"][0]["requests"] > 0
    assert shown["slot"][0]["policy"] == "observe"
    assert any("serves" in line["text"] for line in shown["log"])


async def test_a_device_that_took_it_back_is_red_and_says_why(watched: Watched) -> None:
    reason = Reason(code="truth_probe", text="8 of 64 right")
    watched.sim.behave = lambda device, release: Behaviour(
        fails=(DeviceStep.PROBING, DeviceStep.REVERTED, reason)
    )
    rollout = watched.sim.start(watched.sim.add_release("1.0.0"))
    watched.sim.until(rollout, lambda state: bool(state["counts"]["failed"]))
    shown = await watched.until(lambda s: any(d["status"] == "bad" for d in s["device"]) and s["log"])
    bad = next(device for device in shown["device"] if device["status"] == "bad")
    assert bad["reason"] == {"code": "truth_probe", "text": "8 of 64 right"}
    assert any(line["tone"] == "bad" and "8 of 64 right" in line["text"] for line in shown["log"])
    watched.sim.until_state(rollout, "rolled_back")
    later = await watched.until(lambda s: s["rollout"][0]["state"] == "rolled_back")
    assert "taken back" in " ".join(line["text"] for line in later["log"])


async def test_a_device_that_is_lost_is_shown_as_lost(watched: Watched) -> None:
    await watched.until(lambda s: len(s["device"]) == 6)
    watched.sim.devices["d-0002"].lose(watched.sim.clock.now())
    watched.sim.advance(1)
    shown = await watched.until(lambda s: s["device"][2]["presence"] == "lost" and s["log"])
    assert shown["device"][2]["status"] == "offline"
    assert shown["log"][-1]["text"] == "d-0002 is lost"


async def test_a_page_that_opens_after_a_restart_of_the_service_has_the_past(watched: Watched) -> None:
    rollout = watched.sim.start(watched.sim.add_release("1.0.0"))
    watched.sim.until_state(rollout, "completed")
    watched.sim.advance(6)
    feed = Feed(now=watched.sim.clock.now, epoch="e2")
    watch = Watch(watched.sim.fleet, feed, watched.sim.events)
    watch.start()
    watched.feed, before = feed, watched.feed
    shown = await watched.until(lambda s: len(s["point"]) > 10 and len(s["device"]) == 6)
    assert shown["rollout"][0]["state"] == "completed"
    assert shown["device"][0]["probes"]
    watch.stop()
    watched.feed = before


async def test_a_database_that_cannot_be_read_stops_the_page_only_for_a_while(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.errors import StorageError

    await watched.until(lambda s: len(s["device"]) == 6)
    real = watched.watch._refresh

    def broken(changed: set[str] | None) -> list[Any]:
        raise StorageError("disk full")

    monkeypatch.setattr(watched.watch, "_refresh", broken)
    watched.sim.add_devices(1)
    watched.sim.advance(6)
    await asyncio.sleep(0.5)
    monkeypatch.setattr(watched.watch, "_refresh", real)
    watched.sim.advance(6)
    await watched.until(lambda s: len(s["device"]) == 7)


def test_the_first_sight_of_a_device_is_no_news() -> None:
    view = DeviceView(id="d", hardware="x", status="good", presence="online", step="committed")
    assert device_news(None, view, at=1.0) == []
