"""Host figures of a variant as a cached stage: see `engine.measure` for what is measured and how."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from edgekit_converters.engine import measure
from edgekit_converters.engine.plan import Wanted
from edgekit_converters.engine.prepare import Context, Prepared
from edgekit_converters.engine.variants import Checked, artifact_json
from edgekit_converters.targets import load_target


def measured(context: Context, prepared: Prepared, wanted: Wanted, checked: Checked) -> Any:
    """Latency, memory, and the runtime that gave them; None for what its own runtime does not run here."""
    if checked.executed is None or checked.executed["method"] != "executed":
        return None
    target = load_target(wanted.target, wanted.runtime)
    if not getattr(target, "timed", True):
        return None
    runtime = {"runtime": target.runtime, "version": target.version()}

    def run(folder: Path) -> Any:
        artifact = folder / "artifact.json"
        artifact.write_text(artifact_json(checked), encoding="utf-8")
        return measure.measure(
            wanted.target, target.runtime, checked.folder, artifact, prepared.data, seconds=60
        )

    key = {"build": checked.key, "data": prepared.samples.digest, "host": platform.node(), **runtime}
    found = context.cache.stage("measure", key, run).value
    return None if found is None else {**found, **runtime}


def size(checked: Checked) -> int:
    """Bytes of all files of a variant."""
    return sum(path.stat().st_size for path in checked.folder.rglob("*") if path.is_file())


__all__ = ["measured", "size"]
