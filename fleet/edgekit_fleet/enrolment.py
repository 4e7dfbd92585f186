"""Enrolment: a one-time token and a key made on the device become a device with its own credential.

A token is ``<secret>.<sha256 of the TUF root>``: the device pins the root it will trust before it
trusts anything else. Only the secret's hash is stored. The same key with the same token gets the same
answer again, so that an answer lost on the way costs nothing; another key never does.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.digest import sha256_hex
from edgekit.documents import DeviceFacts, EnrolAnswer, EnrolRequest
from edgekit.errors import DocumentError, UsageError
from edgekit.profile import match_profiles
from edgekit.topics import check_word
from edgekit_fleet import audit
from edgekit_fleet.broker.credentials import check_password, derive_password, hash_password, home_secret
from edgekit_fleet.broker.files import EVERYWHERE
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import DeviceRow, TokenRow
from edgekit_fleet.devices import ENROLLED
from edgekit_fleet.errors import AccessError, BrokerError, ConflictError

DAY = 86_400.0
_RESERVED = "edgekit-service"
_PUBLIC = re.compile(r"[0-9a-f]{64}\Z")
_PROOF = re.compile(r"[0-9a-f]{128}\Z")


def make_token(
    fleet: Fleet, *, name: str = "", ttl: float = DAY, actor: str, dry_run: bool = False
) -> dict[str, Any]:
    """Make a one-time enrolment token; the answer's ``token`` is shown once and never stored.

    Args:
        fleet: with an initialised repository, whose root the token pins.
        name: id the device will get; empty leaves it to the device.
        ttl: seconds until it expires.
        actor: for the audit trail.
        dry_run: check only; ``token`` is then empty.

    Raises:
        UsageError: `name` is no id, or `ttl` is not positive.
        ConflictError: a device has that name already.
        HomeError: there is no root to pin yet.
    """
    if ttl <= 0:
        raise UsageError("seconds above 0 were expected", where="ttl")
    if name:
        _check_id(fleet, name, where="name")
    root = sha256_hex(fleet.repository.root_bytes())
    # Hex, because a token that begins with a dash would be taken for an option on a command line.
    secret = secrets.token_hex(24)
    now = fleet.clock.now()
    row = TokenRow(
        id=secrets.token_hex(6),
        secret=sha256_hex(secret.encode()),
        name=name,
        created=now,
        expires=now + ttl,
        used=None,
        device=None,
    )
    with fleet.database.write() as session:
        if name and session.get(DeviceRow, name) is not None:
            raise ConflictError("a device has this name already", where=name, code="name_taken")
        if dry_run:
            return {**token_document(row), "token": ""}
        session.add(row)
        document = token_document(row)
        audit.record(session, at=now, actor=actor, verb="device.token", subject=row.id, after=document)
    return {**document, "token": f"{secret}.{root}"}


def list_tokens(session: Session) -> Sequence[TokenRow]:
    """All tokens, newest first."""
    return session.scalars(select(TokenRow).order_by(TokenRow.created.desc())).all()


def token_document(row: TokenRow) -> dict[str, Any]:
    """A token as JSON, without its secret."""
    return {
        "id": row.id,
        "name": row.name or None,
        "created_at": row.created,
        "expires_at": row.expires,
        "used_at": row.used,
        "device": row.device,
    }


def enrol(fleet: Fleet, request: EnrolRequest, *, url: str) -> EnrolAnswer:
    """Make a device of whoever holds a token and proves to hold its key.

    Args:
        fleet: with a broker, which then knows the device.
        request: as received.
        url: the service's address as the device reached it.

    Raises:
        AccessError: token unknown, expired, used by another key, or the proof does not hold.
        ConflictError: the name is taken.
        BrokerError: there is no broker to admit the device to.
    """
    if fleet.broker is None:
        raise BrokerError("this service has no broker")
    _check_proof(request)
    secret, _, root = request.token.partition(".")
    if root != sha256_hex(fleet.repository.root_bytes()):
        raise AccessError("the token is of another fleet", where="enrol.token", code="foreign_token")
    key = home_secret(fleet.home)
    with fleet.database.write() as session:
        token = session.scalars(
            select(TokenRow).where(TokenRow.secret == sha256_hex(secret.encode()))
        ).first()
        device = _device_for(fleet, session, token, request)
        password = derive_password(key, "device", device.id, device.public_key)
        if not check_password(password, device.password):
            device.password = hash_password(password)
        row_id, hardware = device.id, device.hardware
    fleet.broker.admit(lambda: password_hashes(fleet))
    settings = fleet.settings
    return EnrolAnswer(
        device=row_id,
        tenant=settings.tenant,
        hardware=hardware,
        url=settings.public_url or url,
        mqtt_host=settings.broker.public_host or _broker_host(fleet, url),
        mqtt_port=fleet.broker.port,
        mqtt_ca=fleet.broker.ca,
        username=row_id,
        password=password,
        root=fleet.repository.root_bytes().decode(),
    )


def password_hashes(fleet: Fleet) -> Mapping[str, str]:
    """Device id → password hash, of all devices."""
    with fleet.database.read() as session:
        return {row.id: row.password for row in session.execute(select(DeviceRow.id, DeviceRow.password))}


def _device_for(fleet: Fleet, session: Session, token: TokenRow | None, request: EnrolRequest) -> DeviceRow:
    """The device a valid token leads to: known again, or new."""
    now = fleet.clock.now()
    if token is None:
        raise AccessError("the token is unknown", where="enrol.token", code="unknown_token")
    if token.device is not None:
        device = session.get_one(DeviceRow, token.device)
        if device.public_key != request.public_key:
            raise AccessError(
                "the token was used by another device",
                where="enrol.token",
                remedy="make a new one: edgekit device token",
                code="token_used",
            )
        return device
    if token.expires <= now:
        raise AccessError(
            "the token has expired",
            where="enrol.token",
            remedy="make a new one: edgekit device token",
            code="token_expired",
        )
    known = session.scalars(select(DeviceRow).where(DeviceRow.public_key == request.public_key)).first()
    device = known if known is not None else _new_device(fleet, session, token, request, now)
    token.used, token.device = now, device.id
    audit.record(
        session,
        at=now,
        actor=f"device:{device.id}",
        verb="device.enrol",
        subject=device.id,
        after={"hardware": device.hardware, "public_key": device.public_key, "token": token.id},
    )
    return device


def _new_device(
    fleet: Fleet, session: Session, token: TokenRow, request: EnrolRequest, now: float
) -> DeviceRow:
    name = token.name or request.name or f"dev-{request.public_key[:10]}"
    _check_id(fleet, name, where="enrol.name")
    if session.get(DeviceRow, name) is not None:
        raise ConflictError(
            f"a device {name!r} exists already, with another key",
            where="enrol.name",
            remedy="choose another name, or a token without one",
            code="name_taken",
        )
    facts = request.facts
    device = DeviceRow(
        id=name,
        hardware=_hardware(facts),
        facts=facts.to_dict(),
        labels=dict(facts.labels),
        state=ENROLLED,
        enrolled=now,
        last_seen=now,
        session=-1,
        boot_id="",
        pins={},
        gen=0,
        reported=None,
        public_key=request.public_key,
        password="",
    )
    session.add(device)
    session.flush()
    return device


def _hardware(facts: DeviceFacts) -> str:
    """The device's stratum: as it found itself, else as its facts match here."""
    if facts.profiles:
        return facts.hardware
    return next(iter(match_profiles(facts)), "unknown")


def _check_proof(request: EnrolRequest) -> None:
    if not (_PUBLIC.match(request.public_key) and _PROOF.match(request.proof)):
        raise DocumentError("an Ed25519 key and signature in lower-case hex were expected", where="enrol")
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(request.public_key))
        key.verify(bytes.fromhex(request.proof), f"edgekit-enrol:{request.token}".encode())
    except (InvalidSignature, ValueError) as error:
        raise AccessError(
            "the proof is not a signature of this token by this key", where="enrol.proof", code="bad_proof"
        ) from error


def _check_id(fleet: Fleet, name: str, *, where: str) -> None:
    try:
        check_word(name, where=where)
    except DocumentError as error:
        raise UsageError(error.message, where=where) from error
    if name.startswith(_RESERVED) or name in fleet.settings.broker.producers:
        raise ConflictError("this name is reserved", where=where, code="name_taken")


def _broker_host(fleet: Fleet, url: str) -> str:
    """Where devices reach the broker: the host of the service when the broker listens everywhere."""
    assert fleet.broker is not None
    host = fleet.broker.host
    if host not in EVERYWHERE:
        return host
    return urlsplit(url).hostname or host
