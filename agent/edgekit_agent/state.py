"""The running agent's account of itself on disk, for `edgekit-agent status` and for people's scripts.

``state/live.json`` is rewritten when something in it changes; ``state/lock`` is held as long as an
agent runs, so that a stale account is recognised and a second agent refused.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgekit.errors import StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit_agent.config import Home, load_identity
from edgekit_agent.errors import ConfigError
from edgekit_agent.journal import Journal


class Lock:
    """The home's lock, held until `release` (or the end of the process).

    Raises:
        ConfigError: another agent runs in this home.
    """

    def __init__(self, home: Home) -> None:
        home.state.mkdir(parents=True, exist_ok=True)
        self._stream: IO[str] = (home.state / "lock").open("a+")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.close()
            raise ConfigError(
                "an agent runs in this home already",
                where=str(home.path),
                remedy="stop it, or use another --home",
                code="already_running",
            ) from error

    def release(self) -> None:
        """Let another agent run here."""
        self._stream.close()


class Live:
    """Writes ``live.json`` when it changes."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, ""

    def write(self, facts: Mapping[str, Any]) -> None:
        """Write `facts` if they are news.

        Raises:
            StorageError: the disk is full.
        """
        text = json.dumps(facts, sort_keys=True)
        if text != self._last:
            atomic_write(self._path, text.encode())
            self._last = text


def running(home: Home) -> bool:
    """Whether an agent holds the home's lock now."""
    path = home.state / "lock"
    if not path.exists():
        return False
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def status(home: Home) -> dict[str, Any]:
    """Everything worth knowing about the agent of a home, running or not, JSON-ready.

    Raises:
        NotEnrolledError: the home has no identity.
    """
    identity = load_identity(home)
    alive = running(home)
    live = _object(home.live)
    if not alive:
        live = {**live, "connected": False, "pid": None}
    facts = {
        "schema": 1,
        "device": identity.device,
        "tenant": identity.tenant,
        "hardware": identity.hardware,
        "service": identity.url,
        "home": str(home.path),
        "running": alive,
        "http": _object(home.http).get("url") if alive else None,
    }
    return {**facts, **live, **_journal(home)}


def _journal(home: Home) -> dict[str, Any]:
    path = home.state / "agent.db"
    if not path.exists():
        return {"gen": 0, "step": "idle", "deployment": "", "reason": None, "slots": {}}
    journal = Journal(path)
    try:
        reported = json.loads(journal.get("reported", "{}"))
        slots = {
            name: {
                "release": record.active.release,
                "variant": record.active.variant,
                "digest": record.active.digest,
                "package": record.active.package,
                "deployment": record.active.deployment,
                "since": record.active.since,
                "previous": record.previous.release if record.previous else None,
            }
            for name, record in journal.slots().items()
        }
        return {
            "gen": int(journal.get("gen", "0")),
            "step": reported.get("step", "idle"),
            "deployment": reported.get("deployment", ""),
            "reason": reported.get("reason"),
            "slots": slots,
        }
    finally:
        journal.close()


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(path, limit=1 << 20))
    except (StorageError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


__all__ = ["Live", "Lock", "running", "status"]
