"""What each device shall run, as it is stored: signed, with a generation that only grows.

`issue` raises the device's generation, signs and stores in one transaction; only afterwards is the
document published (`unpublished`, `mark_published`): a crash in between publishes it later, and a
generation that a device has seen is never given out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import Desired, Envelope, SlotDesire
from edgekit_fleet.db.tables import DesiredRow
from edgekit_fleet.devices import get_device
from edgekit_fleet.trust.director import Director


def issue(
    session: Session,
    director: Director,
    *,
    device: str,
    deployment: str,
    slots: Mapping[str, SlotDesire],
    now: float,
    attempt: int = 1,
) -> Envelope:
    """Sign a new desired document for `device` and store it (inside a write session).

    `slots` is the whole desired state, not a change of it.

    Raises:
        UnknownNameError: no such device.
    """
    row = get_device(session, device)
    row.gen += 1
    envelope = director.sign_desired(
        Desired(
            device=device,
            hardware=row.hardware,
            gen=row.gen,
            issued=now,
            deployment=deployment,
            attempt=attempt,
            slots=slots,
        )
    )
    stored = session.get(DesiredRow, device)
    if stored is None:
        stored = DesiredRow(device=device, published=0)
        session.add(stored)
    stored.gen, stored.envelope, stored.issued = row.gen, envelope.to_dict(), now
    session.flush()
    return envelope


def sign_again(session: Session, director: Director) -> None:
    """Sign every stored document anew, content and generation as they are, and publish it again."""
    for row in session.scalars(select(DesiredRow)):
        row.envelope = director.sign_document(dict(row.envelope["signed"])).to_dict()
        row.published = 0


def current(session: Session, device: str) -> Envelope | None:
    """The newest signed document of a device, None when there never was one."""
    row = session.get(DesiredRow, device)
    return Envelope.from_dict(row.envelope) if row else None


def current_slots(session: Session, device: str) -> Mapping[str, SlotDesire]:
    """What the newest document asks for, by slot; empty without one."""
    envelope = current(session, device)
    return Desired.from_dict(envelope.signed).slots if envelope else {}


def unpublished(session: Session, *, limit: int = 500) -> Sequence[tuple[str, int, bytes]]:
    """(device, gen, payload) of stored documents the broker has not taken yet, oldest first."""
    query = (
        select(DesiredRow)
        .where(DesiredRow.published < DesiredRow.gen)
        .order_by(DesiredRow.issued)
        .limit(limit)
    )
    return [
        (row.device, row.gen, Envelope.from_dict(row.envelope).to_bytes()) for row in session.scalars(query)
    ]


def mark_published(session: Session, published: Mapping[str, int]) -> None:
    """Record that the broker has taken these (device → gen)."""
    for device, gen in published.items():
        row = session.get(DesiredRow, device)
        if row is not None and row.published < gen:
            row.published = gen


def forget_published(session: Session) -> None:
    """Publish everything again, for a broker that has lost its retained messages."""
    for row in session.scalars(select(DesiredRow)):
        row.published = 0
