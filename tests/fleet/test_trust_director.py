"""Desired documents: signed, bound to a device, their generation only grows, also through a crash."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import select

from edgekit.documents import Desired, Envelope, SlotDesire
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import DesiredRow, DeviceRow
from edgekit_fleet.desired import (
    current,
    current_slots,
    forget_published,
    issue,
    mark_published,
    unpublished,
)
from edgekit_fleet.errors import HomeError, UnknownNameError
from edgekit_fleet.trust.director import Director
from edgekit_fleet.trust.keys import key_path
from tests.fleet.homes import FACTS

SLOT = SlotDesire(
    release="digits@1.0.0", package="sha256:" + "a" * 64, variant="v", digest="sha256:" + "b" * 64
)


@pytest.fixture
def device(base_fleet: Fleet) -> str:
    with base_fleet.database.write() as session:
        session.add(
            DeviceRow(
                id="cam-1",
                hardware="x86-64-litert",
                facts=FACTS.to_dict(),
                labels={},
                state="enrolled",
                enrolled=0.0,
                public_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
                password="",
                pins={},
                gen=0,
            )
        )
    return "cam-1"


def director(fleet: Fleet) -> Director:
    return Director.load(fleet.home.keys)


def issued(fleet: Fleet, device: str) -> Envelope:
    with fleet.database.write() as session:
        return issue(
            session, director(fleet), device=device, deployment="r-1", slots={"digits": SLOT}, now=5.0
        )


def verify(fleet: Fleet, envelope: Envelope) -> None:
    """As a device does: the key from the signed target, the bytes as they came."""
    signature = envelope.signatures[0]
    key = fleet.repository.director_keys()[signature.keyid]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key["keyval"]["public"]))
    public.verify(bytes.fromhex(signature.sig), envelope.payload())


def test_a_device_can_verify_what_the_director_signed(base_fleet: Fleet, device: str) -> None:
    envelope = Envelope.parse(issued(base_fleet, device).to_bytes())
    verify(base_fleet, envelope)
    desired = Desired.from_dict(envelope.signed)
    assert (desired.device, desired.hardware, desired.gen) == ("cam-1", "x86-64-litert", 1)
    assert desired.slots["digits"] == SLOT


@pytest.mark.parametrize("member", ["device", "hardware", "gen", "deployment", "slots", "issued"])
def test_a_changed_member_breaks_the_signature(base_fleet: Fleet, device: str, member: str) -> None:
    envelope = issued(base_fleet, device)
    changed = {"device": "cam-2", "hardware": "rpi4", "gen": 9, "deployment": "x", "slots": {}, "issued": 1.0}
    forged = Envelope.from_dict(
        {**envelope.to_dict(), "signed": {**envelope.signed, member: changed[member]}}
    )
    with pytest.raises(InvalidSignature):
        verify(base_fleet, forged)


def test_the_generation_only_grows_also_back_to_an_older_release(base_fleet: Fleet, device: str) -> None:
    gens = [Desired.from_dict(issued(base_fleet, device).signed).gen for _ in range(3)]
    assert gens == [1, 2, 3]


def test_a_generation_is_stored_before_it_is_published(base_fleet: Fleet, device: str) -> None:
    envelope = issued(base_fleet, device)
    with base_fleet.database.read() as session:
        assert unpublished(session) == [("cam-1", 1, envelope.to_bytes())]
        assert current(session, device) == envelope
        assert current_slots(session, device) == {"digits": SLOT}


def test_a_crash_inside_the_transaction_gives_nothing_out(base_fleet: Fleet, device: str) -> None:
    def interrupted() -> None:
        with base_fleet.database.write() as session:
            issue(session, director(base_fleet), device=device, deployment="r", slots={}, now=1.0)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        interrupted()
    with base_fleet.database.read() as session:
        assert unpublished(session) == []
        assert session.get_one(DeviceRow, device).gen == 0


def test_what_the_broker_has_taken_is_not_published_again_unless_it_forgot(
    base_fleet: Fleet, device: str
) -> None:
    issued(base_fleet, device)
    with base_fleet.database.write() as session:
        mark_published(session, {"cam-1": 1})
    with base_fleet.database.read() as session:
        assert unpublished(session) == []
    issued(base_fleet, device)
    with base_fleet.database.write() as session:
        mark_published(session, {"cam-1": 1, "gone": 4})
        assert [gen for _, gen, _ in unpublished(session)] == [2]
        mark_published(session, {"cam-1": 2})
        forget_published(session)
        assert session.scalars(select(DesiredRow.published)).all() == [0]


def test_an_unknown_device_gets_nothing_and_the_nearest_is_named(base_fleet: Fleet, device: str) -> None:
    with pytest.raises(UnknownNameError, match="cam-1"), base_fleet.database.write() as session:
        issue(session, director(base_fleet), device="cam-l", deployment="r", slots={}, now=1.0)


def test_without_the_director_key_nothing_is_signed(base_fleet: Fleet) -> None:
    key_path(base_fleet.home.keys, "director").unlink()
    with pytest.raises(HomeError, match="director key is not here"):
        director(base_fleet)
