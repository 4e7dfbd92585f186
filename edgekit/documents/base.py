"""The base of all documents: JSON in, JSON out, unknown members kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, TypeVar

from edgekit.digest import canonical_json
from edgekit.sketches import Bins, LatencyHistogram
from edgekit.wire import Fields, parse_object, pruned

SCHEMA = 1
D = TypeVar("D", bound="Document")


@dataclass(frozen=True, kw_only=True)
class Document:
    """Base of all documents: JSON in, JSON out, unknown members kept."""

    kind: ClassVar[str] = "document"
    schema: int = SCHEMA
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; members that are None are left out."""
        body = {item.name: _plain(getattr(self, item.name)) for item in fields(self) if item.name != "extra"}
        return {**self.extra, **{name: value for name, value in body.items() if value is not None}}

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.to_dict())

    @classmethod
    def parse(cls: type[D], data: bytes) -> D:
        """Read untrusted bytes.

        Raises:
            DocumentError: not JSON, a member missing or of the wrong type, a schema too new.
        """
        return cls.from_dict(parse_object(data, where=cls.kind))

    @classmethod
    def from_dict(cls: type[D], value: Mapping[str, Any]) -> D:
        """`parse` for JSON that is parsed already."""
        return cls.read(Fields(value, where=cls.kind))

    @classmethod
    def read(cls: type[D], source: Fields) -> D:
        """Read from an object that is part of another document."""
        schema = source.integer("schema", SCHEMA)
        if schema > SCHEMA:
            raise source.fail("schema", f"{schema} is newer than {SCHEMA}, the newest known here")
        members = cls._members(source)
        return cls(**members, schema=schema, extra=source.rest())

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        raise NotImplementedError(cls)


def _plain(value: object) -> object:
    if isinstance(value, Document | Bins | LatencyHistogram):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return pruned(value)


def read_texts(source: Fields, name: str) -> dict[str, str]:
    """An object of strings, empty when absent."""
    members = source.mapping(name)
    if not all(isinstance(value, str) for value in members.values()):
        raise source.fail(name, "an object of strings was expected")
    return members


def read_numbers(source: Fields, name: str) -> dict[str, float]:
    """An object of numbers, empty when absent."""
    members = source.mapping(name)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in members.values()):
        raise source.fail(name, "an object of numbers was expected")
    return members
