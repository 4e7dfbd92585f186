"""The page in a real browser: it is live, it says when it is not, it shows untrusted text as text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_service
from tests.fleet.browser import Page, chromium
from tests.fleet.synthetic_fleet import PageServer, SyntheticFleet, served

SCHEMES = (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(require_service("chromium"), tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def server(page: Page) -> Iterator[PageServer]:
    with served(SyntheticFleet()) as running:
        yield running
        page.open("about:blank")
        page.wait("location.href === 'about:blank'")


@pytest.fixture(autouse=True)
def no_console_errors(page: Page) -> Iterator[None]:
    page.errors.clear()
    yield
    page.value("1")
    assert page.errors == []


def opened(page: Page, server: PageServer, fragment: str = "") -> None:
    page.size(1280, 900)
    page.open("about:blank")
    page.open(f"{server.url}/{fragment}")
    page.wait("document.documentElement?.dataset.state === 'live'")
    page.wait("document.querySelectorAll('button.cell').length === 12")


def test_a_value_on_the_page_changes_by_itself(page: Page, server: PageServer) -> None:
    opened(page, server)
    cell = "document.querySelector('[data-requests=\"dev-05\"]')?.textContent"
    first = page.wait(f"({cell} ?? '–') !== '–' && {cell}")
    second = page.wait(f"{cell} !== {first!r} && {cell}")
    assert first != second
    assert first.endswith("/s")
    assert second.endswith("/s")


def test_a_feed_that_falls_silent_turns_the_page_red(page: Page, server: PageServer) -> None:
    opened(page, server)
    page.value("performance.now = ((real) => () => real() + 60000)(performance.now.bind(performance))")
    page.wait("document.documentElement.dataset.state === 'live'", seconds=20)  # and it opens a new feed


def test_a_service_that_stops_is_shown_as_lost_and_then_as_no_contact(page: Page) -> None:
    with served(SyntheticFleet()) as running:
        opened(page, running)
    page.wait("document.documentElement.dataset.state === 'lost'")
    page.value("performance.now = ((real) => () => real() + 15000)(performance.now.bind(performance))")
    page.wait("document.documentElement.dataset.state === 'stale'")
    assert page.text("#connection-text") == "no contact"
    assert page.value("document.getElementById('age').className") == "age stale"
    page.errors = [text for text in page.errors if "ERR_" not in text]  # the refused reconnects


def test_gates_show_their_verdict_and_why(page: Page, server: PageServer) -> None:
    opened(page, server)
    text = page.wait("document.querySelector('#rollout table')?.textContent")
    assert "8 of 64 right, the release before had 62" in text
    assert "not proven" in text
    assert "INCONCLUSIVE" not in text
    assert "going back to 1.0.0" in page.text("#rollout")


def test_a_device_opens_by_click_and_by_link_with_its_plots(page: Page, server: PageServer) -> None:
    opened(page, server)
    page.value("document.querySelector('[data-device=\"dev-07\"]').click()")
    page.wait("document.querySelectorAll('#detail svg').length >= 2")
    detail = page.text("#detail")
    assert "CPUExecutionProvider" in detail
    assert "before: digits@1.0.0" in detail
    assert "8 of 64 right" in detail
    assert page.value("location.hash") == "#dev-07"
    opened(page, server, "#dev-03")
    page.wait("document.querySelector('#detail-title').textContent === 'dev-03'")


def test_markup_sent_by_a_device_stays_text(page: Page, server: PageServer) -> None:
    opened(page, server, "#dev-12")
    assert "<img src=x onerror=" in page.wait("document.querySelector('#detail .why')?.textContent")
    assert page.value("document.querySelectorAll('#main img, #main script').length") == 0
    assert page.value("document.title") == "edgekit fleet"


def test_the_keyboard_reaches_every_device_and_keeps_its_place_while_the_page_updates(
    page: Page, server: PageServer
) -> None:
    opened(page, server)
    page.value("document.querySelector('button.cell').focus()")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
    held = "document.activeElement?.dataset?.device"
    second = page.value("document.querySelectorAll('button.cell')[1].dataset.device")
    assert page.value(held) == second
    text = page.text("#log li span")
    page.wait(f"document.querySelector('#log li span').textContent !== {text!r}")
    assert page.value(held) == second
    assert page.value("[...document.querySelectorAll('button')].every((b) => b.textContent || b.ariaLabel)")
    assert page.value("document.querySelectorAll('svg:not([aria-label])').length") == 0


@pytest.mark.parametrize(("scheme", "width"), SCHEMES)
def test_it_fits_narrow_and_dark_screens(
    page: Page, server: PageServer, tmp_path: Path, scheme: str, width: int
) -> None:
    page.scheme(scheme)
    opened(page, server, "#dev-07")
    page.size(width, 900)
    page.wait("document.querySelectorAll('#detail svg').length >= 2")
    page.wait("document.querySelector('#detail svg').clientWidth > document.body.clientWidth * 0.4")
    time.sleep(0.5)  # drawn anew for this width
    assert page.value("document.documentElement.scrollWidth") <= width
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 23)") is (scheme == "dark")
    page.picture(tmp_path / f"{scheme}-{width}.png")
    page.scheme("")
