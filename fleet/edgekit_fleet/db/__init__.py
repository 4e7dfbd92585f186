"""The fleet's state in SQL: `Database` (engine, sessions, migrations) and the base tables."""

from __future__ import annotations

from edgekit_fleet.db.engine import Database
from edgekit_fleet.db.tables import Base

__all__ = ["Base", "Database"]
