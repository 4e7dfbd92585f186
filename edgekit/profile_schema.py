"""JSON Schema of profiles and of rules files (draft 2020-12), for editors and other people's tools.

It cannot drift from the reader, because the reader makes it: `build_profile` and `build_rules` are run
on a table that takes notes of what they ask for, types, allowed values and what is required. What only
a comparison of several keys can tell (a default among the precisions) is the reader's alone; see
``edgekit profiles lint``. The files in ``hw_profiles/schema`` are these, written by ``python -m
edgekit.profile_schema FOLDER``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgekit.errors import ProfileError
from edgekit.profile import NAME, SCHEMA, build_profile
from edgekit.rules import build_rules
from edgekit.tomlfile import Table

T = TypeVar("T")
DRAFT = "https://json-schema.org/draft/2020-12/schema"

PROFILE_MEANINGS: Mapping[str, str] = {
    "schema": "Version of this format.",
    "name": "Name of the profile: that of the file, of a-z, 0-9 and -.",
    "aliases": "Other names it may be asked for by.",
    "title": "The board's name for people.",
    "memory_mb": "Memory in MiB, every size it is sold with, smallest first; 0 where it is less than one.",
    "limits": "Sentences on what to know before choosing the board.",
    "match": "How a device is recognised; all that is given must hold. Without machines: never by itself.",
    "match.machines": "What the machine calls itself (uname -m).",
    "match.models": "Parts of the board's model string (/proc/device-tree/model).",
    "match.runtimes": "Runtimes that must be installed.",
    "cpu": "The application processor.",
    "cpu.name": "Name of the core.",
    "cpu.cores": "Number of cores.",
    "cpu.isa": "Instruction set, such as armv8.2-a or x86-64-v3.",
    "cpu.features": "Extensions under the kernel's names, such as asimddp (dot product).",
    "accelerators": "GPU, NPU or DSP.",
    "accelerators.name": "What it is.",
    "accelerators.kind": "Its kind.",
    "accelerators.precisions": "What it computes in.",
    "accelerators.via": "Through which runtime or delegate it is reached.",
    "accelerators.note": "Limits worth knowing.",
    "os": "The operating system.",
    "os.name": "Its name; none on a microcontroller without one.",
    "os.python": "The Python it comes with.",
    "runtimes": "Versions of each runtime that will do.",
    "runtimes.*": "A runtime's range of versions.",
    "runtimes.*.minimum": "Lowest version, included.",
    "runtimes.*.below": "Highest version, excluded.",
    "targets": "What is built for the board.",
    "targets.name": "Format and kind of runtime.",
    "targets.runtime": "The runtime that executes it, one of [runtimes].",
    "targets.rules": "The rules file that says what this runtime accepts.",
    "targets.precisions": "What may be built, in order of preference.",
    "targets.default": "What is built when none is asked for.",
    "targets.options": "Settings of the target.",
    "budgets": "What a model may take unless its contract says otherwise.",
    "budgets.latency_ms": "Milliseconds an inference may take.",
    "budgets.memory_mb": "MiB of memory a model may take.",
    "budgets.size_mb": "MiB a file may have.",
    "budgets.arena_kb": "KiB of working memory on a microcontroller.",
    "budgets.flash_kb": "KiB of program memory on a microcontroller.",
    "evidence": "Where each figure comes from.",
    "evidence.facts": "Keys of this file it stands for, such as cpu or runtimes.litert.",
    "evidence.basis": "Measured, or claimed by somebody.",
    "evidence.source": "What was run, or which document says it.",
}
RULES_MEANINGS: Mapping[str, str] = {
    "schema": "Version of this format.",
    "target": "The target these rules are for.",
    "version": "Version of the runtime; the file is called target-version.toml.",
    "runtime": "The runtime.",
    "precisions": "Precisions it can be built in.",
    "io": "Types of inputs and outputs.",
    "bias": "Whether biases are quantized.",
    "inputs_symmetric": "The model's inputs have zero point 0.",
    "rescue": "What a layer that int8 harms falls back to.",
    "rest": "Type of what is not quantized.",
    "compression": "Forms of weights it keeps compressed.",
    "allow": "Operators of its file format that it has, and in which form; empty where it has all.",
    "allow.ops": "Operators by their name in the file format.",
    "allow.types": "Types of what is computed; constants of places and sizes do not count.",
    "allow.rank": "The most axes a tensor may have.",
    "allow.fused": "Activations that may be fused.",
    "allow.padding": "Kinds of padding taken; empty for both.",
    "allow.unset": "Options that must not be set.",
    "allow.inputs": "How many inputs there may be; 0 for any number.",
    "allow.weights_per_channel": "Whether weights may have a scale a channel.",
    "allow.grouped": "Whether filters may see a part of the channels.",
    "allow.same_rank": "Whether inputs must have as many axes as each other.",
    "allow.odd_window": "Whether a pool's window must hold an odd number of values.",
    "sources": "Where the rules come from.",
    "op": "How a set of ops may be quantized.",
    "op.ops": "ONNX op types.",
    "op.activations": "Types of activations.",
    "op.weights": "Types of weights.",
    "op.weights_symmetric": "Weights have zero point 0.",
    "op.weights_per_channel": "Weights have a scale for each output channel.",
    "op.activations_symmetric": "Activations have zero point 0.",
    "op.power_of_two": "Scales are powers of two.",
    "op.scale": "Fixed scale of the output.",
    "op.zero_point": "Fixed zero point of the output.",
    "op.same_scale": "The output shares its input's scale.",
    "op.merges_activation": "A Relu or Clip that follows is part of the op.",
    "op.unsigned": "With zero point 0, what is never negative is held in unsigned integers.",
    "op.weight_bits": "Bits of a weight where they are fewer than its type has; 0 for all.",
    "limit": "What the runtime does not take.",
    "limit.op": "An op, or another property of a model.",
    "limit.reason_code": "The stable code reports carry.",
    "limit.detail": "What is refused.",
    "limit.remedy": "What to do instead.",
    "limit.check": "The test the target makes of each such node; without one the limit is only told.",
}


class Notes(Table):
    """A table that is empty, answers every question with a default, and writes down what was asked."""

    def __init__(self, meanings: Mapping[str, str], path: str = "") -> None:
        super().__init__({}, where="schema", error=ProfileError, path=path)
        self._meanings = meanings
        self._members: dict[str, dict[str, Any] | Notes] = {}
        self._required: list[str] = []
        self._optional: set[str] = set()

    def schema(self) -> dict[str, Any]:
        """What was asked for, as the schema of an object."""
        members: dict[str, Any] = {}
        required = list(self._required)
        for key, value in self._members.items():
            members[key] = self._described(key, value.schema() if isinstance(value, Notes) else value)
            if isinstance(value, Notes) and value._required:
                required.append(key)
        found: dict[str, Any] = {"type": "object", "properties": members, "additionalProperties": False}
        return {**found, "required": required} if required else found

    def _described(self, key: str, schema: dict[str, Any]) -> dict[str, Any]:
        meaning = self._meanings.get(self._dotted(key))
        return {"description": meaning, **schema} if meaning else schema

    def _dotted(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _note(self, key: str, schema: dict[str, Any], default: object = None) -> None:
        self._members[key] = schema if default is None else {**schema, "default": default}
        if default is None and key not in self._optional:
            self._required.append(key)

    def has(self, key: str) -> bool:
        self._optional.add(key)
        return True

    def text(self, key: str, default: str | None = None, *, allowed: Collection[str] = ()) -> str:
        self._note(key, _text(allowed), default)
        return default if default is not None else next(iter(allowed), "")

    def texts(
        self, key: str, *, allowed: Collection[str] = (), some: bool = False, once: bool = False
    ) -> tuple[str, ...]:
        limits = {**({"minItems": 1} if some else {}), **({"uniqueItems": True} if once else {})}
        self._note(key, {"type": "array", "items": _text(allowed), **limits}, None if some else [])
        return ()

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int | None = None) -> int:
        limits = {"minimum": low, **({} if high is None else {"maximum": high})}
        self._note(key, {"type": "integer", **limits}, default)
        return low

    def integers(self, key: str, *, low: int = -1) -> tuple[int, ...]:
        self._note(key, {"type": "array", "items": {"type": "integer", "minimum": low}}, [])
        return ()

    def number(self, key: str, default: float | None = None, *, above: float | None = None) -> float:
        limits = {} if above is None else {"exclusiveMinimum": above}
        self._note(key, {"type": "number", **limits}, default)
        return 0.0

    def flag(self, key: str, default: bool) -> bool:
        self._note(key, {"type": "boolean"}, default)
        return default

    def mapping(self, key: str) -> dict[str, Any]:
        self._note(key, {"type": "object"}, {})
        return {}

    def table(self, key: str) -> Table:
        child = Notes(self._meanings, self._dotted(key))
        self._members[key] = child
        return child

    def tables(self, key: str, build: Callable[[Table], T]) -> tuple[T, ...]:
        item = Notes(self._meanings, self._dotted(key))
        build(item)
        self._note(key, {"type": "array", "items": item.schema()}, [])
        return ()

    def members(self, key: str, build: Callable[[Table], T]) -> dict[str, T]:
        item = Notes(self._meanings, f"{self._dotted(key)}.*")
        build(item)
        member = {"description": self._meanings.get(f"{self._dotted(key)}.*", ""), **item.schema()}
        self._note(key, {"type": "object", "additionalProperties": member}, {})
        return {}


def _text(allowed: Collection[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(allowed)} if allowed else {"type": "string"}


def profile_schema() -> dict[str, Any]:
    """JSON Schema of a profile file."""
    notes = Notes(PROFILE_MEANINGS)
    build_profile(notes, digest="")
    schema = _headed(notes, "profile", "One board of edgekit, a file of hw_profiles/.")
    schema["properties"]["name"]["pattern"] = f"^{NAME}$"
    for key in ("targets", "evidence"):
        schema["properties"][key]["minItems"] = 1
        del schema["properties"][key]["default"]
    schema["required"] += ["targets", "evidence"]
    return schema


def rules_schema() -> dict[str, Any]:
    """JSON Schema of a rules file."""
    notes = Notes(RULES_MEANINGS)
    build_rules(notes, name="", digest="")
    return _headed(notes, "rules", "What one version of a runtime accepts, a file of hw_profiles/rules/.")


SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {"profile": profile_schema, "rules": rules_schema}


def _headed(notes: Notes, name: str, meaning: str) -> dict[str, Any]:
    schema = notes.schema()
    schema["properties"]["schema"] = {"description": "Version of this format.", "const": SCHEMA}
    return {"$schema": DRAFT, "$id": f"urn:edgekit:{name}:{SCHEMA}", "title": meaning, **schema}


def schema_text(name: str) -> str:
    """The schema called `name`, ``profile`` or ``rules``, as the published file has it."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write both schemas into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCHEMAS:
        (folder / f"{name}.schema.json").write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
