"""Releases: packages taken into the fleet, signed, verified, invalidated.

A release is immutable: the same NAME@VERSION never means other bytes. The one change allowed is a new
*revision* that adds variants and leaves everything there was as it is; devices whose variant did not
change are already current with it. What devices trust is the TUF target alone; the table in SQL says
the same for people and rollouts.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.errors import DocumentError, StorageError, TrustError
from edgekit.package import Manifest, load_package, parse_manifest, split_ref
from edgekit.select import variant_table
from edgekit_fleet import audit
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import ReleaseRow
from edgekit_fleet.errors import ConflictError, UnknownNameError
from edgekit_fleet.papers import keep_papers, papers_folder, papers_of

ADDED, SIGNED, REPLACED, INVALIDATED = "added", "signed", "replaced", "invalidated"


def target_path(name: str, version: str) -> str:
    """The TUF target of a package."""
    return f"packages/{name}/{version}/package.json"


def add_release(fleet: Fleet, folder: Path, *, actor: str, dry_run: bool = False) -> dict[str, Any]:
    """Take a package folder in: every byte is compared with the manifest and stored, its measurements
    and report are kept beside.

    Returns the release's document, with ``added`` False when it was there already, and ``papers``.

    Raises:
        StorageError: a file is missing, or the disk is full; the fleet is unchanged.
        DocumentError: the package is malformed, or a file is not what the manifest says.
        ConflictError: this NAME@VERSION exists with other content, or is invalidated.
    """
    with fleet.home.locked("catalogue"):
        return _add_release(fleet, load_package(folder), folder, actor, dry_run)


def _add_release(fleet: Fleet, manifest: Manifest, folder: Path, actor: str, dry_run: bool) -> dict[str, Any]:
    with fleet.database.read() as session:
        known = _revisions(session, manifest.ref)
        same = next((row for row in known if row.digest == manifest.digest), None)
        if same is not None and same.state != INVALIDATED:
            papers = papers_of(fleet.home, same.digest)
            if not dry_run:
                papers = keep_papers(fleet.home, same.digest, folder)
            return {**release_document(same), "added": False, "papers": list(papers)}
        _check_revision(fleet, known, manifest)
    row = _row(manifest, revision=len(known) + 1, now=fleet.clock.now())
    if dry_run:
        return {**release_document(row), "added": True, "papers": []}
    papers = keep_papers(fleet.home, manifest.digest, folder)
    for item in manifest.all_files():
        fleet.store.put(folder / item.path, expected=item.sha256)
    fleet.store.put_bytes(manifest.to_bytes())
    with fleet.database.write() as session:
        session.add(row)
        session.flush()
        document = release_document(row)
        audit.record(
            session, at=row.added, actor=actor, verb="release.add", subject=row.ref, after=_facts(row)
        )
    return {**document, "added": True, "papers": list(papers)}


def sign_release(fleet: Fleet, ref: str, *, actor: str, dry_run: bool = False) -> dict[str, Any]:
    """Publish the newest revision of `ref` as a TUF target with its variant table.

    Every stored byte is read and compared first. Signing twice changes nothing.

    Raises:
        UnknownNameError: no such release.
        ConflictError: it is invalidated.
        TrustError: stored bytes are damaged, or the repository is.
        HomeError: a signing key is missing.
    """
    with fleet.home.locked("catalogue"):
        return _sign_release(fleet, ref, actor, dry_run)


def _sign_release(fleet: Fleet, ref: str, actor: str, dry_run: bool) -> dict[str, Any]:
    with fleet.database.read() as session:
        row = newest_release(session, ref)
        _refuse_invalidated(row)
        manifest = stored_manifest(fleet, row)
    verify_blobs(fleet, manifest)
    path = target_path(row.name, row.version)
    custom = {"package": row.digest, "variants": [item.to_dict() for item in variant_table(manifest)]}
    if row.state == SIGNED and _is_published(fleet, row):
        return {**release_document(row), "signed_now": False}
    if dry_run:
        return {**release_document(row), "state": SIGNED, "signed_now": True}
    fleet.repository.add_target(path, manifest.to_bytes(), custom)
    now = fleet.clock.now()
    with fleet.database.write() as session:
        for other in _revisions(session, ref):
            if other.state == SIGNED and other.revision != row.revision:
                other.state = REPLACED
        mine = session.get_one(ReleaseRow, (row.ref, row.revision))
        before = _facts(mine)
        mine.state, mine.signed = SIGNED, now
        session.flush()
        audit.record(
            session,
            at=now,
            actor=actor,
            verb="release.sign",
            subject=ref,
            before=before,
            after=_facts(mine),
        )
        document = release_document(mine)
    return {**document, "signed_now": True}


def invalidate_release(
    fleet: Fleet, ref: str, *, reason: str, actor: str, dry_run: bool = False
) -> dict[str, Any]:
    """Withdraw a release for ever: no device installs it again, none stops serving it by this.

    The target goes first: if anything fails afterwards, devices are already safe. Done twice, the
    first reason stays; ``invalidated_now`` says whether this call did it.

    Raises:
        UnknownNameError: no such release.
    """
    with fleet.home.locked("catalogue"):
        return _invalidate_release(fleet, ref, reason, actor, dry_run)


def _invalidate_release(fleet: Fleet, ref: str, reason: str, actor: str, dry_run: bool) -> dict[str, Any]:
    with fleet.database.read() as session:
        row = newest_release(session, ref)
        document = release_document(row)
    news = row.state != INVALIDATED
    if dry_run and news:
        return {**document, "state": INVALIDATED, "reason": reason, "invalidated_now": True}
    if dry_run:
        return {**document, "invalidated_now": False}
    path = target_path(row.name, row.version)
    if fleet.repository.exists and fleet.repository.target(path) is not None:
        fleet.repository.remove_target(path)
    now = fleet.clock.now()
    with fleet.database.write() as session:
        for item in _revisions(session, ref):
            if item.state == INVALIDATED:
                continue
            before = _facts(item)
            item.state, item.reason = INVALIDATED, reason
            session.flush()
            audit.record(
                session,
                at=now,
                actor=actor,
                verb="release.invalidate",
                subject=ref,
                before=before,
                after=_facts(item),
            )
        return {**release_document(newest_release(session, ref)), "invalidated_now": news}


def show_release(fleet: Fleet, ref: str, *, out: Path | None = None) -> dict[str, Any]:
    """The newest revision of a release with its papers; `out` gets a copy of them.

    Raises:
        UnknownNameError: no such release.
        ConflictError: `out` exists, or there are no papers to copy.
        StorageError: it cannot be written.
    """
    with fleet.database.read() as session:
        row = newest_release(session, ref)
        document = release_document(row)
    papers = papers_of(fleet.home, row.digest)
    if out is not None:
        if not papers:
            raise ConflictError("no papers came with this release", where=ref, code="no_papers")
        try:
            shutil.copytree(papers_folder(fleet.home, row.digest), out)
        except FileExistsError as error:
            raise ConflictError("there is something already", where=str(out), code="exists") from error
        except OSError as error:
            raise StorageError(f"cannot be written: {error.strerror}", where=str(out)) from error
    return {**document, "papers": list(papers)}


def verify_release(fleet: Fleet, ref: str) -> dict[str, Any]:
    """Check a release end to end: signatures from the root down, target, manifest, every stored byte.

    Raises:
        UnknownNameError: no such release.
        TrustError: not signed, invalidated, or the first thing that is wrong.
    """
    with fleet.database.read() as session:
        row = newest_release(session, ref)
        if row.state == INVALIDATED:
            raise TrustError(f"invalidated: {row.reason}", where=ref, code="invalidated")
        signed = _signed_revision(session, ref)
    if signed is None:
        raise TrustError("not signed", where=ref, remedy=f"edgekit release sign {ref}", code="not_signed")
    fleet.repository.verify()
    data = fleet.repository.read_target(target_path(signed.name, signed.version))
    manifest = parse_manifest(data)
    if manifest.digest != signed.digest:
        raise TrustError(
            "the signed package is another one than the fleet's table says", where=ref, code="bad_target"
        )
    files = verify_blobs(fleet, manifest)
    return {**release_document(signed), "verified": True, "files": files, "signed": True}


def verify_folder(fleet: Fleet | None, folder: Path) -> dict[str, Any]:
    """Check a package folder against its manifest and, with a fleet, against what is signed there."""
    manifest = load_package(folder)
    signed = False
    if fleet is not None and fleet.repository.exists:
        target = fleet.repository.target(target_path(manifest.name, manifest.version))
        signed = target is not None and target.hashes.get("sha256") == manifest.digest.partition(":")[2]
    return {
        "release": manifest.ref,
        "digest": manifest.digest,
        "verified": True,
        "files": len(manifest.all_files()),
        "signed": signed,
    }


def list_releases(session: Session) -> Sequence[ReleaseRow]:
    """All revisions, newest first within a name."""
    query = select(ReleaseRow).order_by(ReleaseRow.name, ReleaseRow.added.desc())
    return session.scalars(query).all()


def newest_release(session: Session, ref: str) -> ReleaseRow:
    """The newest revision of `ref`.

    Raises:
        DocumentError: not NAME@VERSION.
        UnknownNameError: no such release, with the nearest.
    """
    split_ref(ref)
    rows = _revisions(session, ref)
    if not rows:
        raise UnknownNameError.of("release", ref, session.scalars(select(ReleaseRow.ref).distinct()))
    return rows[-1]


def signed_release(session: Session, ref: str) -> ReleaseRow:
    """The signed revision of `ref`, the one a rollout may bring out.

    Raises:
        UnknownNameError: no such release.
        ConflictError: not signed (code ``not_signed``) or invalidated (code ``invalidated``).
    """
    row = newest_release(session, ref)
    _refuse_invalidated(row)
    signed = _signed_revision(session, ref)
    if signed is None:
        raise ConflictError(
            "the release is not signed", where=ref, remedy=f"edgekit release sign {ref}", code="not_signed"
        )
    return signed


def stored_manifest(fleet: Fleet, row: ReleaseRow) -> Manifest:
    """The manifest of a release from the store, compared with its digest."""
    sha = row.digest.partition(":")[2]
    fleet.store.verify(sha)
    return parse_manifest(fleet.store.path(sha).read_bytes(), where=row.ref)


def verify_blobs(fleet: Fleet, manifest: Manifest) -> int:
    """Read every stored file of a package again; returns how many there are.

    Raises:
        DocumentError: one is damaged.
        StorageError: one is missing.
    """
    files = manifest.all_files()
    for sha in sorted({item.sha256 for item in files}):
        fleet.store.verify(sha)
    return len(files)


def release_document(row: ReleaseRow) -> dict[str, Any]:
    """The release as JSON for operators and scripts."""
    return {
        "release": row.ref,
        "revision": row.revision,
        "digest": row.digest,
        "state": row.state,
        "bytes": row.size,
        "added_at": row.added,
        "signed_at": row.signed,
        "reason": row.reason or None,
        "variants": [
            {key: entry[key] for key in ("id", "digest", "profile", "precision", "target", "size", "verdict")}
            for entry in row.table
        ],
    }


def _row(manifest: Manifest, *, revision: int, now: float) -> ReleaseRow:
    return ReleaseRow(
        ref=manifest.ref,
        revision=revision,
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        state=ADDED,
        table=[item.to_dict() for item in variant_table(manifest)],
        size=sum(item.bytes for item in manifest.all_files()),
        added=now,
        signed=None,
        reason="",
    )


def _facts(row: ReleaseRow) -> Mapping[str, Any]:
    return {"revision": row.revision, "digest": row.digest, "state": row.state, "reason": row.reason}


def _revisions(session: Session, ref: str) -> Sequence[ReleaseRow]:
    query = select(ReleaseRow).where(ReleaseRow.ref == ref).order_by(ReleaseRow.revision)
    return session.scalars(query).all()


def _signed_revision(session: Session, ref: str) -> ReleaseRow | None:
    return next((row for row in reversed(_revisions(session, ref)) if row.state == SIGNED), None)


def _refuse_invalidated(row: ReleaseRow) -> None:
    if row.state == INVALIDATED:
        raise ConflictError(
            f"the release is invalidated: {row.reason}",
            where=row.ref,
            remedy="an invalidated version is never used again; make a new version",
            code="invalidated",
        )


def _is_published(fleet: Fleet, row: ReleaseRow) -> bool:
    target = fleet.repository.target(target_path(row.name, row.version))
    return target is not None and target.hashes.get("sha256") == row.digest.partition(":")[2]


def _check_revision(fleet: Fleet, known: Sequence[ReleaseRow], manifest: Manifest) -> None:
    """Refuse what is no revision: other source or contract, a variant changed or gone."""
    if not known:
        return
    last = known[-1]
    _refuse_invalidated(last)
    try:
        before = stored_manifest(fleet, last)
    except DocumentError as error:
        raise TrustError(f"the release's stored manifest is damaged: {error}", where=last.ref) from error
    digests = {item.id: item.digest for item in manifest.variants}
    changed = [item.id for item in before.variants if digests.get(item.id) != item.digest]
    if changed or before.source != manifest.source or before.contract != manifest.contract:
        what = f"variant {changed[0]} differs" if changed else "its source or contract differs"
        raise ConflictError(
            f"{manifest.ref} exists with other content ({what}); releases are immutable",
            where=f"digest {last.digest[:19]}…",
            remedy="give the new package a new version; only adding variants makes a revision",
            code="immutable",
        )
