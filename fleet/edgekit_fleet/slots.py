"""Slots and their ground-truth probes: labelled inputs the fleet keeps, signs and has devices run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.contract import Contract, InputSpec
from edgekit.digest import sha256_hex
from edgekit.documents import ProbePolicy
from edgekit.errors import DataError, DocumentError, UsageError
from edgekit.files import read_bytes
from edgekit.topics import check_word
from edgekit_fleet import audit
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import ProbeSetRow, SlotRow
from edgekit_fleet.errors import ConflictError, UnknownNameError

LABELS = "labels"
MAX_PROBE_BYTES = 64 << 20
Array = NDArray[Any]


def probe_target(slot: str, n: int) -> str:
    """The TUF target of a slot's n-th probe set."""
    return f"probes/{slot}/{n}.npz"


def create_slot(
    fleet: Fleet, name: str, contract: Contract, *, actor: str, dry_run: bool = False
) -> dict[str, Any]:
    """Make a slot. The same name with the same contract changes nothing.

    Raises:
        UsageError: a name that cannot stand in topics and paths.
        ConflictError: the slot exists with another contract.
    """
    _check_name(name)
    body = contract.to_dict()
    now = fleet.clock.now()
    with fleet.database.write() as session:
        row = session.get(SlotRow, name)
        if row is not None:
            if row.contract != body:
                raise ConflictError(
                    "the slot exists with another contract",
                    where=f"slot {name}",
                    remedy="make a slot of another name: clients rely on what a slot takes and gives",
                )
            return {**slot_document(session, row), "created_now": False}
        row = SlotRow(name=name, contract=body, created=now)
        if not dry_run:
            session.add(row)
            session.flush()
            audit.record(
                session, at=now, actor=actor, verb="slot.create", subject=name, after={"contract": body}
            )
        return {**slot_document(session, row), "created_now": True}


