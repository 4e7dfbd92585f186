"""What operators do about measurements: ask for them, look at them, exchange files with devices.

A file for a device without a network holds the signed orders, TUF's metadata and targets and the variants'
files: the device verifies it as it verifies what it downloads. What comes back is signed with the key the
device enrolled with.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import BenchResults, Envelope
from edgekit.errors import DocumentError, StorageError, TrustError, UsageError
from edgekit.files import read_bytes
from edgekit.package import Manifest, load_package
from edgekit.wire import Fields
from edgekit_fleet import audit
from edgekit_fleet.benches import (
    FILE,
    Asked,
    ask,
    bench_document,
    get_bench,
    list_benches,
    nothing_fits,
    order,
    record_result,
)
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.benches import BenchRow
from edgekit_fleet.db.tables import DeviceRow, ReleaseRow
from edgekit_fleet.devices import facts_of, get_device, list_devices
from edgekit_fleet.errors import ConflictError
from edgekit_fleet.releases import SIGNED, signed_release, stored_manifest
from edgekit_fleet.rollout.plan import QUERY_KEYS, Select
from edgekit_fleet.rollout.rings import Candidate, matches
from edgekit_fleet.trust.director import Director
from edgekit_fleet.trust.keys import DIRECTOR

ORDERS = "orders.json"
CONTEXT = b"edgekit bench results\n"
_RESULTS_LIMIT = 4 << 20


def ask_benches(fleet: Fleet, body: dict[str, Any], *, actor: str) -> dict[str, Any]:
    """Order measurements; the running service sends the orders out.

    Raises:
        UnknownNameError: no such release, device or variant.
        ConflictError: the release is not signed.
        UsageError: no device is named, or nothing fits any.
    """
    fields = Fields(body, where="bench")
    asked = Asked.read(fields)
    with fleet.database.write() as session:
        release = _release(session, fields)
        devices = _devices(session, fields)
        rows, left = ask(session, release, devices, asked, actor=actor, now=fleet.clock.now())
        if not rows:
            raise nothing_fits(left)
        _record(session, fleet, rows, actor=actor)
        return {"benches": [bench_document(row) for row in rows], "left_out": left}


def _release(session: Session, fields: Fields) -> ReleaseRow:
    """By NAME@VERSION, or by a package's digest; it must be signed, for devices trust nothing else."""
    digest = fields.text("package", "")
    if not digest:
        return signed_release(session, fields.text("release"))
    row = session.scalars(select(ReleaseRow).where(ReleaseRow.digest == digest)).first()
    if row is None or row.state != SIGNED:
        raise ConflictError(
            "this package is not signed in this fleet, and devices measure nothing else",
            where=digest,
            remedy="edgekit release add FOLDER, then edgekit release sign NAME@VERSION",
            code="not_signed",
        )
    return row


def _devices(session: Session, fields: Fields) -> list[str]:
    named = list(fields.texts("devices"))
    where = fields.text("where", "")
    if where:
        chosen = _selected(where)
        for row in list_devices(session):
            if matches(chosen, Candidate(device=row.id, facts=facts_of(row))):
                named.append(row.id)
    if not named:
        raise UsageError(
            "no device is chosen" if not where else f"no device is {where}",
            remedy="give --device NAME, or --where 'hardware=rpi4'",
            code="no_device",
        )
    return named


def _selected(query: str) -> Select:
    """A ring's query, its keys checked."""
    chosen = Select(query=query)
    for term in chosen.terms:
        if term.key not in QUERY_KEYS and not term.key.startswith("label."):
            keys = ", ".join(QUERY_KEYS)
            raise UsageError(f"{term.key!r} is no key of a device", where="where", remedy=f"keys: {keys}")
    return chosen


def _record(session: Session, fleet: Fleet, rows: Sequence[BenchRow], *, actor: str) -> None:
    audit.record(
        session,
        at=fleet.clock.now(),
        actor=actor,
        verb="bench.ask",
        subject=rows[0].release,
        after={"devices": sorted({row.device for row in rows}), "orders": len(rows)},
    )


def benches(fleet: Fleet, *, device: str | None, release: str | None, limit: int) -> dict[str, Any]:
    """The newest measurements."""
    with fleet.database.read() as session:
        rows = list_benches(session, device=device, release=release, limit=limit)
        return {"benches": [bench_document(row) for row in rows]}


def bench(fleet: Fleet, cid: str) -> dict[str, Any]:
    """One measurement."""
    with fleet.database.read() as session:
        return bench_document(get_bench(session, cid))


