"""What a device remembers about measurements: which orders it has taken, and which one is under way.

``state/bench.json``, written before anything is measured, so that neither a replayed message nor a restart
runs an order twice. An order that has expired is forgotten only when room is needed: a clock that was set
back does not make it new again. The lock beside it lets one measurement run
at a time, the resident agent's or that of ``edgekit-agent bench``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.documents import BenchOrder
from edgekit.errors import StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit_agent.errors import BusyError

_KEPT = 1000
_LIMIT = 1 << 20


class BenchBook:
    """The memory below the folder `state`. Callers hold `alone` while they change it."""

    def __init__(self, state: Path) -> None:
        self._path = state / "bench.json"
        self._lock = state / "bench.lock"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else measures on this device inside.

        Raises:
            BusyError: somebody does.
            StorageError: the folder cannot be written.
        """
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            opened = self._lock.open("a+")
        except OSError as error:
            raise StorageError(f"cannot be written: {error.strerror}", where=str(self._lock)) from error
        with opened as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BusyError("another measurement runs on this device", code="bench_running") from error
            yield

    def knows(self, cid: str) -> bool:
        """Whether this order was taken before."""
        return cid in self._read()["taken"]

    def take(self, order: BenchOrder, *, now: float) -> None:
        """Note that this order is taken and under way.

        Raises:
            BusyError: too many orders that are still good are remembered.
            StorageError: it cannot be written; nothing may be measured then.
        """
        taken = self._read()["taken"]
        if len(taken) >= _KEPT:
            taken = {cid: until for cid, until in taken.items() if until > now}
        if len(taken) >= _KEPT:
            raise BusyError(f"{_KEPT} orders were taken that have not expired", code="too_many_orders")
        taken[order.cid] = order.expires
        self._write({"taken": taken, "under_way": {"cid": order.cid, "digest": order.digest}})

    def done(self) -> None:
        """Nothing is under way any more."""
        self._write({**self._read(), "under_way": None})

    def interrupted(self) -> Mapping[str, str] | None:
        """``cid`` and ``digest`` of the order that was under way when a process ended, if any."""
        found: Mapping[str, str] | None = self._read()["under_way"]
        return found

    def _read(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"taken": {}, "under_way": None}
        if not self._path.exists():
            return empty
        try:
            value = json.loads(read_bytes(self._path, limit=_LIMIT))
            return {"taken": dict(value["taken"]), "under_way": value["under_way"]}
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"damaged: {error}", where=str(self._path), remedy="remove it") from error

    def _write(self, value: Mapping[str, Any]) -> None:
        atomic_write(self._path, json.dumps(value, sort_keys=True).encode())


__all__ = ["BenchBook"]
