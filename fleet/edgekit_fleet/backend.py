"""The operations of `device`, `slot` and `release list` on an open fleet, as JSON-ready documents.

The service's routes are this over HTTP; `edgekit_fleet.remote` is the same through the service.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from edgekit.contract import Contract
from edgekit_fleet import audit
from edgekit_fleet.audit_head import verify_head
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import AuditRow, DeviceRow
from edgekit_fleet.devices import device_document, get_device, list_devices, set_pin
from edgekit_fleet.enrolment import list_tokens, make_token, token_document
from edgekit_fleet.releases import list_releases, newest_release, release_document, signed_release
from edgekit_fleet.slots import create_slot, get_slot, list_slots, slot_document


class LocalBackend:
    """`edgekit_fleet.remote.Backend` on an open fleet. `actor` stands in the audit trail."""

    def __init__(self, fleet: Fleet, *, actor: str) -> None:
        self._fleet, self._actor = fleet, actor

    def devices(self) -> dict[str, Any]:
        """All devices."""
        with self._fleet.database.read() as session:
            return {"devices": [device_document(row) for row in list_devices(session)]}

    def device(self, device: str) -> dict[str, Any]:
        """One device."""
        with self._fleet.database.read() as session:
            return device_document(get_device(session, device))

    def pin(self, device: str, slot: str, release: str | None) -> dict[str, Any]:
        """Pin a slot of a device to a signed release, or take the pin away."""
        with self._fleet.database.write() as session:
            before = dict(get_device(session, device).pins)
            get_slot(session, slot)
            if release is not None:
                signed_release(session, release)
            set_pin(session, device, slot, release)
            session.flush()
            row = get_device(session, device)
            audit.record(
                session,
                at=self._fleet.clock.now(),
                actor=self._actor,
                verb="device.pin",
                subject=device,
                before=before,
                after=dict(row.pins),
            )
            return device_document(row)

    def tokens(self) -> dict[str, Any]:
        """All tokens, without their secrets."""
        with self._fleet.database.read() as session:
            return {"tokens": [token_document(row) for row in list_tokens(session)]}

    def token(self, name: str, ttl: float) -> dict[str, Any]:
        """A new one-time token."""
        return make_token(self._fleet, name=name, ttl=ttl, actor=self._actor)

    def slots(self) -> dict[str, Any]:
        """All slots."""
        with self._fleet.database.read() as session:
            return {"slots": [slot_document(session, row) for row in list_slots(session)]}

    def slot(self, name: str) -> dict[str, Any]:
        """One slot."""
        with self._fleet.database.read() as session:
            return slot_document(session, get_slot(session, name))

    def create_slot(self, name: str, contract: Contract) -> dict[str, Any]:
        """A new slot."""
        return create_slot(self._fleet, name, contract, actor=self._actor)

    def releases(self) -> dict[str, Any]:
        """All releases."""
        with self._fleet.database.read() as session:
            return {"releases": [release_document(row) for row in list_releases(session)]}

    def release(self, ref: str) -> dict[str, Any]:
        """The newest revision of one release."""
        with self._fleet.database.read() as session:
            return release_document(newest_release(session, ref))

    def audit(self, limit: int) -> dict[str, Any]:
        """The newest acts, newest first, after the whole chain and its signed head were checked."""
        with self._fleet.database.read() as session:
            count = audit.verify_chain(session)
            head = verify_head(self._fleet.home, self._fleet.repository, session)
            rows = session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(limit))
            return {"count": count, "head": head, "acts": [audit.act_document(row) for row in rows]}

    def status(self) -> dict[str, Any]:
        """The fleet in figures."""
        fleet = self._fleet
        with fleet.database.read() as session:
            query = select(DeviceRow.state, func.count()).group_by(DeviceRow.state)
            counts = {row[0]: row[1] for row in session.execute(query)}
        return {
            "tenant": fleet.tenant,
            "broker": fleet.broker.kind if fleet.broker else None,
            "mqtt_host": fleet.broker.host if fleet.broker else None,
            "mqtt_port": fleet.broker.port if fleet.broker else None,
            "connected": fleet.transport.connected if fleet.transport else False,
            "devices": counts,
            "now": fleet.clock.now(),
        }
