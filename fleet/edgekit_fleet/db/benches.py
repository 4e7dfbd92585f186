"""The table of measurements on devices: one row an order, with what came of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from edgekit_fleet.db.tables import Base


class BenchRow(Base):
    """One variant to measure on one device.

    `state` is ``waiting`` (for the device, until `expires`), ``sent`` (an order that is good until
    `expires`), ``file`` (likewise, as a file), ``done``, ``refused``, ``failed`` or ``expired``. `hardware`
    is the device's stratum when it was asked, `entry` the variant's line in the signed table, `result` the
    accepted `BenchResult`, `reason` why there are no figures.
    """

    __tablename__ = "benches"
    __table_args__ = (Index("ix_benches_device_state", "device", "state"),)

    cid: Mapped[str] = mapped_column(String(40), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    hardware: Mapped[str] = mapped_column(String(64))
    release: Mapped[str] = mapped_column(String(257), index=True)
    package: Mapped[str] = mapped_column(String(71))
    variant: Mapped[str] = mapped_column(String(128))
    entry: Mapped[dict[str, Any]]
    runs: Mapped[int]
    seconds: Mapped[float]
    threads: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), index=True)
    actor: Mapped[str] = mapped_column(String(128))
    created: Mapped[float] = mapped_column(index=True)
    issued: Mapped[float | None]
    expires: Mapped[float]
    ended: Mapped[float | None]
    reason: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
