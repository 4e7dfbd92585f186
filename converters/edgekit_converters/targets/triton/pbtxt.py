"""protobuf's text form, written from plain values: what Triton reads as ``config.pbtxt``.

A message is a mapping, a repeated field a list, an enum value a `Word`, a map field a `Map`. Whether the
fields exist is not known here: `check` asks Triton's own protobuf.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Word(str):
    """A value that is written without quotes: an enum's name."""

    __slots__ = ()


class Map(dict[str, Any]):
    """A map field: written as entries of key and value."""


def text(message: Mapping[str, Any]) -> str:
    """`message` in protobuf's text form, fields in the order given."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Map):
            for key, item in value.items():
                yield from _field(name, {"key": key, "value": item})
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                yield from _field(name, item)
        else:
            yield from _field(name, value)


def _field(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield f"{name} {{"
        yield from (f"  {line}" for line in _lines(value))
        yield "}"
    else:
        yield f"{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[ {', '.join(_scalar(item) for item in value)} ]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word):
        return str(value)
    return json.dumps(value, ensure_ascii=True)
