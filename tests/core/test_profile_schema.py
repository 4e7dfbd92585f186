"""The published JSON Schemas are the reader's own, and every shipped file keeps to them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgekit.profile import profiles_folder
from edgekit.profile_schema import PROFILE_MEANINGS, RULES_MEANINGS, SCHEMAS, schema_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = (*sorted(profiles_folder().glob("*.toml")), *sorted(profiles_folder().glob("rules/*.toml")))
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def faults(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Where `value` breaks `schema`: the part of JSON Schema that ours use, and nothing unknown."""
    used = {"$schema", "$id", "title", "description", "default", "type", "properties", "required", "items"}
    used |= {"additionalProperties", "enum", "const", "pattern", "minimum", "maximum"}
    used |= {"exclusiveMinimum", "minItems", "uniqueItems"}
    assert set(schema) <= used
    if "const" in schema and value != schema["const"]:
        yield f"{path}: not {schema['const']}"
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or isinstance(value, bool) != (kind == "boolean")):
        yield f"{path}: not {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not among {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: not {schema['pattern']}"
    if isinstance(value, int | float):
        yield from _numbers(value, schema, path)
    if isinstance(value, list):
        yield from _items(value, schema, path)
    if isinstance(value, dict):
        yield from _members(value, schema, path)


def _numbers(value: float, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{path}: below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{path}: above {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{path}: not above {schema['exclusiveMinimum']}"


def _items(value: list[Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield f"{path}: too few"
    if schema.get("uniqueItems") and len(set(value)) < len(value):
        yield f"{path}: twice"
    for index, item in enumerate(value):
        yield from faults(item, schema.get("items", {}), f"{path}[{index}]")


def _members(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}.{key}: missing" for key in schema.get("required", ()) if key not in value)
    more = schema.get("additionalProperties", True)
    for key, member in value.items():
        known = schema.get("properties", {}).get(key, more)
        if known is False:
            yield f"{path}.{key}: unknown"
        elif isinstance(known, dict):
            yield from faults(member, known, f"{path}.{key}")


def paths(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Dotted paths of all keys of a schema."""
    for key, member in schema.get("properties", {}).items():
        yield f"{path}{key}"
        inner = member.get("items", member)
        yield from paths(inner, f"{path}{key}.")
        if isinstance(member.get("additionalProperties"), dict):
            yield f"{path}{key}.*"
            yield from paths(member["additionalProperties"], f"{path}{key}.*.")


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_published_schema_is_the_readers(name: str) -> None:
    published = profiles_folder() / "schema" / f"{name}.schema.json"
    advice = "run: python -m edgekit.profile_schema hw_profiles/schema"
    assert published.read_text(encoding="utf-8") == schema_text(name), advice


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_keeps_to_the_schema(path: Path) -> None:
    schema = SCHEMAS["rules" if path.parent.name == "rules" else "profile"]()
    assert list(faults(tomllib.loads(path.read_text(encoding="utf-8")), schema)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("cores = 4", "cores = 0", ".cpu.cores: below 1"),
        ("cores = 4", "cores = true", ".cpu.cores: not integer"),
        ("cores = 4", "", ".cpu.cores: missing"),
        ("cores = 4", "cores = 4\nfast = true", ".cpu.fast: unknown"),
        ('name = "rpi4"', 'name = "RPi 4"', ".name: not ^[a-z0-9][a-z0-9-]{0,63}$"),
        ("schema = 1", "schema = 2", ".schema: not 1"),
        ('minimum = "1.2.0"', 'minimun = "1.2.0"', ".runtimes.litert.minimum: missing"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(old: str, new: str, fault: str) -> None:
    text = (profiles_folder() / "rpi4.toml").read_text(encoding="utf-8")
    assert old in text
    found = list(faults(tomllib.loads(text.replace(old, new, 1)), SCHEMAS["profile"]()))
    assert fault in found


@pytest.mark.parametrize(("name", "meanings"), [("profile", PROFILE_MEANINGS), ("rules", RULES_MEANINGS)])
def test_every_key_of_a_schema_is_explained(name: str, meanings: Mapping[str, str]) -> None:
    assert set(paths(SCHEMAS[name]())) == set(meanings)


def test_a_schema_is_plain_json() -> None:
    assert json.loads(schema_text("rules"))["properties"]["op"]["items"]["properties"]["zero_point"]
