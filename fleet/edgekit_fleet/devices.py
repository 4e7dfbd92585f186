"""The device register: look-ups, what devices report about themselves, pins.

Functions on a session; the caller commits. Reducers are idempotent and drop what is older than what
is known (QoS 1 delivers twice and out of order after reconnects).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import DeviceFacts, Presence, Reported
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.errors import UnknownNameError

ENROLLED, ONLINE, OFFLINE, LOST = "enrolled", "online", "offline", "lost"


def list_devices(session: Session) -> Sequence[DeviceRow]:
    """All devices by id."""
    return session.scalars(select(DeviceRow).order_by(DeviceRow.id)).all()


def find_device(session: Session, device: str) -> DeviceRow | None:
    """A device, None when there is none of that id."""
    return session.get(DeviceRow, device)


def get_device(session: Session, device: str) -> DeviceRow:
    """A device.

    Raises:
        UnknownNameError: none of that id, with the nearest ids.
    """
    row = session.get(DeviceRow, device)
    if row is None:
        raise UnknownNameError.of("device", device, session.scalars(select(DeviceRow.id)))
    return row


def record_presence(session: Session, device: str, presence: Presence, *, now: float) -> bool:
    """Reduce a birth or will; False when it is of an older session or of an unknown device."""
    row = session.get(DeviceRow, device)
    if row is None or presence.session < row.session:
        return False
    row.session, row.boot_id, row.state = presence.session, presence.boot_id, presence.state
    if presence.state == ONLINE:
        row.last_seen = now
    return True


def record_facts(session: Session, device: str, facts: DeviceFacts, *, now: float) -> bool:
    """Keep what a device says it is; False for an unknown device. Its stratum follows the facts."""
    row = session.get(DeviceRow, device)
    if row is None:
        return False
    row.facts, row.labels, row.hardware = facts.to_dict(), dict(facts.labels), facts.hardware
    row.last_seen = now
    return True


def record_reported(session: Session, device: str, reported: Reported, *, now: float) -> bool:
    """Keep a device's newest report; False when it is not newer than the one known."""
    row = session.get(DeviceRow, device)
    if row is None:
        return False
    if row.reported is not None:
        known = Reported.from_dict(row.reported)
        if (reported.boot_id, reported.seq) <= (known.boot_id, known.seq):
            return False
    row.reported, row.last_seen = reported.to_dict(), now
    return True


def record_seen(session: Session, device: str, *, now: float) -> None:
    """Note a sign of life."""
    row = session.get(DeviceRow, device)
    if row is not None:
        row.last_seen = now


def facts_of(row: DeviceRow) -> DeviceFacts:
    """The device's facts as the document."""
    return DeviceFacts.from_dict(row.facts)


def set_pin(session: Session, device: str, slot: str, release: str | None) -> None:
    """Pin `slot` of a device to `release`, so that rollouts leave it alone; None takes the pin away."""
    row = get_device(session, device)
    pins = {name: ref for name, ref in row.pins.items() if name != slot}
    row.pins = {**pins, slot: release} if release else pins


def device_document(row: DeviceRow) -> dict[str, Any]:
    """The device as JSON for operators; no credentials."""
    return {
        "id": row.id,
        "hardware": row.hardware,
        "state": row.state,
        "enrolled": row.enrolled,
        "last_seen": row.last_seen,
        "labels": dict(row.labels),
        "pins": dict(row.pins),
        "gen": row.gen,
        "public_key": row.public_key,
        "facts": row.facts,
        "reported": row.reported,
    }
