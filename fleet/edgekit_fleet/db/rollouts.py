"""The rollout tables: rollouts, rings, members and their history, telemetry, judgements, lease.

Everything the reconciler decides from stands here, so that it can be killed at any point. JSON
columns hold what the pure core writes (`Plan.to_dict`, `Judgement.to_dict`) and wire documents.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from edgekit_fleet.db.tables import Base


class RolloutRow(Base):
    """A rollout. `revision` grows with each change that people can see; `pause` says what holds a
    paused one (``manual``, ``gate``, ``approval``, ``stalled``, ``invalidated``); `scope` is
    ``all`` or ``ring`` while rolling back."""

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    slot: Mapped[str] = mapped_column(ForeignKey("slots.name"), index=True)
    release: Mapped[str] = mapped_column(String(257))
    package: Mapped[str] = mapped_column(String(71))
    previous: Mapped[str] = mapped_column(String(257), default="")
    state: Mapped[str] = mapped_column(String(20), index=True)
    pause: Mapped[str] = mapped_column(String(20), default="")
    reason: Mapped[str] = mapped_column(String(4096), default="")
    plan: Mapped[dict[str, Any]]
    salt: Mapped[str] = mapped_column(String(128))
    truth: Mapped[dict[str, Any] | None]
    table: Mapped[list[Any]]
    reference: Mapped[dict[str, Any]] = mapped_column(default=dict)
    allow_unverified: Mapped[bool] = mapped_column(default=False)
    actor: Mapped[str] = mapped_column(String(128))
    created: Mapped[float]
    updated: Mapped[float]
    ended: Mapped[float | None]
    ring: Mapped[int] = mapped_column(default=0)
    scope: Mapped[str] = mapped_column(String(8), default="")
    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    published: Mapped[int] = mapped_column(BigInteger, default=0)


class RingRow(Base):
    """A ring of a rollout; `excluded` maps the devices left out when it opened to why."""

    __tablename__ = "rings"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20))
    opened: Mapped[float] = mapped_column(default=0.0)
    soaking_since: Mapped[float] = mapped_column(default=0.0)
    closed: Mapped[float] = mapped_column(default=0.0)
    approved: Mapped[bool] = mapped_column(default=False)
    verdict: Mapped[str] = mapped_column(String(16), default="")
    reason: Mapped[str] = mapped_column(String(4096), default="")
    looked: Mapped[float] = mapped_column(default=0.0)
    looked_at: Mapped[int] = mapped_column(BigInteger, default=0)
    excluded: Mapped[dict[str, Any]] = mapped_column(default=dict)
    judgement: Mapped[dict[str, Any] | None]


class MemberRow(Base):
    """A device in a rollout (`edgekit_fleet.rollout.states.Member`) with the variant it was given.

    `before` is the slot's `SlotDesire` it goes back to, None when the slot was empty. The `back_…`
    columns are its way back: generation, step, since when, since when it counts, and why.
    """

    __tablename__ = "members"
    __table_args__ = (Index("ix_members_device", "device"),)

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    ring: Mapped[int]
    hardware: Mapped[str] = mapped_column(String(64))
    position: Mapped[int] = mapped_column(default=0)
    variant: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(71))
    step: Mapped[str] = mapped_column(String(16))
    since: Mapped[float]
    first: Mapped[float] = mapped_column(default=0.0)
    notified: Mapped[float] = mapped_column(default=0.0)
    attempt: Mapped[int] = mapped_column(default=1)
    gen: Mapped[int] = mapped_column(BigInteger, default=0)
    reason: Mapped[dict[str, Any] | None]
    late_step: Mapped[str] = mapped_column(String(16), default="")
    retry_at: Mapped[float] = mapped_column(default=0.0)
    before: Mapped[dict[str, Any] | None]
    back_step: Mapped[str] = mapped_column(String(16), default="")
    back_since: Mapped[float] = mapped_column(default=0.0)
    back_notified: Mapped[float] = mapped_column(default=0.0)
    back_gen: Mapped[int] = mapped_column(BigInteger, default=0)
    back_reason: Mapped[dict[str, Any] | None]


class StepRow(Base):
    """One step of one member, append-only: the history that `rollout explain` shows."""

    __tablename__ = "steps"
    __table_args__ = (Index("ix_steps_member", "rollout", "device"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rollout: Mapped[str] = mapped_column(String(64))
    device: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    step: Mapped[str] = mapped_column(String(16))
    back: Mapped[bool] = mapped_column(default=False)
    late: Mapped[bool] = mapped_column(default=False)
    at: Mapped[float]
    reason: Mapped[dict[str, Any] | None]


class EventRow(Base):
    """A device's own account of a transition (`edgekit.documents.Event`), stored once."""

    __tablename__ = "device_events"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[float]
    received: Mapped[float] = mapped_column(index=True)
    deployment: Mapped[str] = mapped_column(String(80))
    slot: Mapped[str] = mapped_column(String(64))
    step: Mapped[str] = mapped_column(String(16))
    reason: Mapped[dict[str, Any] | None]


class TelemetryRow(Base):
    """A window or probe report, stored once per (device, boot_id, seq); `id` grows with arrival."""

    __tablename__ = "telemetry"
    __table_args__ = (
        UniqueConstraint("device", "boot_id", "seq"),
        Index("ix_telemetry_slot_id", "slot", "id"),
        Index("ix_telemetry_device_received", "device", "slot", "received"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    boot_id: Mapped[str] = mapped_column(String(64))
    seq: Mapped[int] = mapped_column(BigInteger)
    record: Mapped[str] = mapped_column(String(8))
    slot: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(71))
    deployment: Mapped[str] = mapped_column(String(80))
    at: Mapped[float]
    received: Mapped[float] = mapped_column(index=True)
    body: Mapped[dict[str, Any]]


class ReceivedRow(Base):
    """What is stored of one boot of one device (`edgekit_fleet.rollout.reducers.Received`)."""

    __tablename__ = "received"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    boot_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    also: Mapped[list[Any]]
    dropped: Mapped[int] = mapped_column(BigInteger, default=0)


class JudgementRow(Base):
    """One judgement of a ring with all that is needed to repeat it: the devices as they stood
    (`subjects`) and the last telemetry id that was looked at (`cut`)."""

    __tablename__ = "judgements"
    __table_args__ = (
        ForeignKeyConstraint(["rollout", "ring"], ["rings.rollout", "rings.idx"]),
        Index("ix_judgements_ring", "rollout", "ring"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rollout: Mapped[str] = mapped_column(String(64))
    ring: Mapped[int]
    at: Mapped[float]
    cut: Mapped[int] = mapped_column(BigInteger)
    subjects: Mapped[list[Any]]
    judgement: Mapped[dict[str, Any]]


class LeaseRow(Base):
    """Who may move rollouts, and until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    until: Mapped[float]
