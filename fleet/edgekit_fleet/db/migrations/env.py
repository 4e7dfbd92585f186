"""Alembic's environment: runs on the connection `Database.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from edgekit_fleet.db.tables import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations through edgekit_fleet.db.Database.upgrade")
context.configure(
    connection=connection, target_metadata=Base.metadata, render_as_batch=connection.dialect.name == "sqlite"
)
with context.begin_transaction():
    context.run_migrations()
