"""The base tables: devices, tokens, slots, probe sets, releases, desired documents, audit.

Times are seconds since the epoch, UTC, by the service's clock. JSON columns hold what
`edgekit.documents` and `edgekit.contract` write. Rollout tables stand beside their code and share
`Base`; every table comes into being through a migration.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables of the fleet."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, TypeEngine[Any]]] = {
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class DeviceRow(Base):
    """An enrolled device.

    `gen` is the highest generation ever issued to it; `session` and `boot_id` are those of the newest
    presence; `pins` maps slot → release that rollouts must leave alone; `reported` is the newest
    `Reported` document. `password` is the salted hash (mosquitto's ``$7$`` form) that broker and HTTP
    check; `public_key` the device's own Ed25519 key in hex.
    """

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    hardware: Mapped[str] = mapped_column(String(64), index=True)
    facts: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16), default="enrolled", index=True)
    enrolled: Mapped[float]
    last_seen: Mapped[float | None]
    session: Mapped[int] = mapped_column(BigInteger, default=-1)
    boot_id: Mapped[str] = mapped_column(String(64), default="")
    pins: Mapped[dict[str, Any]] = mapped_column(default=dict)
    gen: Mapped[int] = mapped_column(BigInteger, default=0)
    reported: Mapped[dict[str, Any] | None]
    public_key: Mapped[str] = mapped_column(String(64), unique=True)
    password: Mapped[str] = mapped_column(String(256))


class TokenRow(Base):
    """A one-time enrolment token; only its hash is stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    secret: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(64), default="")
    created: Mapped[float]
    expires: Mapped[float]
    used: Mapped[float | None]
    device: Mapped[str | None] = mapped_column(ForeignKey("devices.id"))


class SlotRow(Base):
    """A named place on devices; `contract` is `edgekit.contract.Contract.to_dict()`."""

    __tablename__ = "slots"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    contract: Mapped[dict[str, Any]]
    created: Mapped[float]


class ProbeSetRow(Base):
    """A ground-truth probe set of a slot; the one with the highest `n` counts."""

    __tablename__ = "probe_sets"

    slot: Mapped[str] = mapped_column(ForeignKey("slots.name"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(String(256))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    items: Mapped[int]
    min_accuracy: Mapped[float]
    policy: Mapped[str] = mapped_column(String(16))
    created: Mapped[float]


class ReleaseRow(Base):
    """One revision of a package. `state` is ``added``, ``signed``, ``replaced`` or ``invalidated``;
    at most one revision of a ref is signed. `digest` is ``sha256:…`` of package.json, which lies among
    the blobs. `table` is the variant table (`VariantEntry.to_dict()`)."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("digest"), Index("ix_releases_name_version", "name", "version"))

    ref: Mapped[str] = mapped_column(String(257), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(71))
    state: Mapped[str] = mapped_column(String(16), index=True)
    table: Mapped[list[Any]]
    size: Mapped[int] = mapped_column(BigInteger)
    added: Mapped[float]
    signed: Mapped[float | None]
    reason: Mapped[str] = mapped_column(String(1024), default="")


class DesiredRow(Base):
    """The newest signed desired document of a device; `published` is the gen the broker has taken."""

    __tablename__ = "desired"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    gen: Mapped[int] = mapped_column(BigInteger)
    envelope: Mapped[dict[str, Any]]
    issued: Mapped[float]
    published: Mapped[int] = mapped_column(BigInteger, default=0)


class AuditRow(Base):
    """One act, append-only. `hash` covers the row and `prev`, the hash of the row before."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(String(128))
    verb: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(String(300), index=True)
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    prev: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64), unique=True)


class MetaRow(Base):
    """Single values, such as the service's epoch."""

    __tablename__ = "meta"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(1024))
