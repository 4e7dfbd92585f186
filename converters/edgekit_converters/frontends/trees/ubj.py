"""Reading Universal Binary JSON, in which XGBoost saves ``.ubj`` files. Specification: ubjson.org.

XGBoost trusts its files and may end the process on a damaged one: ours is the first to look.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_WORDS = {"Z": None, "T": True, "F": False}
_DEEPEST = 64


def parse(data: bytes) -> Any:
    """The value in `data`; arrays of one type become numpy arrays.

    Raises:
        ValueError: cut off, or not the format.
    """
    reader = _Reader(data)
    found = reader.value(reader.mark(), 0)
    while reader.at < len(data):
        if reader.mark() != "N":
            raise ValueError("something behind the end")
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def mark(self) -> str:
        """The next byte as a letter."""
        return self.take(1).decode("latin-1")

    def number(self, kind: str) -> Any:
        """One number of `kind`."""
        if kind not in _NUMBERS:
            raise ValueError(f"type {kind!r}")
        form = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self.take(form.itemsize), form)[0].item()

    def count(self) -> int:
        """A length, which has a type of its own."""
        found = self.number(self.mark())
        if not isinstance(found, int) or found < 0:
            raise ValueError("a length below zero")
        return found

    def text(self) -> str:
        """A string: length and bytes."""
        return self.take(self.count()).decode("utf-8")

    def value(self, kind: str, depth: int) -> Any:
        """The value that starts with `kind`."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if kind in _WORDS:
            return _WORDS[kind]
        if kind in "SH":
            return self.text()
        if kind == "C":
            return self.mark()
        if kind in "[{":
            return self.container(kind, depth)
        return self.number(kind)

    def container(self, kind: str, depth: int) -> Any:
        """An array or object, of one type or several, counted or ended by a mark."""
        inner = self.mark() if self._follows("$") else None
        count = self.count() if self._follows("#") else None
        if inner is not None and count is None:
            raise ValueError("a type without a count")
        if kind == "[" and inner in _NUMBERS and count is not None:
            form = np.dtype(_NUMBERS[inner])
            return np.frombuffer(self.take(count * form.itemsize), form)
        items: list[Any] = []
        names: list[str] = []
        end = "]" if kind == "[" else "}"
        while count is None or len(items) < count:
            if count is None and self._follows(end):
                break
            if kind == "{":
                names.append(self.text())
            items.append(self.value(inner or self.mark(), depth + 1))
        return dict(zip(names, items, strict=True)) if kind == "{" else items

    def _follows(self, mark: str) -> bool:
        found = self.data[self.at : self.at + 1] == mark.encode()
        self.at += found
        return found
