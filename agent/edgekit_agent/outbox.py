"""The durable telemetry outbox: bounded, SQLite, emptied only by the service's own acknowledgement.

A record is deleted when an `Ack` names it, never because a broker took it. ``synchronous=FULL``: a
window written is there after a power cut; at one write a telemetry period that wears no memory card.
When it is full the oldest record goes and is counted, because the newest say how the device is now.
(boot_id, seq) names a record for ever; seq counts per boot, without holes, from 0.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json
from edgekit.documents import Ack
from edgekit.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  boot_id TEXT NOT NULL, seq INTEGER NOT NULL, slot TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (boot_id, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record to be sent: `payload` is the whole document, as it must travel now."""

    boot_id: str
    seq: int
    slot: str
    payload: bytes


class Outbox:
    """The outbox of one boot.

    Args:
        path: the file; made when missing.
        boot_id: of this boot; records of earlier boots stay until acknowledged.
        records: most records kept.
        size: most bytes of documents kept.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, boot_id: str, records: int = 20_000, size: int = 64 << 20) -> None:
        self._path, self._boot, self._lock = path, boot_id, threading.Lock()
        self._most_records, self._most_bytes = max(1, records), size
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-128", "busy_timeout=5000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
            newest = self._db.execute("SELECT MAX(seq) FROM records WHERE boot_id=?", (boot_id,)).fetchone()
            counted = self._db.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM records")
            self._count, self._bytes = counted.fetchone()
        except (OSError, sqlite3.Error) as error:
            raise self._storage(error) from error
        self._next = 0 if newest[0] is None else int(newest[0]) + 1

    def add(self, slot: str, document: Mapping[str, Any]) -> int:
        """Store a telemetry document (JSON-ready); `boot_id`, `seq`, `oldest` and `dropped` are set here.

        Returns its seq.

        Raises:
            StorageError: the disk is full; nothing was stored, and no seq was used up.
        """
        with self._lock:
            seq = self._next
            body = canonical_json({**document, "boot_id": self._boot, "seq": seq})
            try:
                self._db.execute("BEGIN IMMEDIATE")
                dropped = self._make_room(len(body))
                self._db.execute("INSERT INTO records VALUES (?,?,?,?)", (self._boot, seq, slot, body))
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise self._storage(error) from error
            self._next = seq + 1
            self._count += 1 - dropped[0]
            self._bytes += len(body) - dropped[1]
            return seq

    def _make_room(self, wanted: int) -> tuple[int, int]:
        """Drop the oldest records until one of `wanted` bytes fits; returns (records, bytes) dropped."""
        count, size = self._count, self._bytes
        doomed = []
        if count + 1 > self._most_records or size + wanted > self._most_bytes:
            rows = self._db.execute("SELECT boot_id, seq, LENGTH(body) FROM records ORDER BY boot_id, seq")
            for boot, seq, length in rows:
                if count + 1 <= self._most_records and size + wanted <= self._most_bytes:
                    break
                doomed.append((boot, seq))
                count, size = count - 1, size - length
            self._db.executemany("DELETE FROM records WHERE boot_id=? AND seq=?", doomed)
            self._db.execute(
                "INSERT INTO totals VALUES ('dropped', ?) "
                "ON CONFLICT(name) DO UPDATE SET value = value + excluded.value",
                (len(doomed),),
            )
        return self._count - count, self._bytes - size

    def pending(self, limit: int, *, after: tuple[str, int] = ("", -1)) -> list[Record]:
        """The oldest unacknowledged records behind `after`, at most `limit`, ready to travel."""
        with self._lock:
            rows = self._db.execute(
                "SELECT boot_id, seq, slot, body FROM records WHERE (boot_id, seq) > (?, ?) "
                "ORDER BY boot_id, seq LIMIT ?",
                (*after, limit),
            ).fetchall()
            oldest = dict(self._db.execute("SELECT boot_id, MIN(seq) FROM records GROUP BY boot_id"))
            dropped = self._dropped()
        return [
            Record(
                boot_id=boot,
                seq=seq,
                slot=slot,
                payload=canonical_json({**json.loads(body), "oldest": oldest[boot], "dropped": dropped}),
            )
            for boot, seq, slot, body in rows
        ]

    def acknowledge(self, ack: Ack) -> int:
        """Delete exactly what the service has committed; returns how many records."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                where = "boot_id=? AND seq<=?"
                removed, size = self._measure(where, (ack.boot_id, ack.seq))
                self._db.execute(f"DELETE FROM records WHERE {where}", (ack.boot_id, ack.seq))
                for seq in ack.also:
                    more = self._measure("boot_id=? AND seq=?", (ack.boot_id, seq))
                    removed, size = removed + more[0], size + more[1]
                    self._db.execute("DELETE FROM records WHERE boot_id=? AND seq=?", (ack.boot_id, seq))
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise self._storage(error) from error
            self._count -= removed
            self._bytes -= size
            return removed

    def _measure(self, where: str, values: tuple[str, int]) -> tuple[int, int]:
        sql = f"SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM records WHERE {where}"
        count, size = self._db.execute(sql, values).fetchone()
        return int(count), int(size)

    @property
    def depth(self) -> int:
        """Number of unacknowledged records."""
        return int(self._count)

    @property
    def dropped(self) -> int:
        """Records lost to a full outbox, in all boots."""
        with self._lock:
            return self._dropped()

    def _dropped(self) -> int:
        row = self._db.execute("SELECT value FROM totals WHERE name='dropped'").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _storage(self, error: Exception) -> StorageError:
        full = "full" in str(error)
        return StorageError(
            f"the telemetry outbox cannot be written: {error}",
            where=str(self._path),
            remedy="free some space" if full else None,
            code="disk_full" if full else None,
        )


__all__ = ["Outbox", "Record"]
