"""Measurements on devices: who is asked what, what is due, and what of a result is believed.

Functions on a session; the caller commits. A result counts once, for the order it names, from the device
that order went to, within its time, and only if its figures are possible at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgekit.documents import BenchOrder, BenchResult, Envelope, Measurement, Reason
from edgekit.documents.bench import MAX_RUNS, MAX_SECONDS, MAX_THREADS, MAX_VALID
from edgekit.errors import UsageError
from edgekit.select import VariantEntry, why_not
from edgekit.wire import Fields
from edgekit_fleet.db.benches import BenchRow
from edgekit_fleet.db.tables import DeviceRow, ReleaseRow
from edgekit_fleet.devices import ONLINE, facts_of, get_device
from edgekit_fleet.errors import UnknownNameError
from edgekit_fleet.trust.director import Director

WAITING, SENT, FILE, DONE, REFUSED, FAILED, EXPIRED = (
    *("waiting", "sent", "file", "done", "refused", "failed"),
    "expired",
)
OPEN = (WAITING, SENT, FILE)
ALLOWANCE = 240.0
"""Seconds an order is good beside the time it gives to measuring: fetching, loading, sending."""
RUNS = 2000
"""Most inferences of a measurement by default: a model of 20 µs is then watched for 40 ms."""
LATE = 30.0
"""Seconds a result may come after its order has expired."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How to measure: at most `runs` and `seconds` on `threads`; a device that is away is waited for
    `wait` seconds. `variants` empty: every one that fits the device."""

    variants: tuple[str, ...] = ()
    runs: int = RUNS
    seconds: float = 10.0
    threads: int = 1
    wait: float = 600.0

    @classmethod
    def read(cls, fields: Fields) -> Asked:
        """From the body of a request.

        Raises:
            DocumentError: out of bounds.
        """
        seconds, wait = fields.number("seconds", 10.0), fields.number("wait", 600.0)
        if not 0 < seconds <= MAX_SECONDS:
            raise fields.fail("seconds", f"at most {MAX_SECONDS} seconds were expected")
        if not 0 < wait <= MAX_VALID:
            raise fields.fail("wait", f"at most {MAX_VALID / 86_400:.0f} days were expected")
        return cls(
            variants=fields.texts("variants"),
            runs=fields.integer("runs", RUNS, low=1, high=MAX_RUNS),
            seconds=seconds,
            threads=fields.integer("threads", 1, low=1, high=MAX_THREADS),
            wait=wait,
        )


def ask(
    session: Session,
    release: ReleaseRow,
    devices: Sequence[str],
    asked: Asked,
    *,
    actor: str,
    now: float,
    state: str = WAITING,
) -> tuple[list[BenchRow], list[dict[str, str]]]:
    """One row for each variant that fits a device; returns them, and what was left out and why.

    Raises:
        UnknownNameError: no such device or variant.
    """
    table = [VariantEntry.read(Fields(item, where="table")) for item in release.table]
    for name in asked.variants:
        if name not in {item.id for item in table}:
            raise UnknownNameError.of("variant", name, [item.id for item in table])
    rows: list[BenchRow] = []
    left: list[dict[str, str]] = []
    for device in dict.fromkeys(devices):
        row = get_device(session, device)
        for entry in table:
            if asked.variants and entry.id not in asked.variants:
                continue
            why = why_not(entry, facts_of(row), allow_unverified=True)
            if why is not None:
                left.append({"device": device, "variant": entry.id, "why": why})
                continue
            rows.append(_row(release, row, entry, asked, actor=actor, now=now, state=state))
    session.add_all(rows)
    session.flush()
    return rows, left


def _row(
    release: ReleaseRow,
    device: DeviceRow,
    entry: VariantEntry,
    asked: Asked,
    *,
    actor: str,
    now: float,
    state: str,
) -> BenchRow:
    return BenchRow(
        cid="".join(secrets.choice(_ALPHABET) for _ in range(16)),
        device=device.id,
        hardware=device.hardware,
        release=release.ref,
        package=release.digest,
        variant=entry.id,
        entry=entry.to_dict(),
        runs=asked.runs,
        seconds=asked.seconds,
        threads=asked.threads,
        state=state,
        actor=actor,
        created=now,
        expires=now + asked.wait,
    )


def order(row: BenchRow, director: Director, *, now: float) -> Envelope:
    """The signed order of a row, good until the row's `expires`."""
    row.issued = now
    found = BenchOrder(
        cid=row.cid,
        device=row.device,
        issued=now,
        expires=row.expires,
        release=row.release,
        package=row.package,
        variant=row.variant,
        digest=row.entry["digest"],
        runs=row.runs,
        seconds=row.seconds,
        threads=row.threads,
    )
    return director.sign_document(found.to_dict())


def is_open(session: Session) -> bool:
    """Whether anything is to be done or waited for."""
    return session.scalars(select(BenchRow.cid).where(BenchRow.state.in_(OPEN)).limit(1)).first() is not None


def expire(session: Session, *, now: float) -> int:
    """End what nothing can come of any more; returns how many."""
    ended = 0
    for row in session.scalars(select(BenchRow).where(BenchRow.state.in_(OPEN), BenchRow.expires < now)):
        if row.state != WAITING and now < row.expires + LATE:
            continue
        text = {
            WAITING: "the device was not online in time",
            SENT: "no result came in time",
            FILE: "no result was imported in time",
        }[row.state]
        _end(row, EXPIRED, now=now, reason=Reason(code=f"expired_{row.state}", text=text, retryable=True))
        ended += 1
    return ended


