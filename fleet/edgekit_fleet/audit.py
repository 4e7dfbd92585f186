"""The audit trail: who did what, append-only, each row chained to the one before by its hash.

A row is written in the same transaction as the act. The chain shows later changes and removals
anywhere but at the very end, which the signed head shows (`edgekit_fleet.audit_head`); SQLite refuses
UPDATE and DELETE on the table besides.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.digest import canonical_json, sha256_hex
from edgekit.errors import TrustError
from edgekit_fleet.db.tables import AuditRow

NEWEST = "audit.newest"
"""Where a session keeps (in its `info`) the newest act it has recorded."""

GENESIS = "0" * 64
SERVICE = "service"


def local_actor() -> str:
    """The operating system's name for whoever runs this process."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):  # a uid without a name, as in some containers
        return "local:unknown"


def record(
    session: Session,
    *,
    at: float,
    actor: str,
    verb: str,
    subject: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> str:
    """Append one act to the trail, inside a write session; returns its hash.

    Args:
        session: a write session, so that no other writer comes between.
        at: seconds since the epoch.
        actor: ``local:<user>``, ``operator``, ``device:<id>`` or ``service``.
        verb: for example ``release.sign``.
        subject: what it was done to.
        before: JSON-ready state before.
        after: JSON-ready state after.
    """
    last = session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(1).with_for_update()).first()
    row = AuditRow(
        at=at,
        actor=actor,
        verb=verb,
        subject=subject,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        prev=last.hash if last else GENESIS,
        hash="",
    )
    row.hash = _hash(row)
    session.add(row)
    session.flush()
    session.info[NEWEST] = {"id": row.id, "hash": row.hash, "at": row.at}
    return row.hash


def verify_chain(session: Session) -> int:
    """Recompute every hash; returns the number of rows.

    Raises:
        TrustError: a row was changed, removed or put in between.
    """
    previous, count = GENESIS, 0
    for row in session.scalars(select(AuditRow).order_by(AuditRow.id)):
        if row.prev != previous or row.hash != _hash(row):
            raise TrustError(
                f"the audit trail is broken at row {row.id}",
                where="audit",
                remedy="compare with a backup: rows were changed or removed",
                code="audit_broken",
            )
        previous, count = row.hash, count + 1
    return count


def _hash(row: AuditRow) -> str:
    return sha256_hex(canonical_json({**_facts(row), "prev": row.prev}))


def _facts(row: AuditRow) -> dict[str, Any]:
    return {
        "at": row.at,
        "actor": row.actor,
        "verb": row.verb,
        "subject": row.subject,
        "before": row.before,
        "after": row.after,
    }


def act_document(row: AuditRow) -> dict[str, Any]:
    """One act as JSON."""
    return {"id": row.id, **_facts(row), "hash": row.hash}