def add_probes(
    fleet: Fleet,
    slot: str,
    file: Path,
    *,
    min_accuracy: float,
    policy: ProbePolicy,
    actor: str,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Check, sign and publish a ground-truth probe set; it counts from now on.

    Args:
        fleet: with the targets key at hand.
        slot: whose probes.
        file: npz with one array per input of the contract and ``labels``.
        min_accuracy: share of items a device must get right, within (0, 1].
        policy: what a miss does on the device.
        actor: for the audit trail.
        dry_run: check only.

    Raises:
        UnknownNameError: no such slot.
        DataError: the file does not fit the slot's contract; says which array and why.
    """
    if not 0 < min_accuracy <= 1:
        raise UsageError(f"{min_accuracy} is not within (0, 1]", where="--min-accuracy")
    with fleet.home.locked("catalogue"):
        return _add_probes(fleet, slot, file, min_accuracy, policy, actor, dry_run)


def _add_probes(
    fleet: Fleet,
    slot: str,
    file: Path,
    min_accuracy: float,
    policy: ProbePolicy,
    actor: str,
    dry_run: bool,
) -> dict[str, Any]:
    with fleet.database.read() as session:
        contract = Contract.from_dict(get_slot(session, slot).contract)
        n = len(_probe_sets(session, slot)) + 1
    data, items = check_probes(read_bytes(file, limit=MAX_PROBE_BYTES), contract, where=str(file))
    probes = ProbeSetRow(
        slot=slot,
        n=n,
        target=probe_target(slot, n),
        sha256=sha256_hex(data),
        size=len(data),
        items=items,
        min_accuracy=min_accuracy,
        policy=policy.value,
        created=fleet.clock.now(),
    )
    if dry_run:
        return probes_document(probes)
    # TUF's canonical JSON has no fractions, so the share is a text.
    custom = {"min_accuracy": repr(min_accuracy), "policy": policy.value, "n": items, "slot": slot}
    fleet.repository.add_target(probes.target, data, custom)
    with fleet.database.write() as session:
        session.add(probes)
        session.flush()
        document = probes_document(probes)
        audit.record(
            session,
            at=probes.created,
            actor=actor,
            verb="slot.probes",
            subject=f"{slot}/{n}",
            after=document,
        )
    return document


def check_probes(data: bytes, contract: Contract, *, where: str) -> tuple[bytes, int]:
    """Check the bytes of a probe set against a contract.

    Returns the bytes to publish (a single input of another name gets the contract's) and the number of
    items.

    Raises:
        DataError: not an npz, arrays missing or too many, a wrong dtype or shape, NaN, labels that do not
            fit.
    """
    arrays = _load(data, where)
    inputs = {name: array for name, array in arrays.items() if name != LABELS}
    labels = arrays.get(LABELS)
    if labels is None:
        raise DataError(
            "there is no array 'labels'", where=where, remedy="save with np.savez(file, <input>=…, labels=…)"
        )
    if len(inputs) == 1 and len(contract.inputs) == 1 and contract.inputs[0].name not in inputs:
        inputs = {contract.inputs[0].name: next(iter(inputs.values()))}
        data = _saved({**inputs, LABELS: labels})
    expected = {spec.name: spec for spec in contract.inputs}
    if expected and set(inputs) != set(expected):
        raise DataError(
            f"arrays {sorted(inputs)} were given, {sorted(expected)} are the contract's inputs", where=where
        )
    n = len(labels) if labels.ndim else 0
    if n == 0:
        raise DataError("there are no items", where=f"{where}: labels")
    for name, array in inputs.items():
        _check_input(array, expected.get(name), n, where=f"{where}: {name}")
    _check_labels(labels, contract, where=f"{where}: labels")
    return data, n


def list_slots(session: Session) -> Sequence[SlotRow]:
    """All slots by name."""
    return session.scalars(select(SlotRow).order_by(SlotRow.name)).all()


def get_slot(session: Session, name: str) -> SlotRow:
    """A slot.

    Raises:
        UnknownNameError: none of that name, with the nearest.
    """
    row = session.get(SlotRow, name)
    if row is None:
        raise UnknownNameError.of("slot", name, session.scalars(select(SlotRow.name)))
    return row


def current_probes(session: Session, slot: str) -> ProbeSetRow | None:
    """The probe set that counts, None without one."""
    sets = _probe_sets(session, slot)
    return sets[-1] if sets else None


def slot_document(session: Session, row: SlotRow) -> dict[str, Any]:
    """The slot as JSON, with all its probe sets."""
    return {
        "slot": row.name,
        "created_at": row.created,
        "contract": row.contract,
        "probes": [probes_document(item) for item in _probe_sets(session, row.name)],
    }


def probes_document(row: ProbeSetRow) -> dict[str, Any]:
    """A probe set as JSON."""
    return {
        "slot": row.slot,
        "n": row.n,
        "target": row.target,
        "sha256": row.sha256,
        "bytes": row.size,
        "items": row.items,
        "min_accuracy": row.min_accuracy,
        "policy": row.policy,
        "created_at": row.created,
    }


def _probe_sets(session: Session, slot: str) -> Sequence[ProbeSetRow]:
    query = select(ProbeSetRow).where(ProbeSetRow.slot == slot).order_by(ProbeSetRow.n)
    return session.scalars(query).all()


def _check_name(name: str) -> None:
    try:
        check_word(name, where="slot")
    except DocumentError as error:
        raise UsageError(error.message, where="slot") from error


def _load(data: bytes, where: str) -> Mapping[str, Array]:
    if not data.startswith(b"PK"):  # numpy would take it for a pickle, or for a single array
        remedy = "save with np.savez(file, <input>=…, labels=…)"
        raise DataError("an npz file was expected", where=where, remedy=remedy)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"not a readable npz: {error}",
            where=where,
            remedy="save with np.savez(file, <input>=…, labels=…); objects are not allowed",
        ) from error


def _saved(arrays: Mapping[str, Array]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _check_input(array: Array, spec: InputSpec | None, n: int, *, where: str) -> None:
    if array.ndim == 0 or len(array) != n:
        raise DataError(f"{n} items were expected, as many as labels; shape is {array.shape}", where=where)
    if spec is not None:
        if array.dtype != np.dtype(spec.dtype):
            raise DataError(f"dtype {array.dtype} was given, {spec.dtype} is the contract's", where=where)
        fits = array.ndim == len(spec.shape) and all(
            want in (-1, got) for want, got in zip(spec.shape[1:], array.shape[1:], strict=True)
        )
        if spec.shape and not fits:
            raise DataError(f"shape {array.shape} does not fit the contract's {spec.shape}", where=where)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("there are NaN or infinite values", where=where)


def _check_labels(labels: Array, contract: Contract, *, where: str) -> None:
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError("there are NaN or infinite values", where=where)
    output = contract.outputs[0] if contract.outputs else None
    if output is None or output.task != "classification":
        return
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"whole class numbers were expected, not {labels.dtype}", where=where)
    most = len(output.labels) - 1 if output.labels else None
    if labels.min() < 0 or (most is not None and labels.max() > most):
        raise DataError(f"class numbers from 0 to {most} were expected", where=where)
