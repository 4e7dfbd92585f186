"""A profile from the machine itself: what kernel, operating system and installed runtimes say.

`read_machine` looks (below a root folder, so that recorded files of other boards can be given);
`profile_of` is a function of what was seen. Nothing is guessed: what the machine does not tell, such as
what an accelerator computes in, stays out. Core names follow Arm's part numbers in ``/proc/cpuinfo``.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit import armnn
from edgekit.errors import UnavailableError
from edgekit.rules import list_rules, load_rules
from edgekit.versions import version_key

ARM_PARTS: Mapping[tuple[int, int], tuple[str, str]] = {
    (0x41, 0xC07): ("Cortex-A7", "armv7-a"),
    (0x41, 0xC09): ("Cortex-A9", "armv7-a"),
    (0x41, 0xC0F): ("Cortex-A15", "armv7-a"),
    (0x41, 0xB76): ("ARM1176", "armv6"),
    (0x41, 0xD03): ("Cortex-A53", "armv8-a"),
    (0x41, 0xD04): ("Cortex-A35", "armv8-a"),
    (0x41, 0xD05): ("Cortex-A55", "armv8.2-a"),
    (0x41, 0xD07): ("Cortex-A57", "armv8-a"),
    (0x41, 0xD08): ("Cortex-A72", "armv8-a"),
    (0x41, 0xD09): ("Cortex-A73", "armv8-a"),
    (0x41, 0xD0A): ("Cortex-A75", "armv8.2-a"),
    (0x41, 0xD0B): ("Cortex-A76", "armv8.2-a"),
    (0x41, 0xD0C): ("Neoverse-N1", "armv8.2-a"),
    (0x41, 0xD0D): ("Cortex-A77", "armv8.2-a"),
    (0x41, 0xD40): ("Neoverse-V1", "armv8.4-a"),
    (0x41, 0xD41): ("Cortex-A78", "armv8.2-a"),
    (0x41, 0xD42): ("Cortex-A78AE", "armv8.2-a"),
    (0x41, 0xD46): ("Cortex-A510", "armv9-a"),
    (0x41, 0xD47): ("Cortex-A710", "armv9-a"),
    (0x41, 0xD49): ("Neoverse-N2", "armv9-a"),
    (0x4E, 0x003): ("Denver 2", "armv8-a"),
    (0x4E, 0x004): ("Carmel", "armv8.2-a"),
}
"""Implementer and part number to core and instruction set, as in the cores' reference manuals (MIDR)."""

FEATURES = (
    *("neon", "vfpv4", "asimddp", "fphp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx_vnni", "amx_int8", "amx_bf16"),
)
"""The extensions that inference kernels are chosen by."""

_X86_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx2", "bmi1", "bmi2", "fma", "f16c", "movbe"}),
    ("x86-64-v2", {"sse4_2", "ssse3", "popcnt", "cx16"}),
)
_NODES = (
    ("proc/driver/nvidia/version", "NVIDIA GPU", "gpu", "CUDA, TensorRT"),
    ("dev/nvhost-gpu", "NVIDIA Jetson GPU", "gpu", "CUDA, TensorRT"),
    ("dev/nvhost-ctrl-gpu", "NVIDIA Jetson GPU", "gpu", "CUDA, TensorRT"),
    ("dev/apex_0", "Edge TPU", "npu", "libedgetpu"),
    ("dev/mali0", "Arm Mali GPU", "gpu", "Arm NN GpuAcc"),
    ("dev/galcore", "Vivante GPU or NPU", "npu", "TFLite VX delegate"),
)
_DISTRIBUTIONS = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
_TARGETS = {"litert": "tflite", "onnxruntime": "onnx", "armnn": "armnn"}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was seen. `accelerators` are names, kinds and ways to reach them; `runtimes` versions."""

    machine: str
    kernel: str
    os: str
    python: str
    cpuinfo: str
    memory_mb: int
    model: str | None
    cores: int
    accelerators: tuple[tuple[str, str, str], ...] = ()
    runtimes: Mapping[str, str]


def read_machine(root: Path = Path("/")) -> Machine:
    """Look at this machine; files of ``/proc`` and ``/dev`` are taken from below `root`."""
    cpuinfo = _text(root / "proc/cpuinfo")
    nodes = (item[1:] for item in _NODES if (root / item[0]).exists())
    return Machine(
        machine=platform.machine(),
        kernel=platform.release(),
        os=os_name(_text(root / "etc/os-release")),
        python=".".join(platform.python_version_tuple()[:2]),
        cpuinfo=cpuinfo,
        memory_mb=memory_mb(_text(root / "proc/meminfo")),
        model=board_model(root),
        cores=processors(cpuinfo) or os.cpu_count() or 1,
        accelerators=tuple(dict.fromkeys(nodes)),
        runtimes=installed_runtimes(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def os_name(os_release: str) -> str:
    """Name of the operating system for people."""
    found = re.search(r'(?m)^PRETTY_NAME="?([^"\n]+)"?$', os_release)
    return found[1] if found else platform.system()


def memory_mb(meminfo: str) -> int:
    """Whole memory in MiB, 0 when unknown."""
    found = re.search(r"(?m)^MemTotal:\s*(\d+) kB", meminfo)
    return int(found[1]) // 1024 if found else 0


def board_model(root: Path) -> str | None:
    """The board's own name without its revision: device tree (Arm), else firmware (PC)."""
    tree = _text(root / "proc/device-tree/model").strip("\0 \n")
    firmware = _text(root / "sys/devices/virtual/dmi/id/product_name").strip()
    return re.sub(r"\s+Rev(ision)? [\w.]+\Z", "", tree or firmware) or None


