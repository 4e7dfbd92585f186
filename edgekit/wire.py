"""Reading untrusted JSON into frozen dataclasses, strictly and with the field named in every error.

A `Fields` wraps one JSON object and hands out typed members; what was not asked for is `rest()`,
which documents keep so that a field added by a newer version survives a round trip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from edgekit.errors import DocumentError

T = TypeVar("T")

MAX_DOCUMENT = 4 << 20


def parse_object(data: bytes, *, where: str, limit: int = MAX_DOCUMENT) -> dict[str, Any]:
    """Parse `data` as one JSON object of at most `limit` bytes.

    Raises:
        DocumentError: too large, not UTF-8, not JSON, duplicate keys, NaN, or not an object.
    """
    if len(data) > limit:
        raise DocumentError(f"{len(data)} bytes, at most {limit} allowed", where=where)
    try:
        value = json.loads(data, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"not valid JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise DocumentError(f"a JSON object was expected, not {type(value).__name__}", where=where)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


class Fields:
    """Typed access to the members of one untrusted JSON object.

    Args:
        value: the object.
        where: what it is, for errors, for example ``desired``.
    """

    def __init__(self, value: object, *, where: str) -> None:
        if not isinstance(value, Mapping):
            raise DocumentError(f"an object was expected, not {type(value).__name__}", where=where)
        self._value: Mapping[str, Any] = value
        self._where = where
        self._seen: set[str] = set()

    def _take(self, name: str) -> Any:
        self._seen.add(name)
        return self._value.get(name)

    def fail(self, name: str, message: str) -> DocumentError:
        """The error for member `name`, to be raised by the caller."""
        return DocumentError(message, where=f"{self._where}.{name}")

    def has(self, name: str) -> bool:
        """Whether member `name` is there and not null."""
        return self._value.get(name) is not None

    def text(self, name: str, default: str | None = None, *, limit: int = 65_536) -> str:
        """A string of at most `limit` characters."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or len(value) > limit:
            raise self.fail(name, f"a string of at most {limit} characters was expected")
        return value

    def maybe_text(self, name: str) -> str | None:
        """A string, or None when absent."""
        return self.text(name) if self.has(name) else self._take(name)

    def integer(self, name: str, default: int | None = None, *, low: int = 0, high: int = 1 << 53) -> int:
        """A whole number within [low, high]."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(name, f"a whole number within [{low}, {high}] was expected")
        return value

    def maybe_integer(self, name: str) -> int | None:
        """A whole number ≥ 0, or None when absent."""
        return self.integer(name) if self.has(name) else self._take(name)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(name, "a finite number was expected")
        return float(value)

    def maybe_number(self, name: str) -> float | None:
        """A finite number, or None when absent."""
        return self.number(name) if self.has(name) else self._take(name)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, bool):
            raise self.fail(name, "true or false was expected")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, empty when absent."""
        value = self._take(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.fail(name, "an object was expected")
        return dict(value)

    def sequence(self, name: str) -> Sequence[Any]:
        """A list, empty when absent."""
        value = self._take(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise self.fail(name, "a list was expected")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty when absent."""
        values = self.sequence(name)
        if not all(isinstance(value, str) for value in values):
            raise self.fail(name, "a list of strings was expected")
        return tuple(values)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers (negative ones too), empty when absent."""
        values = self.sequence(name)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self.fail(name, "a list of whole numbers was expected")
        return tuple(values)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers, empty when absent."""
        values = self.sequence(name)
        if not all(_is_number(value) for value in values):
            raise self.fail(name, "a list of finite numbers was expected")
        return tuple(float(value) for value in values)

    def counts(self, name: str) -> dict[str, int]:
        """An object of whole numbers ≥ 0, empty when absent."""
        members = self.mapping(name)
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in members.values()):
            raise self.fail(name, "an object of counts was expected")
        return members

    def objects(self, name: str, build: Callable[[Fields], T]) -> tuple[T, ...]:
        """A list of objects, each read by `build`."""
        items = self.sequence(name)
        return tuple(build(Fields(v, where=f"{self._where}.{name}[{i}]")) for i, v in enumerate(items))

    def members(self, name: str, build: Callable[[Fields], T]) -> dict[str, T]:
        """An object of objects, each read by `build`."""
        items = self.mapping(name)
        return {key: build(Fields(v, where=f"{self._where}.{name}.{key}")) for key, v in items.items()}

    def child(self, name: str) -> Fields:
        """A required object as Fields."""
        return Fields(self._take(name), where=f"{self._where}.{name}")

    def maybe(self, name: str, build: Callable[[Fields], T]) -> T | None:
        """An optional object read by `build`."""
        return build(self.child(name)) if self.has(name) else self._take(name)

    def rest(self) -> dict[str, Any]:
        """The members nobody asked for."""
        return {key: value for key, value in self._value.items() if key not in self._seen}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def pruned(value: object) -> object:
    """A JSON-ready copy of `value` in which members that are None are left out and tuples are lists."""
    if isinstance(value, dict):
        return {key: pruned(member) for key, member in value.items() if member is not None}
    if isinstance(value, list | tuple):
        return [pruned(member) for member in value]
    return value
