"""Telemetry in SQL: stored once, acknowledged once stored, read back as evidence for the gates.

Functions on a session; the caller commits. The period a window belongs to is taken from when the
service received it and from the variant it names, never from the device's clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgekit.documents import ProbeReport, Window
from edgekit_fleet.db.rollouts import ReceivedRow, TelemetryRow
from edgekit_fleet.rollout.evidence import merge_windows
from edgekit_fleet.rollout.gates import Aggregate
from edgekit_fleet.rollout.reducers import Received, advance


def store_batch(
    session: Session, batch: Sequence[tuple[str, Window | ProbeReport]], *, now: float
) -> tuple[Mapping[tuple[str, str], Received], int]:
    """Store telemetry of known devices as (device, document); returns what to acknowledge per
    (device, boot_id), also for those that brought nothing new, and the number of duplicates."""
    by_boot: dict[tuple[str, str], list[Window | ProbeReport]] = defaultdict(list)
    for device, document in batch:
        by_boot[device, document.boot_id].append(document)
    acks: dict[tuple[str, str], Received] = {}
    duplicates = 0
    for (device, boot_id), documents in by_boot.items():
        row = session.get(ReceivedRow, (device, boot_id))
        if row is None:
            row = ReceivedRow(device=device, boot_id=boot_id, seq=-1, also=[], dropped=0)
            session.add(row)
        known = Received(boot_id=boot_id, seq=row.seq, also=frozenset(row.also))
        fresh = _fresh(known, documents)
        duplicates += len(documents) - len(fresh)
        session.add_all(_row(device, document, now) for document in fresh)
        after = advance(known, [(d.seq, d.oldest) for d in fresh])
        row.seq, row.also = after.seq, sorted(after.also)
        row.dropped = max(row.dropped, *(d.dropped for d in documents))
        acks[device, boot_id] = after
    session.flush()
    return acks, duplicates


def _fresh(known: Received, documents: Iterable[Window | ProbeReport]) -> list[Window | ProbeReport]:
    new: dict[int, Window | ProbeReport] = {}
    for document in documents:
        if not known.has(document.seq):
            new.setdefault(document.seq, document)
    return list(new.values())


def _row(device: str, document: Window | ProbeReport, now: float) -> TelemetryRow:
    return TelemetryRow(
        device=device,
        boot_id=document.boot_id,
        seq=document.seq,
        record=document.record,
        slot=document.slot,
        digest=document.digest,
        deployment=document.deployment,
        at=document.at,
        received=now,
        body=document.to_dict(),
    )


def newest_id(session: Session) -> int:
    """Id of the telemetry that arrived last, 0 without any."""
    return session.scalar(select(func.max(TelemetryRow.id))) or 0


def windows_between(
    session: Session, *, slot: str, since: float, until: float, cut: int, devices: Iterable[str]
) -> Mapping[str, list[tuple[float, Window]]]:
    """Windows of a slot by device as (received, window): received in [since, until], id at most `cut`."""
    wanted = set(devices)
    query = (
        select(TelemetryRow.device, TelemetryRow.received, TelemetryRow.body)
        .where(
            TelemetryRow.slot == slot,
            TelemetryRow.record == Window.kind,
            TelemetryRow.id <= cut,
            TelemetryRow.received >= since,
            TelemetryRow.received <= until,
        )
        .order_by(TelemetryRow.id)
    )
    found: dict[str, list[tuple[float, Window]]] = defaultdict(list)
    for device, received, body in session.execute(query):
        if device in wanted:
            found[device].append((received, Window.from_dict(body)))
    return found


def aggregate(
    windows: Iterable[tuple[float, Window]], *, digest: str, since: float, until: float
) -> Aggregate:
    """The windows of one variant that were received in [since, until], merged."""
    return merge_windows(
        window for received, window in windows if window.digest == digest and since <= received <= until
    )


def truth_reports(session: Session, *, slot: str, deployment: str, cut: int) -> Mapping[str, ProbeReport]:
    """Newest ground-truth report of each device in a deployment, stored up to `cut`."""
    query = (
        select(TelemetryRow.device, TelemetryRow.body)
        .where(
            TelemetryRow.slot == slot,
            TelemetryRow.deployment == deployment,
            TelemetryRow.record == ProbeReport.kind,
            TelemetryRow.id <= cut,
        )
        .order_by(TelemetryRow.boot_id, TelemetryRow.seq)
    )
    reports = ((device, ProbeReport.from_dict(body)) for device, body in session.execute(query))
    return {device: report for device, report in reports if report.probe == "truth"}


def forget_before(
    session: Session, before: float, *, keep_slots: Iterable[str] = (), limit: int = 5000
) -> int:
    """Delete telemetry received before a time, but of slots with a live rollout; returns how many."""
    query = (
        select(TelemetryRow)
        .where(TelemetryRow.received < before, TelemetryRow.slot.not_in(list(keep_slots)))
        .limit(limit)
    )
    rows = session.scalars(query).all()
    for row in rows:
        session.delete(row)
    return len(rows)
