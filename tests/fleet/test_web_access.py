"""Who may look at the page, and what the page's answers carry."""

from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest

from edgekit_fleet.web.access import COOKIE, LIFETIME, Access, is_local
from edgekit_fleet.web.routes import POLICY
from tests.conftest import FrozenClock
from tests.fleet.synthetic_fleet import TOKEN, SyntheticFleet


def client(peer: str = "192.0.2.7", host: str = "fleet.example") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=SyntheticFleet().app(), client=(peer, 5000))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "localhost"])
def test_this_machine_reads_without_a_token(host: str) -> None:
    assert is_local("127.0.0.1", {"host": host})


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", {"host": "evil.example"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example:80"}),
        ("127.0.0.1", {"host": ""}),
        ("192.0.2.7", {"host": "localhost"}),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "192.0.2.7"}),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=192.0.2.7"}),
        (None, {"host": "localhost"}),
    ],
)
def test_rebinding_proxied_and_foreign_requests_are_not_local(
    peer: str | None, headers: dict[str, str]
) -> None:
    assert not is_local(peer, headers)


async def test_a_stranger_sees_nothing() -> None:
    stranger = client()
    assert (await stranger.get("/")).headers["location"] == "/login"
    assert (await stranger.get("/v1/events")).status_code == 401
    assert (await stranger.get("/v1/events/history?device=dev-01")).status_code == 401


async def test_the_operator_token_opens_a_session_that_ends() -> None:
    operator = client()
    assert (await operator.post("/login", data={"token": "wrong"})).headers["location"] == "/login?again=1"
    answer = await operator.post("/login", data={"token": TOKEN})
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (await operator.get("/")).status_code == 200
    assert (await operator.get("/v1/events/history?device=dev-01")).json()["points"]


async def test_a_bearer_token_reads_too() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (await client().get("/v1/events/history?device=dev-01", headers=headers)).status_code == 200


def test_cookies_expire_and_cannot_be_made_up(clock: FrozenClock) -> None:
    tokens = ["first"]
    access = Access(token=lambda: tokens[0], now=clock.now)
    cookie = access.new_cookie()

    def reads(value: str) -> bool:
        return access.may_read(peer="192.0.2.7", headers={"host": "x"}, cookie=value)

    assert reads(cookie)
    expiry, _, seal = cookie.partition(".")
    for forged in (
        "",
        ".",
        expiry,
        f"{int(expiry) + 9}.{seal}",
        f"{expiry}.",
        f"{expiry}.é",
        "9" * 99 + "." + seal,
    ):
        assert not reads(forged), forged
    clock.advance(LIFETIME + 1)
    assert not reads(cookie)
    fresh = access.new_cookie()
    tokens[0] = "second"
    assert not reads(fresh)


def test_without_an_operator_token_nobody_signs_in(clock: FrozenClock) -> None:
    access = Access(token=lambda: "", now=clock.now)
    assert not access.token_fits("")
    assert not access.may_read(
        peer="192.0.2.7", headers={"authorization": "Bearer "}, cookie=access.new_cookie()
    )


async def test_a_huge_login_is_cut_off() -> None:
    assert (await client().post("/login", content=b"token=" + b"x" * 100_000)).status_code == 413


@pytest.mark.parametrize("path", ["/", "/login", "/static/app.js", "/static/page.css"])
async def test_every_answer_carries_the_policy(path: str) -> None:
    answer = await client("127.0.0.1", "localhost").get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    tag = answer.headers["etag"]
    again = await client("127.0.0.1", "localhost").get(path, headers={"If-None-Match": tag})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "name", ["..%2Froutes.py", "routes.py", "%2e%2e/views.py", "app.js%00", "nothing.js"]
)
async def test_only_the_pages_own_files_are_served(name: str) -> None:
    assert (await client("127.0.0.1", "localhost").get(f"/static/{name}")).status_code == 404


def test_the_page_needs_nobody_elses_server_and_builds_no_markup_from_text() -> None:
    for item in files("edgekit_fleet.web").joinpath("static").iterdir():
        text = item.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, item.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|style=", text), (
            item.name
        )


def test_the_cookie_has_a_name_of_its_own() -> None:
    assert COOKIE == "edgekit_session"
