"""The agent's memory: what runs, what is being tried, what was seen last. SQLite, one small file.

Written *before* each step is done, with ``synchronous=FULL``: after a power cut the recovery table of
`edgekit_agent.swap` decides on what stands here. Rows are few and writes rare (some twenty a swap),
so every write may cost an fsync. Thread-safe by a lock.
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
        except (OSError, sqlite3.Error) as error:
            raise self._storage(error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # facts -------------------------------------------------------------------------------------

    def get(self, name: str, default: str = "") -> str:
        """A remembered fact."""
        with self._lock:
            row = self._db.execute("SELECT value FROM facts WHERE name=?", (name,)).fetchone()
        return str(row[0]) if row else default

    def put(self, name: str, value: str) -> None:
        """Remember a fact."""
        self._write(("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, value)))

    def count(self, name: str) -> int:
        """Count one up, durably; returns the new value (1 the first time)."""
        value = int(self.get(name, "0")) + 1
        self.put(name, str(value))
        return value

    def new_boot(self) -> str:
        """A boot id that sorts after all earlier ones."""
        return f"{self.count('boot'):08d}-{secrets.token_hex(4)}"

    # slots and attempts ------------------------------------------------------------------------

    def slots(self) -> dict[str, SlotRecord]:
        """What each slot runs."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM slots ORDER BY slot").fetchall()
        records = (_slot_record(json.loads(row[0])) for row in rows)
        return {record.slot: record for record in records}

    def attempts(self) -> dict[str, Attempt]:
        """The latest attempt of each slot, finished or not."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM attempts ORDER BY slot").fetchall()
        found = (_attempt(json.loads(row[0])) for row in rows)
        return {attempt.slot: attempt for attempt in found}

    def write(self, attempt: Attempt) -> None:
        """Note the step that is about to be done."""
        self._write(_put_attempt(attempt))

    def settle(self, attempt: Attempt, record: SlotRecord) -> None:
        """Note the end of an attempt together with what the slot runs from now on, in one step."""
        self._write(_put_attempt(attempt), _put_slot(record))

    def set_slot(self, record: SlotRecord) -> None:
        """Note what a slot runs (crash-loop recovery)."""
        self._write(_put_slot(record))

    def _write(self, *statements: tuple[str, tuple[str, str]]) -> None:
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
