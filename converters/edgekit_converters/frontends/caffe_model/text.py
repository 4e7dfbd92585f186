"""Reading protobuf's text format: a ``.prototxt`` as nested dictionaries of lists.

Specification: protobuf's text format. Enumerations stay words, numbers become float or int.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Message = dict[str, list[Any]]
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<mark>[{}<>:;,\[\]])"""
    r"""|(?P<word>[^\s{}<>:;,\[\]"'\#]+)|(?P<other>.)"""
)
_DEEPEST = 32


def parse(text: str) -> Message:
    """The message in `text`; every field is a list of its values.

    Raises:
        ValueError: not the text format; names the line.
    """
    tokens = _Tokens(text)
    message = _message(tokens, "", 0)
    return message


class _Tokens:
    def __init__(self, text: str) -> None:
        self._each = self._read(text)
        self.line = 1
        self.now: tuple[str, str] = ("", "")
        self.next()

    def _read(self, text: str) -> Iterator[tuple[str, str, int]]:
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup is not None:
                yield match.lastgroup, match.group(), line
            line += match.group().count("\n")

    def next(self) -> tuple[str, str]:
        """The token that was up, and moves on; kind ``""`` at the end."""
        before = self.now
        kind, value, self.line = next(self._each, ("", "", self.line))
        self.now = (kind, value)
        return before

    def error(self, why: str) -> ValueError:
        """Names the line."""
        return ValueError(f"line {self.line}: {why}")


def _message(tokens: _Tokens, end: str, depth: int) -> Message:
    if depth > _DEEPEST:
        raise tokens.error("nested too deeply")
    found: Message = {}
    while tokens.now != ("mark", end):
        kind, name = tokens.next()
        if kind == "mark" and name in ",;":
            continue
        if kind != "word":
            raise (
                tokens.error(f"a field was expected, found {name or 'the end'!r}") if name or end else _done()
            )
        if tokens.now == ("mark", ":"):
            tokens.next()
        found.setdefault(name, []).extend(_values(tokens, depth))
        if not end and tokens.now == ("", ""):
            return found
    tokens.next()
    return found


def _done() -> ValueError:
    return ValueError("the file holds nothing")


def _values(tokens: _Tokens, depth: int) -> list[Any]:
    kind, value = tokens.next()
    if (kind, value) in (("mark", "{"), ("mark", "<")):
        return [_message(tokens, "}" if value == "{" else ">", depth + 1)]
    if (kind, value) == ("mark", "["):
        found: list[Any] = []
        while tokens.now != ("mark", "]"):
            if tokens.now == ("mark", ","):
                tokens.next()
            elif tokens.now[0] in ("word", "string"):
                found.append(_scalar(*tokens.next()))
            else:
                raise tokens.error("a list that does not end")
        tokens.next()
        return found
    if kind not in ("word", "string"):
        raise tokens.error(f"a value was expected, found {value or 'the end'!r}")
    return [_scalar(kind, value)]


def _scalar(kind: str, value: str) -> Any:
    if kind == "string":
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    if value in ("true", "false"):
        return value == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value
