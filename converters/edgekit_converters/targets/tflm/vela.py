"""Ethos-U: what Vela makes of the file, in Vela's own environment. Nothing here can run it: *prepared*.

Vela compiles the operators that the NPU has into one command stream and leaves the others to the CPU. The
system configuration and memory mode come from the profile, never from Vela's defaults, which describe no
board. Its cycles are its own estimate from a performance model, not a measurement. A Vela that is absent or
fails costs nothing but its file: the plain file is the variant, and the facts say why there is no other.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_converters.errors import ToolFailed
from edgekit_converters.sidecars import VELA
from edgekit_converters.targets.tflm import content, project

FOLDER = "ethos-u"
KEYS = ("accelerator_config", "config", "system_config", "memory_mode")
_SECONDS = 300
_STRUCTURES = 4096
_OPERATORS = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)
_NPU = "ethos-u"


def made(path: Path, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the file at `path`; the result lies in ``ethos-u`` below `folder`.

    Gives ``status`` (``prepared``, ``useless``, ``absent`` or ``failed``) and what Vela said: its failures
    are told, not raised.
    """
    settings = {key: str(options[key]) for key in KEYS if key in options}
    python = VELA.python()
    if python is None:
        return {"status": "absent", "why": "Vela is not installed", "remedy": "edgekit tools install vela"}
    missing = [key for key in KEYS if key not in settings]
    if missing:
        why = f"the profile's target options lack vela.{', vela.'.join(missing)}"
        return {"status": "failed", "why": why, "remedy": "say which system Vela shall compile for"}
    try:
        return _compiled([str(python), "-m", "ethosu.vela"], path, folder / FOLDER, settings)
    except ToolFailed as error:
        return {"status": "failed", "why": error.message, "remedy": "the plain int8 file runs on the CPU"}


def note(found: Mapping[str, Any]) -> str:
    """One sentence on what became of the NPU's file."""
    if found["status"] != "prepared":
        remedy = f" ({found['remedy']})" if "remedy" in found else ""
        return f"no file for the Ethos-U: {found['why']}{remedy}"
    share = f"{found['npu_ops']} of {found['npu_ops'] + found['cpu_ops']} operators on the Ethos-U"
    return f"{share}, {found['estimated_ms']} ms by Vela's estimate; prepared, nothing here can run it"


def _compiled(command: list[str], path: Path, out: Path, settings: Mapping[str, str]) -> dict[str, Any]:
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    with tempfile.TemporaryDirectory() as work:
        said = _run([*command, f"--output-dir={work}", "--show-cpu-operations", *arguments, str(path)])
        tables = sorted(Path(work).glob("*_summary_*.csv"))
        files = sorted(Path(work).glob("*_vela.tflite"))
        if len(tables) != 1 or len(files) != 1:
            raise ToolFailed(f"Vela wrote {len(files)} files and {len(tables)} summaries, one each expected")
        data = files[0].read_bytes()
        figures = summary(tables[0].read_text(encoding="utf-8"))
        counts = operators(said)
    kinds = content.read(data).operators
    if _NPU not in kinds:
        return {"status": "useless", "why": "the NPU has none of its operators", "version": VELA.version}
    out.mkdir(exist_ok=True)
    (out / "model_vela.tflite").write_bytes(data)
    facts = {
        "status": "prepared",
        "why": "an Ethos-U runs it, and there is none here",
        "version": VELA.version,
        "settings": dict(settings),
        "file": f"{FOLDER}/model_vela.tflite",
        "on_cpu": [name for name in kinds if name != _NPU],
        **figures,
        **counts,
    }
    basis = f"Vela's own estimate of the tensors' memory ({figures['sram_kb']} KiB), and room for structures."
    size = project.arena_bytes(round(1024 * figures["sram_kb"]) + _STRUCTURES)
    project.sources(out, data, kinds, size=size, basis=basis)
    (out / "vela.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return facts


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ToolFailed(f"Vela did not end well: {type(error).__name__}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = " ".join(" ".join(lines[-3:]).replace(command[0], "python").split())
        raise ToolFailed(f"Vela ended with {done.returncode}: {said[:400]}")
    return done.stdout


def summary(text: str) -> dict[str, Any]:
    """The figures of Vela's CSV summary that matter; times and cycles are its estimates.

    Raises:
        ToolFailed: a column is missing or no number.
    """
    rows = list(csv.DictReader(text.splitlines()))
    try:
        (row,) = rows
        return {
            "estimated_cycles": round(float(row["cycles_total"])),
            "estimated_npu_cycles": round(float(row["cycles_npu"])),
            "estimated_ms": round(1000 * float(row["inference_time"]), 4),
            "core_mhz": round(float(row["core_clock"]) / 1e6, 3),
            "macs": round(float(row["nn_macs"])),
            "sram_kb": round(float(row["sram_memory_used"]), 2),
            "off_chip_flash_kb": round(float(row["off_chip_flash_memory_used"]), 2),
            "basis": "Vela's performance model: estimates, nothing was measured",
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ToolFailed(f"Vela's summary is not as expected: {error}") from error


def operators(said: str) -> dict[str, int]:
    """How many of Vela's own operators (it splits and joins ours) run where.

    Raises:
        ToolFailed: it does not say so.
    """
    counts = {place: int(count) for place, count in _OPERATORS.findall(said)}
    if set(counts) != {"CPU", "NPU"}:
        raise ToolFailed("Vela does not say how many operators run where")
    return {"npu_ops": counts["NPU"], "cpu_ops": counts["CPU"]}
