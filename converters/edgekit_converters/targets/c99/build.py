"""Writing a model as C: from a TFLite file in the dialect of the kernels, or from the user's own one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekit.package import Requirements
from edgekit_converters.errors import Refusal
from edgekit_converters.frontends.tflite_model.reader import read
from edgekit_converters.targets.c99.emit import ports, sources
from edgekit_converters.targets.c99.program import program
from edgekit_converters.targets.tflite.as_is import build as as_it_is
from edgekit_converters.targets.tflite.build import Dialect
from edgekit_converters.targets.tflite.build import build as by_hub
from edgekit_converters.values import Built, Job

FOLDER = "c99"
_NO_RESCUE = -1e6
"""Signal to noise in dB that every model has."""
DIALECT = Dialect(runtime="c99", name="TFLite", rules="c99-1", free_batch=False, flat_dense=True)


def build(job: Job, folder: Path) -> Built:
    """Write the folder ``c99`` with the sources. See `C99Target.build`."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.tflite"
        own = job.options.get("route") == "as_is"
        # No layer is rescued: there are no float kernels, so the verdict judges what int8 gives.
        job = replace(job, options={**job.options, "snr_db": _NO_RESCUE})
        made = as_it_is(job, path) if own else by_hub(job, path, DIALECT)
        data = path.read_bytes()
    facts = write(data, folder / FOLDER, job.source.path)
    return replace(
        made,
        main=FOLDER,
        requires=Requirements(
            runtime="c99", arena_kb=_kib(facts["arena_bytes"]), flash_kb=_kib(facts["constant_bytes"])
        ),
        route=f"{made.route} > C99",
        facts={**made.facts, **facts},
        tools={"edgekit-converters": version("edgekit-converters")},
    )


def write(data: bytes, folder: Path, where: str) -> Mapping[str, Any]:
    """Write the C of a TFLite file; gives facts: `constant_bytes` is what the flash holds beside code.

    Raises:
        Refusal: an operation or a type that the kernels do not have, by name.
        SourceError: `data` is no TFLite file.
    """
    found = program(read(data, where))
    if found.arena > 1 << 31:
        raise Refusal(f"the arena would have {found.arena} bytes", code="too_large")
    folder.mkdir(parents=True, exist_ok=True)
    texts, constants = sources(found)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return {
        **found.facts,
        "constant_bytes": constants,
        "ports": ports(found),
        "files": sorted(texts),
    }


def _kib(size: int) -> int:
    return -(-size // 1024)