def digest_of_folder(folder: Path) -> tuple[str, str]:
    """(NAME@VERSION, digest) of the package in a folder.

    Raises:
        StorageError, DocumentError: it is none, or damaged.
    """
    manifest = load_package(folder, check_files=False)
    return manifest.ref, manifest.digest


# files -------------------------------------------------------------------------------------------


def write_request(fleet: Fleet, body: dict[str, Any], out: Path, *, actor: str) -> dict[str, Any]:
    """Order measurements by a file for one device, good for `wait` seconds.

    Raises:
        As `ask_benches`; StorageError: the file cannot be written.
    """
    fields = Fields(body, where="bench")
    asked = Asked.read(fields)
    director = Director.load(fleet.repository.key_folder(DIRECTOR))
    with fleet.database.write() as session:
        release = _release(session, fields)
        devices = _devices(session, fields)
        if len(devices) != 1:
            raise UsageError("a file is for one device", where="--device", remedy="write one for each")
        now = fleet.clock.now()
        rows, left = ask(session, release, devices, asked, actor=actor, now=now, state=FILE)
        if not rows:
            raise nothing_fits(left)
        envelopes = [order(row, director, now=now) for row in rows]
        manifest = stored_manifest(fleet, release)
        _write_bundle(fleet, manifest, [row.variant for row in rows], envelopes, out)
        _record(session, fleet, rows, actor=actor)
        return {"benches": [bench_document(row) for row in rows], "left_out": left}


def _write_bundle(
    fleet: Fleet, manifest: Manifest, variants: Sequence[str], envelopes: Sequence[Envelope], out: Path
) -> None:
    orders = {"schema": 1, "orders": [envelope.to_dict() for envelope in envelopes]}
    partial = out.with_name(out.name + ".new")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            archive.writestr(ORDERS, json.dumps(orders, sort_keys=True))
            for path in sorted(fleet.home.metadata.glob("*.json")):
                archive.write(path, f"tuf/metadata/{path.name}")
            for name in _targets(fleet, manifest):
                archive.write(fleet.home.targets / name, f"tuf/targets/{name}")
            for sha in _blobs(manifest, variants):
                archive.write(fleet.store.path(sha), f"blobs/sha256/{sha}")
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"cannot be written: {error.strerror}", where=str(out)) from error


def _targets(fleet: Fleet, manifest: Manifest) -> list[str]:
    """Files of the two targets a device needs: the director's keys and the package's manifest."""
    known = fleet.repository.targets()
    found = []
    for path in ("director.json", f"packages/{manifest.name}/{manifest.version}/package.json"):
        folder, _, name = path.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        found.append(f"{prefix}{known[path].hashes['sha256']}.{name}")
    return found


def _blobs(manifest: Manifest, variants: Sequence[str]) -> list[str]:
    chosen = [manifest.variant(name) for name in variants]
    files = {item.sha256 for variant in chosen for item in variant.files}
    return sorted(files | {variant.probe.file.sha256 for variant in chosen if variant.probe})


def import_results(fleet: Fleet, data: bytes, *, actor: str) -> dict[str, Any]:
    """Take in what a device wrote; a result counts once.

    Raises:
        DocumentError: it is no such file.
        UnknownNameError: no such device.
        TrustError: it was not written by the device it names.
    """
    if len(data) > _RESULTS_LIMIT:
        raise DocumentError(f"more than {_RESULTS_LIMIT} bytes", where="results")
    envelope = Envelope.parse(data)
    found = BenchResults.from_dict(envelope.signed)
    with fleet.database.write() as session:
        _check_signed(get_device(session, found.device), envelope)
        now = fleet.clock.now()
        taken = [r.cid for r in found.results if record_result(session, found.device, r, now=now)]
        audit.record(
            session, at=now, actor=actor, verb="bench.import", subject=found.device, after={"taken": taken}
        )
        rows = [get_bench(session, cid) for cid in taken]
        return {
            "benches": [bench_document(row) for row in rows],
            "dropped": [item.cid for item in found.results if item.cid not in taken],
        }


def import_file(fleet: Fleet, path: Path, *, actor: str) -> dict[str, Any]:
    """`import_results` of a file."""
    return import_results(fleet, read_bytes(path, limit=_RESULTS_LIMIT), actor=actor)


def _check_signed(device: DeviceRow, envelope: Envelope) -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(device.public_key))
    for item in envelope.signatures:
        try:
            key.verify(bytes.fromhex(item.sig), CONTEXT + envelope.payload())
            return
        except (InvalidSignature, ValueError):
            continue
    raise TrustError(
        "the results are not signed by the device they name",
        where=device.id,
        remedy="import the file as edgekit-agent wrote it",
        code="bad_signature",
    )
