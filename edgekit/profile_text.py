"""Profiles as TOML text: to show one, to scaffold a new one, to write what a machine says of itself.

Values come as the JSON-ready form of `edgekit.profile.Profile.to_dict`; what the keys mean and what they
may hold (comments in a scaffold) comes from the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ORDER = ("match", "cpu", "accelerators", "os", "runtimes", "targets", "budgets", "evidence")
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

BLANK: Mapping[str, Any] = {
    "memory_mb": [1024],
    "match": {"machines": ["aarch64"], "models": ["part of /proc/device-tree/model"], "runtimes": []},
    "cpu": {"name": "Cortex-A53", "cores": 4, "isa": "armv8-a", "features": []},
    "os": {"name": "Linux", "python": "3.11"},
    "runtimes": {"litert": {"minimum": "1.2.0"}},
    "targets": [
        {
            "name": "tflite",
            "runtime": "litert",
            "rules": "tflite-2.3",
            "precisions": ["int8", "fp16", "fp32"],
            "default": ["int8", "fp32"],
        }
    ],
    "budgets": {"memory_mb": 256},
    "evidence": [
        {
            "facts": ["memory_mb", "match", "cpu", "os", "runtimes", "targets", "budgets"],
            "basis": "claimed",
            "source": "not filled in: example values, replace them and say where yours come from",
        }
    ],
}


def profile_toml(
    profile: Mapping[str, Any], *, header: str = "", comments: Mapping[str, str] | None = None
) -> str:
    """TOML of a profile; `header` becomes comment lines, `comments` are put before keys, by dotted path."""
    notes = comments or {}
    lines = [f"# {line}" for line in header.splitlines()]
    flat = {"schema": 1, "name": profile["name"], "aliases": profile.get("aliases") or None}
    flat |= {key: profile[key] for key in ("title", "memory_mb")}
    flat |= {"limits": profile.get("limits") or None}
    lines += _pairs(flat, "", notes)
    for key in _ORDER:
        lines += _section(key, profile.get(key), notes)
    return "\n".join(lines) + "\n"


def _section(key: str, value: Any, notes: Mapping[str, str]) -> Iterator[str]:
    if key == "runtimes":
        for name, member in (value or {}).items():
            yield from ("", f"[runtimes.{_key(name)}]")
            yield from _pairs(member, "runtimes.*", notes)
        return
    for index, item in enumerate(value if isinstance(value, list | tuple) else [value] if value else []):
        yield ""
        if key in notes and not index:
            yield f"# {notes[key]}"
        yield f"[[{key}]]" if isinstance(value, list | tuple) else f"[{key}]"
        yield from _pairs(item, key, notes)


def _pairs(table: Mapping[str, Any], path: str, notes: Mapping[str, str]) -> Iterator[str]:
    for key, value in table.items():
        if value is None or value == {}:
            continue
        note = notes.get(f"{path}.{key}" if path else key)
        if note:
            yield f"# {note}"
        yield f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    return key if _BARE.match(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(_CONTROL.sub(" ", value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(member)}" for key, member in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(member) for member in value) + "]"
    return json.dumps(value)


def as_file(profile: Mapping[str, Any]) -> dict[str, Any]:
    """`Profile.to_dict` in the file's own shape: ``os`` is a table there, and the digest is not in it."""
    shape = {key: value for key, value in profile.items() if key not in ("python", "digest")}
    return {**shape, "os": {"name": profile["os"], "python": profile["python"]}}


def copied(text: str, *, source: str, name: str) -> str:
    """The text of profile `source` as that of a new board `name`: nothing in it is measured any more."""
    text = re.sub(r'(?m)^name = ".*"$', f'name = "{name}"', text, count=1)
    text = re.sub(r"(?m)^aliases = .*\n", "", text, count=1)
    text = re.sub(r'(?m)^basis = ".*"$', 'basis = "claimed"', text)
    text = re.sub(r'(?m)^source = "', f'source = "copied from {source}, not checked on {name}: ', text)
    note = f"# Copied from {source}: change what differs, and say where each figure comes from.\n"
    return note + re.sub(r"\A(#.*\n)+", "", text)
