"""Engine and sessions: SQLite in WAL mode by default, anything SQLAlchemy speaks otherwise.

A write session begins with ``BEGIN IMMEDIATE``: it waits for its turn at the start, so that a
transaction which read first can never fail half way because another writer came between. Commits are
durable (``synchronous = FULL``): a telemetry acknowledgement and a generation number must survive a
power cut, and batching keeps that cheap.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from edgekit.errors import StorageError
from edgekit_fleet.errors import BusyError, ConflictError

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 15


class Database:
    """One database. Thread-safe; each session belongs to one thread.

    Args:
        url: SQLAlchemy URL, for example ``sqlite:////srv/fleet/fleet.db``.
        committed: called with each write session after its commit; must not raise.
    """

    def __init__(self, url: str, *, committed: Callable[[Session], None] = lambda session: None) -> None:
        self._committed = committed
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
        writer = self._engine.execution_options(edgekit_begin="BEGIN IMMEDIATE")
        self._read = sessionmaker(self._engine, expire_on_commit=False)
        self._write = sessionmaker(writer, expire_on_commit=False)

    @property
    def engine(self) -> Engine:
        """The engine, for what sessions cannot do."""
        return self._engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; rolled back at the end."""
        with _translated(self._engine), self._read() as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session for writing; committed when the block ends well, else rolled back.

        Raises:
            StorageError: disk full or the like; nothing of the block is stored.
            BusyError: another writer kept the database too long.
        """
        with _translated(self._engine), self._write() as session:
            with session.begin():
                yield session
            self._committed(session)

    def upgrade(self) -> None:
        """Bring the tables to the newest version; does nothing when they are.

        Raises:
            StorageError: the database cannot be written, or is newer than this edgekit.
        """
        newest = max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
        with _translated(self._engine), self._engine.connect() as connection:
            here = _version(connection)
        if here == newest:
            return
        if here is not None and here > newest:
            raise StorageError(
                f"the database has version {here}, newer than {newest}, the newest known here",
                where=self._engine.url.render_as_string(hide_password=True),
                remedy="update edgekit",
                code="database_newer",
            )
        writer = self._engine.execution_options(edgekit_begin="BEGIN IMMEDIATE")
        with _translated(self._engine), writer.begin() as connection:
            _migrate(connection)

    def close(self) -> None:
        """Close all pooled connections."""
        self._engine.dispose()


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: Connection) -> None:
    from alembic import command  # slow to import, and seldom needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, see "begin"
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("edgekit_begin", "BEGIN"))


@contextlib.contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(
            f"somebody else changed it just now: {error.orig}", remedy="run it again", code="changed"
        ) from error
    except DatabaseError as error:
        words = str(error.orig)
        where = engine.url.render_as_string(hide_password=True)
        if "locked" in words or "busy" in words:
            raise BusyError("another process keeps the database", where=where) from error
        full = "full" in words
        raise StorageError(
            f"the database cannot be used: {words}",
            where=where,
            remedy="free some space and run it again" if full else None,
            code="disk_full" if full else None,
        ) from error
