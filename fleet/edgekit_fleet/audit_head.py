"""The signed head of the audit trail, by which a cut-off tail is noticed.

The chain alone shows changes and removals anywhere but at its end: without its last acts it is still a
whole chain. So after each commit that added an act, the newest act's id and hash are signed with the
director key into ``audit.head``. The trail must hold that act; it may hold newer ones (a crash between
commit and head). Whoever can write the home but has no director key can cut the trail only back to a
head that he kept: note the head elsewhere (`edgekit fleet audit` prints it) to see that too.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature
from sqlalchemy.orm import Session

from edgekit.digest import canonical_json
from edgekit.errors import EdgekitError, StorageError, TrustError
from edgekit.files import atomic_write, read_bytes
from edgekit_fleet.audit import NEWEST
from edgekit_fleet.db.tables import AuditRow
from edgekit_fleet.home import Home
from edgekit_fleet.trust.director import Director
from edgekit_fleet.trust.keys import DIRECTOR, key_path
from edgekit_fleet.trust.repository import Repository

_log = logging.getLogger(__name__)


def sign_head(home: Home, session: Session) -> None:
    """After a commit: sign the newest act, if the session added one. What goes wrong is logged: the act
    is done, and the next one signs both."""
    newest = session.info.pop(NEWEST, None)
    if newest is None or not key_path(home.keys, DIRECTOR).is_file():
        return
    try:
        with home.locked("audit"):
            before = _read(home)
            if before is None or before["signed"]["id"] < newest["id"]:
                envelope = Director.load(home.keys).sign_document(dict(newest))
                atomic_write(home.audit_head, envelope.to_bytes(), mode=0o600)
    except EdgekitError as error:
        _log.error("the head of the audit trail is not signed: %s", error)


def verify_head(home: Home, repository: Repository, session: Session) -> dict[str, Any] | None:
    """Check that the trail reaches at least to the signed head; the head, None before there are keys.

    Raises:
        TrustError: the head is missing or not signed by this fleet, or the trail ends before it.
    """
    if not repository.exists:
        return None
    envelope = _read(home)
    if envelope is None:
        raise _broken(home, "the signed head of the audit trail is missing or unreadable")
    head: dict[str, Any] = envelope["signed"]
    if not _signed(envelope, repository):
        raise _broken(home, "the head of the audit trail is not signed by this fleet's director")
    row = session.get(AuditRow, head["id"])
    if row is None or row.hash != head["hash"]:
        raise _broken(home, f"the audit trail was cut: it lacks act {head['id']}, its signed head")
    return head


def _signed(envelope: dict[str, Any], repository: Repository) -> bool:
    keys = repository.director_keys()
    payload = canonical_json(envelope["signed"])
    for item in envelope["signatures"]:
        if item["keyid"] in keys:
            key = Key.from_dict(item["keyid"], dict(keys[item["keyid"]]))
            try:
                key.verify_signature(Signature(item["keyid"], item["sig"]), payload)
            except (UnverifiedSignatureError, ValueError):
                continue
            return True
    return False


def _read(home: Home) -> dict[str, Any] | None:
    """The head's envelope, None where it is missing or not of the form that `sign_head` writes."""
    try:
        value = json.loads(read_bytes(home.audit_head, limit=65_536))
        signed, signatures = value["signed"], value["signatures"]
        fine = isinstance(signed["id"], int) and isinstance(signed["hash"], str)
        fine = fine and all({"keyid", "sig"} <= set(item) for item in signatures)
    except (StorageError, ValueError, KeyError, TypeError):
        return None
    return value if fine else None


def _broken(home: Home, message: str) -> TrustError:
    return TrustError(
        message,
        where=str(home.audit_head),
        remedy="compare with a backup: acts may have been removed",
        code="audit_broken",
    )


__all__ = ["sign_head", "verify_head"]