def processors(cpuinfo: str) -> int:
    """Number of logical processors that ``/proc/cpuinfo`` lists."""
    return len(re.findall(r"(?m)^processor\s*:", cpuinfo))


def installed_runtimes() -> dict[str, str]:
    """Versions of the installed runtimes; none is imported here (Arm NN is asked in a process of its own)."""
    found: dict[str, str] = {}
    for name, distributions in _DISTRIBUTIONS.items():
        for distribution in distributions:
            try:
                found.setdefault(name, metadata.version(distribution))
            except metadata.PackageNotFoundError:
                continue
    release = armnn.version()
    return found if release is None else {**found, "armnn": release}


def cpu_of(machine: Machine) -> dict[str, Any]:
    """Name, cores, instruction set and extensions of the processor."""
    flags = set(_field(machine.cpuinfo, "flags", "Features").split())
    cores = _arm_cores(machine.cpuinfo)
    name = " and ".join(core for core, _ in cores) or _field(machine.cpuinfo, "model name", "Model name")
    return {
        "name": re.sub(r"\s+", " ", name) or machine.machine,
        "cores": machine.cores,
        "isa": _isa(machine.machine, flags, cores),
        "features": [item for item in FEATURES if item in flags],
    }


def _field(cpuinfo: str, *names: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _arm_cores(cpuinfo: str) -> list[tuple[str, str]]:
    """The kinds of cores, in order; big.LITTLE has two."""
    makers = re.findall(r"(?m)^CPU implementer\s*:\s*0x([0-9a-fA-F]+)", cpuinfo)
    parts = re.findall(r"(?m)^CPU part\s*:\s*0x([0-9a-fA-F]+)", cpuinfo)
    numbers = dict.fromkeys(
        (int(maker, 16), int(part, 16)) for maker, part in zip(makers, parts, strict=False)
    )
    return [ARM_PARTS.get(pair, (f"Arm part {pair[0]:#x}/{pair[1]:#x}", "")) for pair in numbers]


def _isa(machine: str, flags: set[str], cores: list[tuple[str, str]]) -> str:
    if machine in ("x86_64", "AMD64"):
        return next((name for name, needed in _X86_LEVELS if needed <= flags), "x86-64")
    known = sorted(isa for _, isa in cores if isa)
    if known:
        return known[0]  # of mixed cores the one that all can run
    if machine in ("aarch64", "arm64"):
        return "armv8.2-a" if "asimddp" in flags else "armv8-a"
    return "armv7-a" if machine == "armv7l" else machine


def profile_of(machine: Machine, *, name: str = "", day: str) -> dict[str, Any]:
    """The profile of a machine, JSON-ready in the file's shape (`edgekit.profile_text`).

    Args:
        machine: what was seen.
        name: the profile's name; by default made of the board's.
        day: when it was looked at, for the evidence.

    Raises:
        UnavailableError: no runtime is installed that anything could be built for.
    """
    targets = [_target(runtime, version) for runtime, version in machine.runtimes.items()]
    if not targets:
        raise UnavailableError(
            "no runtime is installed here, so nothing can be built for this machine",
            remedy="install ai-edge-litert or onnxruntime",
            code="no_runtime",
        )
    cpu = cpu_of(machine)
    title = machine.model or f"{machine.machine} {cpu['name']}"
    shape = {
        "name": name or slug(title),
        "title": title,
        "memory_mb": [machine.memory_mb],
        "match": _match(machine),
        "cpu": cpu,
        "accelerators": [
            {"name": item, "kind": kind, "via": via} for item, kind, via in machine.accelerators
        ],
        "os": {"name": machine.os, "python": machine.python},
        "runtimes": {runtime: {"minimum": version} for runtime, version in machine.runtimes.items()},
        "targets": targets,
    }
    return {**shape, "evidence": _evidence(shape, machine, day)}


def _match(machine: Machine) -> dict[str, Any]:
    if machine.model:
        return {"machines": [machine.machine], "models": [machine.model]}
    return {"machines": [machine.machine], "runtimes": list(machine.runtimes)}


def _target(runtime: str, installed: str) -> dict[str, Any]:
    """The target with the newest rules that are not newer than what is installed, else with the oldest."""
    target = _TARGETS[runtime]
    known = {version_key(name.partition("-")[2]): name for name in _rules_of(target)}
    rules = known[max((key for key in known if key <= version_key(installed)), default=min(known))]
    wanted = ("int8", "fp16", "fp32", "dynamic")
    precisions = [item for item in wanted if item in load_rules(rules).precisions]
    default = [item for item in precisions if item in ("int8", "fp32")]
    return {
        "name": target,
        "runtime": runtime,
        "rules": rules,
        "precisions": precisions,
        "default": default,
    }


def _rules_of(target: str) -> list[str]:
    return [name for name in list_rules() if name.startswith(f"{target}-")]


def _evidence(shape: Mapping[str, Any], machine: Machine, day: str) -> list[dict[str, Any]]:
    seen = [key for key in ("memory_mb", "match", "cpu", "accelerators", "os") if shape[key]]
    how = f"edgekit profiles detect, {day}, kernel {machine.kernel}"
    installed = ", ".join(f"{name} {version}" for name, version in machine.runtimes.items())
    return [
        {"facts": seen, "basis": "measured", "source": f"{how}: /proc, /dev and os-release of the machine"},
        {"facts": ["runtimes"], "basis": "measured", "source": f"{how}: installed are {installed}"},
        {
            "facts": ["targets"],
            "basis": "claimed",
            "source": "what edgekit's rules for these runtimes list; no model was run",
        },
    ]


def slug(title: str) -> str:
    """A profile name of a board's title."""
    words = re.sub(r"\((R|TM|C)\)", "", title, flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:64].strip("-") or "machine"
