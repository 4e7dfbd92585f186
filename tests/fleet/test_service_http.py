"""The service over HTTP: who may read what, ranges, structured errors, hostile input."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.digest import sha256_hex
from edgekit.documents import EnrolAnswer, Envelope
from edgekit.errors import UnavailableError
from edgekit_fleet.client import FleetClient
from edgekit_fleet.context import Fleet, Part
from edgekit_fleet.desired import issue
from edgekit_fleet.enrolment import make_token
from edgekit_fleet.errors import AccessError, UnknownNameError
from edgekit_fleet.releases import add_release, sign_release
from edgekit_fleet.service.app import create_app
from edgekit_fleet.service.base import base_part
from edgekit_fleet.trust.director import Director
from tests.fleet.homes import CONTRACT, enrol_request, served, write_package


class Admissions:
    """A broker link that lets everybody in."""

    kind, host, port, ca = "sim", "127.0.0.1", 1883, ""

    def admit(self, devices: Callable[[], Mapping[str, str]]) -> None:
        devices()


@pytest.fixture
def fleet(base_fleet: Fleet) -> Fleet:
    return replace(base_fleet, broker=Admissions())


@pytest.fixture
def http(fleet: Fleet) -> Iterator[httpx.Client]:
    app = create_app(fleet, [base_part(fleet)])
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture
def operator(fleet: Fleet) -> dict[str, str]:
    return {"Authorization": f"Bearer {fleet.home.operator_token()}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def enrolled(fleet: Fleet, http: httpx.Client, name: str) -> EnrolAnswer:
    token = make_token(fleet, name=name, actor="test")["token"]
    request = enrol_request(token, Ed25519PrivateKey.generate())
    answer = http.post("/v1/enrol", content=request.to_bytes())
    assert answer.status_code == 200, answer.text
    return EnrolAnswer.parse(answer.content)


def test_a_device_enrols_and_downloads_with_its_own_credential(
    fleet: Fleet, http: httpx.Client, tmp_path: Path
) -> None:
    device = enrolled(fleet, http, "cam-1")
    assert device.url == str(http.base_url).rstrip("/")
    manifest = write_package(tmp_path / "p")
    add_release(fleet, tmp_path / "p", actor="test")
    sign_release(fleet, manifest.ref, actor="test")
    me = basic(device.username, device.password)
    assert http.get("/tuf/metadata/timestamp.json", headers=me).json()["signed"]["_type"] == "timestamp"
    digest = manifest.digest.partition(":")[2]
    package = http.get(f"/tuf/targets/packages/digits/1.0.0/{digest}.package.json", headers=me)
    assert package.content == manifest.to_bytes()
    item = manifest.variants[0].files[0]
    whole = http.get(f"/blobs/sha256/{item.sha256}", headers=me)
    assert sha256_hex(whole.content) == item.sha256
    part = http.get(f"/blobs/sha256/{item.sha256}", headers={**me, "Range": "bytes=5-"})
    assert (part.status_code, part.content) == (206, whole.content[5:])
    assert part.headers["content-range"] == f"bytes 5-{item.bytes - 1}/{item.bytes}"
    beyond = http.get(f"/blobs/sha256/{item.sha256}", headers={**me, "Range": f"bytes={item.bytes}-"})
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "/tuf/metadata/timestamp.json",
        "/tuf/targets/x",
        "/blobs/sha256/" + "0" * 64,
        "/v1/devices/cam-1/desired",
    ],
)
def test_nothing_is_read_without_credentials(fleet: Fleet, http: httpx.Client, path: str) -> None:
    enrolled(fleet, http, "cam-1")
    for headers in ({}, basic("cam-1", "wrong"), basic("nobody", ""), {"Authorization": "Bearer wrong"}):
        answer = http.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthorized"
        assert "www-authenticate" in answer.headers


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Basic YQ==", "Bearer", "Basic " + "A" * 5000, "X y"]
)
def test_a_malformed_authorization_is_a_plain_401(http: httpx.Client, header: str) -> None:
    assert http.get("/tuf/metadata/timestamp.json", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/devices"),
        ("GET", "/v1/devices/cam-1"),
        ("GET", "/v1/tokens"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/slots"),
        ("POST", "/v1/slots"),
        ("GET", "/v1/releases"),
        ("GET", "/v1/audit"),
        ("GET", "/v1/status"),
        ("PUT", "/v1/devices/cam-1/pins/digits"),
    ],
)
def test_a_device_cannot_do_what_operators_do(
    fleet: Fleet, http: httpx.Client, method: str, path: str
) -> None:
    device = enrolled(fleet, http, "cam-1")
    assert http.request(method, path, headers=basic(device.username, device.password)).status_code == 401


def test_a_device_reads_its_own_desired_document_only(fleet: Fleet, http: httpx.Client) -> None:
    one, two = enrolled(fleet, http, "cam-1"), enrolled(fleet, http, "cam-2")
    me = basic(one.username, one.password)
    missing = http.get("/v1/devices/cam-1/desired", headers=me)
    assert (missing.status_code, missing.json()["code"]) == (404, "no_desired")
    with fleet.database.write() as session:
        sent = issue(
            session, Director.load(fleet.home.keys), device="cam-1", deployment="r", slots={}, now=1.0
        )
    assert Envelope.parse(http.get("/v1/devices/cam-1/desired", headers=me).content) == sent
    spy = http.get("/v1/devices/cam-1/desired", headers=basic(two.username, two.password))
    assert spy.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/tuf/metadata/..%2f..%2fkeys%2froot.pem",
        "/tuf/metadata/../../keys/root.pem",
        "/tuf/targets/..%2f..%2f..%2fkeys%2froot.pem",
        "/tuf/targets/%2e%2e/%2e%2e/keys/root.pem",
        "/tuf/targets//etc/passwd",
        "/tuf/metadata/root.json",
        "/tuf/metadata/99.root.json",
        "/blobs/sha256/..%2f..%2foperator.token",
        "/blobs/sha256/" + "0" * 64,
        "/blobs/sha256/" + "G" * 64,
    ],
)
def test_no_path_leads_out_of_what_is_published(
    http: httpx.Client, operator: dict[str, str], path: str
) -> None:
    answer = http.get(path, headers=operator)
    assert answer.status_code in (400, 404)
    assert b"PRIVATE" not in answer.content
    assert "error" in answer.json()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"token": 5}', b'{"a":1,"a":2}', b"\xff", b"{}"])
def test_a_malformed_enrolment_is_a_structured_400(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/enrol", content=body)
    assert answer.status_code == 400
    assert {"error", "code", "where", "remedy"} <= set(answer.json())


def test_an_endless_enrolment_is_cut_off(http: httpx.Client) -> None:
    answer = http.post("/v1/enrol", content=b'{"token": "' + b"x" * (1 << 20) + b'"}')
    assert (answer.status_code, answer.json()["code"]) == (400, "too_large")


def test_unknown_routes_and_methods_answer_json(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["code"] == "http_404"
    assert http.put("/v1/enrol").json()["code"] == "http_405"


def test_unknown_names_come_with_the_nearest(
    fleet: Fleet, http: httpx.Client, operator: dict[str, str]
) -> None:
    enrolled(fleet, http, "camera-1")
    answer = http.get("/v1/devices/camera-2", headers=operator)
    assert answer.status_code == 404
    assert "camera-1" in answer.json()["remedy"]


def test_operators_use_tokens_slots_pins_and_the_trail(
    fleet: Fleet, http: httpx.Client, operator: dict[str, str], tmp_path: Path
) -> None:
    made = http.post("/v1/tokens", json={"name": "cam-1", "ttl": 60}, headers=operator).json()
    request = enrol_request(made["token"], Ed25519PrivateKey.generate())
    assert http.post("/v1/enrol", content=request.to_bytes()).status_code == 200
    slot = {"name": "digits", "contract": CONTRACT.to_dict()}
    assert http.post("/v1/slots", json=slot, headers=operator).json()["created_now"] is True
    assert http.get("/v1/slots/digits", headers=operator).json()["contract"] == CONTRACT.to_dict()
    write_package(tmp_path / "p")
    add_release(fleet, tmp_path / "p", actor="test")
    pin = {"release": "digits@1.0.0"}
    refused = http.put("/v1/devices/cam-1/pins/digits", json=pin, headers=operator)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_signed")
    sign_release(fleet, "digits@1.0.0", actor="test")
    pinned = http.put("/v1/devices/cam-1/pins/digits", json=pin, headers=operator).json()
    assert pinned["pins"] == {"digits": "digits@1.0.0"}
    cleared = http.put("/v1/devices/cam-1/pins/digits", json={"release": None}, headers=operator).json()
    assert cleared["pins"] == {}
    acts = http.get("/v1/audit", headers=operator).json()["acts"]
    assert [act["verb"] for act in acts][:2] == ["device.pin", "device.pin"]
    assert http.get("/v1/status", headers=operator).json()["devices"] == {"enrolled": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tokens", {"ttl": -1}),
        ("/v1/tokens", {"ttl": "long"}),
        ("/v1/tokens", {"name": "a/b"}),
        ("/v1/slots", {"name": "a/b", "contract": {}}),
        ("/v1/slots", {"name": "x", "contract": 5}),
        ("/v1/slots", {"name": "x", "contract": {"inputs": [{"name": 5}]}}),
        ("/v1/slots", {}),
    ],
)
def test_bad_operator_input_is_a_structured_400(
    http: httpx.Client, operator: dict[str, str], path: str, body: Any
) -> None:
    answer = http.post(path, content=json.dumps(body), headers=operator)
    assert answer.status_code == 400, answer.text
    assert answer.json()["where"]


def test_the_client_raises_the_services_own_errors(fleet: Fleet, http: httpx.Client) -> None:
    url = str(http.base_url)
    with FleetClient(url, fleet.home.operator_token()) as client:
        assert client.get("/v1/devices") == {"devices": []}
        with pytest.raises(UnknownNameError) as caught:
            client.get("/v1/devices/cam-1")
        assert caught.value.exit_code == 2
    with FleetClient(url, "wrong") as client, pytest.raises(AccessError):
        client.get("/v1/devices")
    gone = FleetClient("http://127.0.0.1:9", "x")
    with gone, pytest.raises(UnavailableError, match="not reached"):
        gone.get("/v1/devices")


def test_tasks_start_in_order_and_stop_in_reverse_also_when_one_fails(fleet: Fleet) -> None:
    told: list[str] = []

    class Noted:
        def __init__(self, name: str, *, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        def start(self) -> None:
            if self.fails:
                raise RuntimeError(self.name)
            told.append(f"+{self.name}")

        def stop(self) -> None:
            told.append(f"-{self.name}")

    def live(tasks: list[Noted]) -> None:
        app = create_app(fleet, [Part(tasks=tasks)])

        async def once() -> None:
            async with app.router.lifespan_context(app):
                pass

        asyncio.run(once())

    live([Noted("a"), Noted("b")])
    assert told == ["+a", "+b", "-b", "-a"]
    told.clear()
    with pytest.raises(RuntimeError):
        live([Noted("a"), Noted("b", fails=True)])
    assert told == ["+a", "-a"]
