"""Enrolment by threat: tokens guessed, used twice, expired, answers lost, names stolen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from edgekit.digest import sha256_hex
from edgekit.documents import EnrolAnswer
from edgekit.errors import DocumentError, UsageError
from edgekit_fleet.broker.credentials import check_password
from edgekit_fleet.context import Fleet, open_fleet
from edgekit_fleet.db.tables import DeviceRow, TokenRow
from edgekit_fleet.enrolment import enrol, list_tokens, make_token
from edgekit_fleet.errors import AccessError, BrokerError, ConflictError
from edgekit_fleet.home import Home
from tests.conftest import FrozenClock
from tests.fleet.homes import FACTS, enrol_request

URL = "http://127.0.0.1:8420"


class Admissions:
    """A broker link that remembers whom it was told to admit."""

    kind, host, port, ca = "sim", "127.0.0.1", 1883, ""

    def __init__(self) -> None:
        self.known: Mapping[str, str] = {}
        self.reloads = 0

    def admit(self, devices: Callable[[], Mapping[str, str]]) -> None:
        self.known, self.reloads = devices(), self.reloads + 1


@pytest.fixture
def broker() -> Admissions:
    return Admissions()


@pytest.fixture
def fleet(base_fleet: Fleet, broker: Admissions) -> Fleet:
    return replace(base_fleet, broker=broker)


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def token(fleet: Fleet, **options: Any) -> str:
    return str(make_token(fleet, actor="test", **options)["token"])


def enrolled(fleet: Fleet, key: Ed25519PrivateKey, given: str, **options: Any) -> EnrolAnswer:
    return enrol(fleet, enrol_request(given, key, **options), url=URL)


def test_a_device_enrols_and_the_broker_knows_it(
    fleet: Fleet, broker: Admissions, key: Ed25519PrivateKey
) -> None:
    answer = enrolled(fleet, key, token(fleet, name="cam-1"))
    assert (answer.device, answer.username, answer.hardware) == ("cam-1", "cam-1", "x86-64-litert")
    assert (answer.url, answer.mqtt_host, answer.mqtt_port) == (URL, "127.0.0.1", 1883)
    assert check_password(answer.password, broker.known["cam-1"])
    assert answer.root.encode() == fleet.repository.root_bytes()
    with fleet.database.read() as session:
        row = session.get_one(DeviceRow, "cam-1")
        assert row.facts == FACTS.to_dict()
        assert row.labels == {"site": "lab"}
        assert answer.password not in row.password


def test_the_token_pins_the_root_the_device_will_trust(fleet: Fleet) -> None:
    secret, _, root = token(fleet).partition(".")
    assert root == sha256_hex(fleet.repository.root_bytes())
    assert len(secret) >= 32


def test_a_token_never_looks_like_an_option(fleet: Fleet) -> None:
    for _ in range(20):
        assert re.fullmatch(r"[0-9a-f]{48}\.[0-9a-f]{64}", token(fleet))


def test_a_token_is_good_once(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    given = token(fleet)
    enrolled(fleet, key, given)
    with pytest.raises(AccessError) as caught:
        enrolled(fleet, Ed25519PrivateKey.generate(), given)
    assert caught.value.code == "token_used"


def test_a_lost_answer_is_given_again_to_the_same_key(
    fleet: Fleet, key: Ed25519PrivateKey, clock: FrozenClock
) -> None:
    given = token(fleet, ttl=60.0)
    first = enrolled(fleet, key, given)
    clock.advance(3600)
    assert enrolled(fleet, key, given) == first
    with fleet.database.read() as session:
        assert len(session.scalars(select(DeviceRow)).all()) == 1


def test_an_expired_token_is_refused(fleet: Fleet, key: Ed25519PrivateKey, clock: FrozenClock) -> None:
    given = token(fleet, ttl=60.0)
    clock.advance(60)
    with pytest.raises(AccessError) as caught:
        enrolled(fleet, key, given)
    assert caught.value.code == "token_expired"


def test_a_guessed_token_is_refused(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    root = token(fleet).partition(".")[2]
    with pytest.raises(AccessError) as caught:
        enrolled(fleet, key, f"guess.{root}")
    assert caught.value.code == "unknown_token"


def test_a_token_of_another_fleet_is_refused(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    secret = token(fleet).partition(".")[0]
    with pytest.raises(AccessError) as caught:
        enrolled(fleet, key, f"{secret}.{'0' * 64}")
    assert caught.value.code == "foreign_token"


def test_only_the_holder_of_the_key_can_enrol_it(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    given = token(fleet)
    honest, other = enrol_request(given, key), enrol_request(given, Ed25519PrivateKey.generate())
    for forged in (replace(honest, proof=other.proof), replace(honest, public_key=other.public_key)):
        with pytest.raises(AccessError) as caught:
            enrol(fleet, forged, url=URL)
        assert caught.value.code == "bad_proof"
    assert enrol(fleet, honest, url=URL).device.startswith("dev-")


def test_a_proof_for_another_token_cannot_be_replayed(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    seen = enrol_request(token(fleet), key)
    with pytest.raises(AccessError):
        enrol(fleet, replace(seen, token=token(fleet)), url=URL)


@pytest.mark.parametrize(
    ("member", "value"), [("public_key", "xyz"), ("proof", ""), ("public_key", "A" * 64)]
)
def test_a_malformed_key_or_proof_is_refused(
    fleet: Fleet, key: Ed25519PrivateKey, member: str, value: str
) -> None:
    request = replace(enrol_request(token(fleet), key), **{member: value})  # type: ignore[arg-type]  # a str
    with pytest.raises(DocumentError):
        enrol(fleet, request, url=URL)


def test_a_name_is_never_taken_from_another_device(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    first = enrolled(fleet, key, token(fleet), name="cam-1")
    with pytest.raises(ConflictError) as caught:
        enrolled(fleet, Ed25519PrivateKey.generate(), token(fleet), name="cam-1")
    assert caught.value.code == "name_taken"
    with pytest.raises(ConflictError):
        token(fleet, name="cam-1")
    assert first.device == "cam-1"


def test_the_operators_name_goes_before_the_devices_wish(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    assert enrolled(fleet, key, token(fleet, name="dock-7"), name="admin").device == "dock-7"


@pytest.mark.parametrize(
    "name", ["edgekit-service-default", "edgekit-service-x", "a/b", "+", "#", "a b", "x" * 65]
)
def test_a_device_cannot_be_called_like_the_service_or_a_wildcard(
    fleet: Fleet, key: Ed25519PrivateKey, name: str
) -> None:
    given = token(fleet)
    with pytest.raises((ConflictError, UsageError)):
        enrolled(fleet, key, given, name=name)
    assert enrolled(fleet, key, given).device.startswith("dev-")


def test_a_known_key_with_a_new_token_stays_the_device_it_was(
    fleet: Fleet, key: Ed25519PrivateKey, broker: Admissions
) -> None:
    first = enrolled(fleet, key, token(fleet, name="cam-1"))
    again = enrolled(fleet, key, token(fleet, name="cam-2"))
    assert again == first
    assert list(broker.known) == ["cam-1"]


def test_the_stratum_is_the_first_matching_profile(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    unmatched = replace(FACTS, profiles=())
    assert enrolled(fleet, key, token(fleet), facts=unmatched).hardware == "x86-64-litert"
    strange = replace(FACTS, profiles=(), machine="riscv64")
    other = Ed25519PrivateKey.generate()
    assert enrolled(fleet, other, token(fleet), facts=strange).hardware == "unknown"


def test_without_a_broker_nobody_enrols_and_the_token_stays_good(
    base_fleet: Fleet, fleet: Fleet, key: Ed25519PrivateKey
) -> None:
    given = token(base_fleet)
    with pytest.raises(BrokerError):
        enrolled(base_fleet, key, given)
    enrolled(fleet, key, given)


def test_neither_token_nor_password_stands_in_the_database(fleet: Fleet, key: Ed25519PrivateKey) -> None:
    given = token(fleet)
    answer = enrolled(fleet, key, given)
    secret = given.partition(".")[0]
    fleet.database.close()
    everything = b"".join(path.read_bytes() for path in fleet.home.path.glob("fleet.db*"))
    assert secret.encode() not in everything
    assert answer.password.encode() not in everything
    with fleet.database.read() as session:
        assert [row.device for row in list_tokens(session)] == [answer.device]


def test_a_lost_secret_gives_other_passwords_and_old_tokens_stay_with_their_key(
    fleet: Fleet, key: Ed25519PrivateKey
) -> None:
    given = token(fleet)
    first = enrolled(fleet, key, given)
    (fleet.home.broker / "secret").unlink()
    again = enrolled(fleet, key, given)
    assert again.password != first.password
    with fleet.database.read() as session:
        hashed = session.scalars(select(DeviceRow.password)).one()
    assert check_password(again.password, hashed)


@pytest.mark.parametrize("ttl", [0.0, -1.0])
def test_a_token_that_never_was_good_is_refused(fleet: Fleet, ttl: float) -> None:
    with pytest.raises(UsageError):
        token(fleet, ttl=ttl)


def test_a_dry_run_makes_no_token(fleet: Fleet) -> None:
    assert token(fleet, dry_run=True) == ""
    with fleet.database.read() as session:
        assert session.scalars(select(TokenRow)).all() == []


def test_a_copied_home_serves_the_same_devices(
    fleet: Fleet, key: Ed25519PrivateKey, broker: Admissions
) -> None:
    """What a backup must hold: the same home gives the same answers."""
    given = token(fleet)
    first = enrolled(fleet, key, given)
    fleet.database.close()
    copy = fleet.home.path.with_name("copy")
    shutil.copytree(fleet.home.path, copy)
    restored = open_fleet(Home(path=copy), clock=fleet.clock, broker=broker)
    assert enrolled(restored, key, given) == first
    restored.database.close()
