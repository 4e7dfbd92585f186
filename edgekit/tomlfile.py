"""Reading TOML files that people write: strict, and every error says file, key and what was allowed.

Profiles, rules and contracts are read through a `Table`. Unlike `edgekit.wire`, which keeps unknown
members for newer readers, a key nobody asked for is an error here, because in a hand-written file
it is a spelling mistake.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, TypeVar

from edgekit.errors import UsageError
from edgekit.tomllines import key_lines, line_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_LIMIT = 4 << 20


def read_toml(path: Path, error: type[UsageError], *, lines: bool = False) -> Table:
    """Read `path` as a Table whose complaints are of class `error`, with line numbers if `lines`.

    Raises:
        UsageError: of the given class; missing, unreadable, too large, not UTF-8 or not TOML.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"cannot read: {problem.strerror}", where=str(path)) from problem
    if len(data) > _LIMIT:
        raise error(f"{len(data)} bytes, at most {_LIMIT} allowed", where=str(path))
    try:
        text = data.decode("utf-8")
        value = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as problem:
        raise error(f"not valid TOML: {problem}", where=str(path)) from problem
    return Table(value, where=str(path), error=error, lines=key_lines(text) if lines else None)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Advice for a word that is none of `choices`: the nearest ones, else all of them."""
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"known: {', '.join(known)}" if known else "none are known here"


class Table:
    """Typed access to one TOML table (or JSON object); `finish` refuses keys that nobody asked for.

    Args:
        value: the table.
        where: file and key path, for errors.
        error: the class to raise.
        path: dotted keys that lead here.
        strict: whether `finish` refuses unknown keys; sub-tables inherit it.
        lines: where each key stands (`edgekit.tomllines`), for errors.
    """

    def __init__(
        self,
        value: object,
        *,
        where: str,
        error: type[UsageError],
        path: str = "",
        strict: bool = True,
        lines: Mapping[str, int] | None = None,
    ) -> None:
        self._where, self._error, self._path, self._strict = where, error, path, strict
        self._lines = lines or {}
        if not isinstance(value, Mapping):
            raise self._fail(f"a table was expected, not {type(value).__name__}")
        self._value: Mapping[str, Any] = value
        self._seen: set[str] = set()
        self._known: set[str] = set()

    def _fail(self, message: str, key: str = "", remedy: str | None = None) -> UsageError:
        dotted = ".".join(part for part in (self._path, key) if part)
        line = line_of(dotted, self._lines)
        file = self._where if line is None else f"{self._where}:{line}"
        where = f"{file}: {dotted}" if dotted else self._where
        return self._error(message, where=where, remedy=remedy)

    def fail(self, key: str, message: str, remedy: str | None = None) -> UsageError:
        """The error for `key`, to be raised by the caller."""
        return self._fail(message, key, remedy)

    def has(self, key: str) -> bool:
        """Whether `key` is there; asking makes it a known key."""
        self._known.add(key)
        return key in self._value

    def _missing(self, key: str, expected: str) -> UsageError:
        """The error for a key that is not there, with the unknown one that may have been meant."""
        strange = [name for name in self._value if name not in self._seen]
        near = difflib.get_close_matches(key, strange, n=1)
        remedy = f"is it what {near[0]!r} should be?" if near else None
        return self.fail(key, f"is required, {expected} was expected", remedy)

    def _take(self, key: str) -> Any:
        self._known.add(key)
        self._seen.add(key)
        return self._value.get(key)

    def text(self, key: str, default: str | None = None, *, allowed: Collection[str] = ()) -> str:
        """A string, one of `allowed` if given; required without a default."""
        value = self._take(key)
        if value is None:
            if default is None:
                raise self._missing(key, "a string")
            return default
        if not isinstance(value, str):
            raise self.fail(key, f"a string was expected, not {value!r}")
        return self._one_of(key, value, allowed)

    def _one_of(self, key: str, value: str, allowed: Collection[str]) -> str:
        if allowed and value not in allowed:
            choices = ", ".join(sorted(allowed))
            near = difflib.get_close_matches(value, sorted(allowed), n=1)
            remedy = f"did you mean {near[0]!r}?" if near else None
            raise self.fail(key, f"{value!r} is not one of {choices}", remedy)
        return value

    def maybe_text(self, key: str) -> str | None:
        """A string, or None when absent."""
        return self.text(key) if self.has(key) else None

    def texts(
        self, key: str, *, allowed: Collection[str] = (), some: bool = False, once: bool = False
    ) -> tuple[str, ...]:
        """A list of strings, empty when absent; with `some` not empty, with `once` none of them twice."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self.fail(key, "a list of strings was expected")
        if some and not values:
            raise self.fail(
                key, "at least one is required", f"choose of {', '.join(allowed)}" if allowed else None
            )
        twice = next((value for value in values if once and list(values).count(value) > 1), None)
        if twice is not None:
            raise self.fail(key, f"{twice!r} stands there twice")
        return tuple(self._one_of(key, value, allowed) for value in values)

    def _list(self, key: str) -> Sequence[Any]:
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise self.fail(key, "a list was expected")
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int | None = None) -> int:
        """A whole number of at least `low` and, if given, at most `high`; required without a default."""
        value = self._take(key)
        if value is None and default is not None:
            return default
        allowed = f"a whole number of at least {low}{'' if high is None else f' and at most {high}'}"
        if value is None:
            raise self._missing(key, allowed)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):
            raise self.fail(key, f"{allowed} was expected, not {value!r}")
        found: int = value
        return found

    def maybe_integer(self, key: str, *, low: int = 0, high: int | None = None) -> int | None:
        """The same, or None when absent."""
        return self.integer(key, low=low, high=high) if self.has(key) else None

    def integers(self, key: str, *, low: int = -1) -> tuple[int, ...]:
        """A list of whole numbers of at least `low`, empty when absent."""
        values = self._list(key)
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= low for v in values):
            raise self.fail(key, f"a list of whole numbers of at least {low} was expected")
        return tuple(values)

    def number(self, key: str, default: float | None = None, *, above: float | None = None) -> float:
        """A finite number, greater than `above` if given; required without a default."""
        value = self._take(key)
        if value is None and default is not None:
            return default
        allowed = "a finite number" if above is None else f"a finite number above {above:g}"
        if value is None:
            raise self._missing(key, allowed)
        if not _is_number(value) or (above is not None and value <= above):
            raise self.fail(key, f"{allowed} was expected, not {value!r}")
        return float(value)

    def maybe_number(self, key: str, *, above: float | None = None) -> float | None:
        """The same, or None when absent."""
        return self.number(key, above=above) if self.has(key) else None

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers, empty when absent."""
        values = self._list(key)
        if not all(_is_number(value) for value in values):
            raise self.fail(key, "a list of finite numbers was expected")
        return tuple(float(value) for value in values)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, f"true or false was expected, not {value!r}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A free table as JSON-ready values (dates become text), empty when absent."""
        value = self._take(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.fail(key, "a table was expected")
        return {name: json_ready(member) for name, member in value.items()}

    def free(self, key: str) -> Any:
        """Whatever stands there, JSON-ready."""
        return json_ready(self._take(key))

    def rest(self) -> dict[str, Any]:
        """The members nobody asked for, JSON-ready."""
        return {key: json_ready(value) for key, value in self._value.items() if key not in self._seen}

    def table(self, key: str) -> Table:
        """The sub-table `key`, an empty one when absent."""
        value = self._take(key)
        path = f"{self._path}.{key}" if self._path else key
        return self._sub({} if value is None else value, path)

    def at(self, path: str, value: object) -> Table:
        """`value`, which stands at the dotted `path` of this file, as a table of its own."""
        return self._sub(value, path)

    def _sub(self, value: object, path: str) -> Table:
        return Table(
            value,
            where=self._where,
            error=self._error,
            path=path,
            strict=self._strict,
            lines=self._lines,
        )

    def tables(self, key: str, build: Callable[[Table], T]) -> tuple[T, ...]:
        """A list of tables (``[[key]]``), each read by `build` and finished."""
        path = f"{self._path}.{key}" if self._path else key
        items = enumerate(self._list(key))
        return tuple(_built(self._sub(value, f"{path}[{index}]"), build) for index, value in items)

    def members(self, key: str, build: Callable[[Table], T]) -> dict[str, T]:
        """A table of tables (``[key.name]``), each read by `build` and finished."""
        outer = self.table(key)
        return {name: _built(outer.table(name), build) for name in outer.names()}

    def names(self) -> tuple[str, ...]:
        """The keys of the table, in the file's order."""
        return tuple(self._value)

    def finish(self) -> None:
        """Refuse keys that nobody asked for.

        Raises:
            UsageError: naming the first such key, the nearest known ones and all that are known.
        """
        for key in self._value:
            if self._strict and key not in self._seen:
                raise self.fail(key, "unknown key", self._advice(key))

    def _advice(self, key: str) -> str:
        advice, everything = did_you_mean(key, self._known), did_you_mean("", self._known)
        return advice if advice == everything else f"{advice} {everything}"


def _built(table: Table, build: Callable[[Table], T]) -> T:
    result = build(table)
    table.finish()
    return result


def json_ready(value: Any) -> Any:
    """TOML values as JSON ones: dates and times become ISO text."""
    if isinstance(value, Mapping):
        return {key: json_ready(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(member) for member in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
