"""A lease in SQL: one owner at a time, by the clock of the service; it ends by itself after a kill -9."""

from __future__ import annotations

from sqlalchemy.orm import Session

from edgekit_fleet.db.rollouts import LeaseRow


def hold(session: Session, name: str, owner: str, *, now: float, seconds: float) -> bool:
    """Take or renew the lease inside a write session; False while somebody else holds it."""
    row = session.get(LeaseRow, name)
    if row is None:
        session.add(LeaseRow(name=name, owner=owner, until=now + seconds))
        return True
    # A clock that was set back must not lock everybody out until it catches up.
    taken = row.owner != owner and now < row.until <= now + 10 * seconds
    if taken:
        return False
    row.owner, row.until = owner, now + seconds
    return True


def give_up(session: Session, name: str, owner: str) -> None:
    """Let go at a clean stop, so that the next owner need not wait."""
    row = session.get(LeaseRow, name)
    if row is not None and row.owner == owner:
        session.delete(row)