def due(session: Session, *, now: float) -> list[BenchRow]:
    """The oldest waiting row of each device that is online and measures nothing now."""
    working = set(session.scalars(select(BenchRow.device).where(BenchRow.state == SENT)))
    query = (
        select(BenchRow)
        .join(DeviceRow, DeviceRow.id == BenchRow.device)
        .where(BenchRow.state == WAITING, BenchRow.expires > now, DeviceRow.state == ONLINE)
        .order_by(BenchRow.created, BenchRow.variant)
    )
    first: dict[str, BenchRow] = {}
    for row in session.scalars(query):
        if row.device not in working:
            first.setdefault(row.device, row)
    return list(first.values())


def send(row: BenchRow, director: Director, *, now: float) -> bytes:
    """Make a waiting row a sent one; returns what to publish."""
    row.expires = now + row.seconds + ALLOWANCE
    envelope = order(row, director, now=now)
    row.state = SENT
    return envelope.to_bytes()


def take_back(session: Session, cid: str, *, wait_until: float) -> None:
    """It could not be published: it waits again."""
    row = session.get(BenchRow, cid)
    if row is not None and row.state == SENT:
        row.state, row.expires = WAITING, wait_until


def record_result(session: Session, device: str, result: BenchResult, *, now: float) -> bool:
    """Reduce a result that `device` has sent; False when nobody waits for it."""
    row = session.get(BenchRow, result.cid)
    if row is None or row.device != device or row.state not in (SENT, FILE):
        return False
    if result.device != device or result.digest != row.entry["digest"] or now > row.expires + LATE:
        return False
    doubt = implausible(row, result, now=now)
    if doubt is not None:
        _end(row, FAILED, now=now, reason=Reason(code="implausible", text=doubt))
        return True
    _end(row, result.state, now=now, reason=result.reason)
    row.result = result.to_dict()
    return True


def implausible(row: BenchRow, result: BenchResult, *, now: float) -> str | None:
    """Why these figures cannot come from this order, None when they can."""
    figures = result.figures
    if result.state != DONE or figures is None:
        return None
    runtime = row.entry["requires"]["runtime"]
    checks = (
        (figures.n <= row.runs, f"{figures.n} runs, {row.runs} were ordered"),
        (figures.threads == row.threads, f"{figures.threads} threads, {row.threads} were ordered"),
        (figures.runtime == runtime, f"computed by {figures.runtime!r}, the variant is for {runtime}"),
        (
            # Half of the runs took the median or longer, and all of them happened since the order.
            figures.n / 2 * figures.median_us / 1e6 <= now - (row.issued or 0) + 1,
            "more time than has passed since the order",
        ),
        (figures.memory_mb >= figures.base_mb, "less memory than before the model was loaded"),
    )
    return next((why for fine, why in checks if not fine), None)


def _end(row: BenchRow, state: str, *, now: float, reason: Reason | None) -> None:
    row.state, row.ended = state, now
    row.reason = reason.to_dict() if reason else None


def list_benches(
    session: Session, *, device: str | None = None, release: str | None = None, limit: int = 200
) -> Sequence[BenchRow]:
    """The newest, newest first."""
    query = select(BenchRow).order_by(BenchRow.created.desc(), BenchRow.variant).limit(limit)
    if device:
        query = query.where(BenchRow.device == device)
    if release:
        query = query.where(BenchRow.release == release)
    return session.scalars(query).all()


def get_bench(session: Session, cid: str) -> BenchRow:
    """One measurement.

    Raises:
        UnknownNameError: none of that id.
    """
    row = session.get(BenchRow, cid)
    if row is None:
        newest = select(BenchRow.cid).order_by(BenchRow.created.desc()).limit(100)
        raise UnknownNameError.of("measurement", cid, session.scalars(newest))
    return row


def bench_document(row: BenchRow) -> dict[str, Any]:
    """The measurement as JSON for operators; `measurement` is what the compiler reads."""
    found = measurement(row)
    return {
        "id": row.cid,
        "device": row.device,
        "hardware": row.hardware,
        "release": row.release,
        "package": row.package,
        "variant": row.variant,
        "profile": row.entry["profile"],
        "state": row.state,
        "actor": row.actor,
        "created": row.created,
        "expires": row.expires,
        "ended": row.ended,
        "ordered": {"runs": row.runs, "seconds": row.seconds, "threads": row.threads},
        "reason": row.reason,
        "measurement": found.to_dict() if found else None,
    }


def measurement(row: BenchRow) -> Measurement | None:
    """The figures with all that says what they are of; None where there are none."""
    if row.state != DONE or row.result is None:
        return None
    figures = BenchResult.from_dict(row.result).figures
    assert figures is not None
    entry: Mapping[str, Any] = row.entry
    return Measurement(
        release=row.release,
        variant=row.variant,
        digest=entry["digest"],
        profile=entry["profile"],
        target=entry["target"],
        precision=entry["precision"],
        device=row.device,
        hardware=row.hardware,
        on_target=row.hardware == entry["profile"],
        at=row.ended or row.created,
        figures=figures,
    )


def nothing_fits(left: Sequence[Mapping[str, str]]) -> UsageError:
    """The error when no variant fits any device."""
    why = "; ".join(f"{item['device']}: {item['variant']}: {item['why']}" for item in left[:6])
    return UsageError(
        f"no variant can be measured: {why or 'the package has none'}",
        remedy="convert the model for the device's profile",
        code="nothing_fits",
    )
