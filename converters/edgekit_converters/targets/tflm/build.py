"""From a job to a folder: the file in TFLM's dialect, what it needs, and the sources beside it."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekit.package import Requirements
from edgekit.rules import load_rules
from edgekit_converters.targets.tflite import as_is
from edgekit_converters.targets.tflite.build import Dialect
from edgekit_converters.targets.tflite.build import build as by_dialect
from edgekit_converters.targets.tflm import arena, content, project, toolchain, vela
from edgekit_converters.targets.tflm.names import FILE, PACKAGE
from edgekit_converters.values import Built, Job

DIALECT = Dialect(
    runtime="tflm",
    name="TFLite Micro",
    rules="tflm-0",
    free_batch=False,
    flat_dense=True,
    least_memory=True,
)


def build(job: Job, folder: Path) -> Built:
    """Write the file, measure it, write the program around it. See `TflmTarget.build`."""
    path = folder / FILE
    found = as_is.build(job, path) if job.options.get("route") == "as_is" else by_dialect(job, path, DIALECT)
    data = path.read_bytes()
    asked = content.read(data)
    content.require(asked, load_rules(job.rules or DIALECT.rules))
    taken = arena.measure(data) if find_spec("tflite_micro") is not None else None
    written = project.write(folder, data, asked, found, taken)
    facts: dict[str, Any] = {
        "model_bytes": len(data),
        "arena": None if taken is None else taken.to_dict(),
        "prepared_files": list(written),
        "compiled": toolchain.tried(folder),
    }
    if "vela" in job.options:
        facts["vela"] = vela.made(path, folder, job.options["vela"])
        facts["notes"] = [*found.facts.get("notes", ()), vela.note(facts["vela"])]
    return replace(
        found,
        requires=Requirements(
            runtime=DIALECT.runtime,
            arena_kb=None if taken is None else _kib(taken.needed),
            flash_kb=_kib(len(data)),
        ),
        facts={**found.facts, **facts},
        tools={**found.tools, **_tools()},
    )


def _kib(size: int) -> int:
    return -(-size // 1024)


def _tools() -> dict[str, str]:
    return {PACKAGE: version(PACKAGE)} if find_spec("tflite_micro") is not None else {}
