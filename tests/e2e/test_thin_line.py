"""Convert → sign → one agent → one gate, over a real Mosquitto with TLS and over the fallback broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.digest import sha256_hex
from edgekit_fleet.demo.calls import SLOT, Kind
from edgekit_fleet.demo.traffic import Traffic, tally
from tests.conftest import require_service
from tests.e2e.conftest import BROKERS, MakeLine, Packages
from tests.e2e.line import OutboxWatch, demand_nothing_lost, field_samples, plan
from tests.fleet.browser import Page, chromium

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]
ONE_GATE = '{ type = "probes", limit = 0.05 }'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(require_service("chromium"), tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("broker", BROKERS)
def test_one_model_travels_the_whole_line(
    broker: str, packages: Packages, host_kinds: tuple[Kind, ...], make_line: MakeLine, page: Page
) -> None:
    line = make_line(broker)
    line.prepare([(packages.good / "package", packages.GOOD)], packages.good / "model.toml")
    line.calls.probes(packages.good / "probes.npz", policy="enforce", min_accuracy=0.8)
    tls = broker == "mosquitto"
    if tls:
        settings = line.calls.home / "fleet.toml"
        settings.write_text(settings.read_text().replace("tls = false", "tls = true"))
    line.serve()
    device = line.enrol(host_kinds[0])
    assert bool(line.identity(device)["mqtt_ca"]) is tls
    traffic = Traffic(field_samples(packages.good), slot=SLOT, rate=10)
    traffic.add(device.id, device.url)
    with OutboxWatch([device]) as watch:
        rollout = line.start_rollout(packages.GOOD, plan(gates=ONE_GATE))
        state = line.ended(rollout)
        assert (state["state"], state["rings"][0]["gates"][0]["verdict"]) == ("completed", "pass"), state
        assert line.serves(device) == packages.GOOD
        _page_is_live(page, line.calls.url, device.id)
        time.sleep(2)
        traffic.stop()
        line.stop_agent(device)
    demand_nothing_lost(line, watch)
    answered = tally(traffic.answers())
    assert answered.dropped == 0, answered.first_error
    assert (answered.accuracy(packages.GOOD) or 0.0) > 0.9
    windows = line.stored(device, "window")
    assert sum(window["requests"] for window in windows) == answered.sent
    assert {window["release"] for window in windows} == {packages.GOOD}
    assert _blobs_are_what_they_are_called(line.folder)


def _page_is_live(page: Page, url: str, device: str) -> None:
    page.errors.clear()
    page.size(1280, 900)
    page.open(f"{url}/#{device}")
    cell = f"document.querySelector('[data-requests=\"{device}\"]')?.textContent"
    first = page.wait(
        f"document.documentElement?.dataset.state === 'live' && ({cell} ?? '–') !== '–' && {cell}"
    )
    page.wait(f"{cell} !== {first!r}", seconds=30)
    page.wait("document.querySelectorAll('#detail svg').length >= 2")
    assert "60 of 60 right" in page.text("#detail") or "right" in page.text("#detail")
    assert page.errors == []
    page.open("about:blank")
    page.wait("location.href === 'about:blank'")


def _blobs_are_what_they_are_called(folder: Path) -> bool:
    blobs = [path for path in (folder / "fleet" / "blobs").rglob("*") if path.is_file()]
    return bool(blobs) and all(sha256_hex(path.read_bytes()) in str(path).replace("/", "") for path in blobs)
