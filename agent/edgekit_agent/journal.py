"""The agent's memory: what runs, what is being tried, what was seen last. SQLite, one small file.

Written *before* each step is done, with ``synchronous=FULL``: after a power cut the recovery table of
`edgekit_agent.swap` decides on what stands here. Rows are few and writes rare (some twenty a swap),
so every write may cost an fsync. What was read once is kept in memory: reading never waits for a
write, because the event loop reads while a thread waits for a slow memory card. One process writes
(the home's lock sees to that); writes are serialised by a lock.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.documents import DeviceStep, Reason
from edgekit.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (slot TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (slot TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A variant that is or was installed in a slot. `since` is when it was committed."""

    release: str
    package: str
    variant: str
    digest: str
    deployment: str = ""
    since: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SlotRecord:
    """What a slot runs, and what a revert goes back to (kept on disk, so it needs no download)."""

    slot: str
    active: Model
    previous: Model | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try to bring a model into a slot. `tries` counts starts of the risky part (loading)."""

    slot: str
    gen: int
    deployment: str
    attempt: int
    model: Model
    step: DeviceStep = DeviceStep.ACCEPTED
    reason: Reason | None = None
    tries: int = 0
    at: float = 0.0

    def to(self, step: DeviceStep, reason: Reason | None = None) -> Attempt:
        """The same attempt one step further."""
        return replace(self, step=step, reason=reason)


class Journal:
    """The state database.

    Args:
        path: the file; made when missing.

    Raises:
        StorageError: it cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-64", "busy_timeout=5000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
            self._facts = {str(name): str(value) for name, value in self._rows("facts", "name, value")}
            records = (_slot_record(json.loads(row[0])) for row in self._rows("slots", "body"))
            self._slots = {record.slot: record for record in records}
            attempts = (_attempt(json.loads(row[0])) for row in self._rows("attempts", "body"))
            self._attempts = {attempt.slot: attempt for attempt in attempts}
        except (OSError, sqlite3.Error) as error:
            raise self._storage(error) from error

    def _rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        return self._db.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # facts -------------------------------------------------------------------------------------

    def get(self, name: str, default: str = "") -> str:
        """A remembered fact."""
        return self._facts.get(name, default)

    def put(self, **facts: str) -> None:
        """Remember facts, all of them or none."""
        self._write(*(("INSERT OR REPLACE INTO facts VALUES (?,?)", pair) for pair in facts.items()))
        self._facts = {**self._facts, **facts}

    def count(self, name: str) -> int:
        """Count one up, durably; returns the new value (1 the first time)."""
        value = int(self.get(name, "0")) + 1
        self.put(**{name: str(value)})
        return value

    def new_boot(self) -> str:
        """A boot id that sorts after all earlier ones."""
        return f"{self.count('boot'):08d}-{secrets.token_hex(4)}"

    # slots and attempts ------------------------------------------------------------------------

    def slots(self) -> dict[str, SlotRecord]:
        """What each slot runs, by name."""
        return dict(sorted(self._slots.items()))

    def attempts(self) -> dict[str, Attempt]:
        """The latest attempt of each slot, finished or not."""
        return dict(sorted(self._attempts.items()))

    def write(self, attempt: Attempt) -> None:
        """Note the step that is about to be done."""
        self._write(_put_attempt(attempt))
        self._attempts = {**self._attempts, attempt.slot: attempt}

    def settle(self, attempt: Attempt, record: SlotRecord) -> None:
        """Note the end of an attempt together with what the slot runs from now on, in one step."""
        self._write(_put_attempt(attempt), _put_slot(record))
        self._attempts = {**self._attempts, attempt.slot: attempt}
        self._slots = {**self._slots, record.slot: record}

    def set_slot(self, record: SlotRecord) -> None:
        """Note what a slot runs (crash-loop recovery)."""
        self._write(_put_slot(record))
        self._slots = {**self._slots, record.slot: record}

    def remove_slot(self, slot: str) -> None:
        """Note that a slot runs nothing any more."""
        self._write(
            ("DELETE FROM slots WHERE slot=?", (slot,)), ("DELETE FROM attempts WHERE slot=?", (slot,))
        )
        self._slots = {name: record for name, record in self._slots.items() if name != slot}
        self._attempts = {name: attempt for name, attempt in self._attempts.items() if name != slot}

    def _write(self, *statements: tuple[str, tuple[str, ...]]) -> None:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for sql, values in statements:
                    self._db.execute(sql, values)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise self._storage(error) from error

    def _storage(self, error: Exception) -> StorageError:
        full = "full" in str(error)
        return StorageError(
            f"the agent's state cannot be written: {error}",
            where=str(self._path),
            remedy="free some space" if full else None,
            code="disk_full" if full else None,
        )


def _put_attempt(attempt: Attempt) -> tuple[str, tuple[str, str]]:
    body = asdict(attempt)
    body["step"] = attempt.step.value
    body["reason"] = attempt.reason.to_dict() if attempt.reason else None
    return "INSERT OR REPLACE INTO attempts VALUES (?,?)", (attempt.slot, json.dumps(body))


def _put_slot(record: SlotRecord) -> tuple[str, tuple[str, str]]:
    return "INSERT OR REPLACE INTO slots VALUES (?,?)", (record.slot, json.dumps(asdict(record)))


def _slot_record(body: Mapping[str, Any]) -> SlotRecord:
    previous = body["previous"]
    return SlotRecord(
        slot=body["slot"],
        active=Model(**body["active"]),
        previous=Model(**previous) if previous else None,
    )


def _attempt(body: Mapping[str, Any]) -> Attempt:
    reason = body["reason"]
    fixed = {
        "model": Model(**body["model"]),
        "step": DeviceStep(body["step"]),
        "reason": Reason.from_dict(reason) if reason else None,
    }
    return Attempt(**{**body, **fixed})


__all__ = ["Attempt", "Journal", "Model", "SlotRecord"]
