"""Making a fleet: the home, its tables, its keys and the first metadata. Safe to run again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from edgekit.ports import Clock
from edgekit_fleet import audit
from edgekit_fleet.context import Fleet, open_fleet
from edgekit_fleet.desired import sign_again
from edgekit_fleet.errors import ConflictError
from edgekit_fleet.home import Home, create_home
from edgekit_fleet.trust.director import Director
from edgekit_fleet.trust.keys import OFFLINE, ROLES, ROOT, key_path, load_signer, make_keys, public_key
from edgekit_fleet.trust.rotation import rotate


def init_home(path: Path, *, tenant: str = "default") -> Home:
    """Make (or complete) a home and bring its tables to the newest version."""
    home = create_home(path, tenant=tenant)
    with contextlib.closing(open_fleet(home).database):
        return home


def init_keys(
    path: Path,
    *,
    root_folder: Path | None = None,
    tenant: str = "default",
    dry_run: bool = False,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Make all keys of a fleet and publish its first metadata; makes the home when there is none.

    When an earlier run was interrupted after the keys and before the metadata, it is completed with
    those keys.

    Raises:
        ConflictError: the fleet has keys and metadata already (code ``key_exists``).
        StorageError: a folder cannot be written.
    """
    home = Home(path=path.absolute())
    folders = {role: root_folder if role == ROOT and root_folder else home.keys for role in ROLES}
    places = {role: key_path(folder, role) for role, folder in folders.items()}
    if (home.metadata / "timestamp.json").is_file():
        raise ConflictError(
            "this fleet has its keys already",
            where=str(home.keys),
            remedy="see them with: edgekit key status",
            code="key_exists",
        )
    if dry_run:
        return _document(home, places, dict.fromkeys(ROLES, None))
    home = create_home(path, tenant=tenant)
    fleet = open_fleet(home, clock=clock)
    with contextlib.closing(fleet.database):
        if all(place.is_file() for place in places.values()):
            signers = {role: load_signer(place, role) for role, place in places.items()}
        else:
            signers = make_keys(home.keys, root_folder=root_folder)
        fleet.repository.create(signers)
        keyids = {role: public_key(signer).keyid for role, signer in signers.items()}
        with fleet.database.write() as session:
            audit.record(
                session,
                at=fleet.clock.now(),
                actor=audit.local_actor(),
                verb="key.init",
                subject="keys",
                after=keyids,
            )
    return _document(home, places, dict(keyids))


def rotate_key(
    fleet: Fleet, role: str, *, root_folder: Path | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Give one role a new key; devices follow at their next look. The service may run meanwhile.

    Raises:
        HomeError, TrustError, StorageError: as `trust.rotation.rotate`.
    """

    def sign_desired_again(signer: CryptoSigner) -> None:
        with fleet.database.write() as session:
            sign_again(session, Director(signer))

    if dry_run:
        keyids = list(fleet.repository.keyids(role))
        return {"role": role, "before": keyids, "keyid": None, "path": None, "retired": None}
    with fleet.home.locked("keys"):
        done = rotate(fleet.repository, role, root_folder=root_folder, resign=sign_desired_again)
        with fleet.database.write() as session:
            audit.record(
                session,
                at=fleet.clock.now(),
                actor=audit.local_actor(),
                verb="key.rotate",
                subject=role,
                before={"keyids": list(done.before)},
                after={"keyids": [done.keyid]},
            )
    return {
        "role": role,
        "before": list(done.before),
        "keyid": done.keyid,
        "path": str(done.path),
        "retired": str(done.retired) if done.retired else None,
    }


def _document(home: Home, places: dict[str, Path], keyids: dict[str, str | None]) -> dict[str, Any]:
    return {
        "home": str(home.path),
        "keys": [
            {"role": role, "keyid": keyids[role], "path": str(places[role]), "offline": role in OFFLINE}
            for role in ROLES
        ],
    }
