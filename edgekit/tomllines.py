"""In which line of a TOML file a key stands; Python's reader does not say.

A scan of headers and of ``key =`` lines, good for files that people write: a key inside an inline table
or a list of several lines is reported at the key that opens it. Nothing is read or checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")
_LAST = re.compile(r"(\[\d+\]|\.[^.\[\]]+|^[^.\[\]]+)\Z")


def key_lines(text: str) -> dict[str, int]:
    """Line (from 1) of each table and key, by its dotted path such as ``targets[0].name``."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _path(header[2], counts, new=header[1] == "[[")
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            name = key[1].replace('"', "").replace("'", "")
            found.setdefault(f"{table}.{name}" if table else name, number)
    return found


def _path(header: str, counts: dict[str, int], *, new: bool) -> str:
    """The path of a header; `counts` holds the last index of each array of tables."""
    path = ""
    parts = [part.strip().strip("\"'") for part in header.split(".")]
    for place, part in enumerate(parts):
        path = f"{path}.{part}" if path else part
        if new and place == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = f"{path}[{counts[path]}]"
    return path


def line_of(dotted: str, lines: Mapping[str, int]) -> int | None:
    """The line of `dotted`, of the nearest thing around it when it has none, else None."""
    while dotted and dotted not in lines:
        dotted = _LAST.sub("", dotted)
    return lines.get(dotted)
