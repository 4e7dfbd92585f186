"""A profile from a machine's own files: recorded shapes of boards, and this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgekit.errors import UnavailableError
from edgekit.profile import Profile, load_profile, match_profiles
from edgekit.profile_detect import Machine, cpu_of, installed_runtimes, profile_of, read_machine, slug
from edgekit.profile_lint import lint_file
from edgekit.profile_text import profile_toml
from tests.core.test_profile import Facts

A72 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
BOARDS = {
    "rpi4": ("Raspberry Pi 4 Model B Rev 1.4\0", A72, "0xd08", 4, 3884360),
    "rpi5": ("Raspberry Pi 5 Model B Rev 1.0\0", A76, "0xd0b", 4, 8245364),
    "rpi-zero-2w": ("Raspberry Pi Zero 2 W Rev 1.0\0", A72, "0xd03", 4, 426644),
    "jetson-nano": ("NVIDIA Jetson Nano Developer Kit\0", A72, "0xd07", 4, 4059292),
    "jetson-orin-nano": ("NVIDIA Jetson Orin Nano Developer Kit\0", A76, "0xd42", 6, 7802732),
}


def arm_cpuinfo(features: str, parts: list[str]) -> str:
    blocks = (
        f"processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n"
        for index, part in enumerate(parts)
    )
    return "\n".join(blocks)


def record(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def seen(root: Path, machine: str = "aarch64", **runtimes: str) -> Machine:
    return dataclasses.replace(read_machine(root), machine=machine, runtimes=runtimes or {"litert": "2.3.0"})


def written(machine: Machine, folder: Path, name: str = "mine") -> Profile:
    path = folder / f"{name}.toml"
    path.write_text(profile_toml(profile_of(machine, name=name, day="2026-11-21")), encoding="utf-8")
    assert lint_file(path) == []
    return load_profile(str(path))


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_says_of_itself_what_its_profile_says(tmp_path: Path, board: str) -> None:
    model, features, part, cores, kilobytes = BOARDS[board]
    files = {
        "proc/cpuinfo": arm_cpuinfo(features, [part] * cores),
        "proc/meminfo": f"MemTotal:       {kilobytes} kB\nMemFree:         1 kB\n",
        "proc/device-tree/model": model,
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    }
    found, shipped = written(seen(record(tmp_path / "root", files)), tmp_path), load_profile(board)
    assert (found.cpu.name, found.cpu.cores) == (shipped.cpu.name, shipped.cpu.cores)
    assert (found.cpu.isa, set(found.cpu.features)) == (shipped.cpu.isa, set(shipped.cpu.features))
    assert any(0.8 * size < found.memory_mb[0] <= size for size in shipped.memory_mb)
    assert found.os == "Debian GNU/Linux 12 (bookworm)"
    assert "Rev" not in found.title
    assert {item.basis for item in found.evidence} == {"measured", "claimed"}
    facts = Facts(machine="aarch64", model=model, runtimes={"litert": "2.3.0"})
    assert match_profiles(facts, tmp_path) == ("mine",)


def test_a_jetsons_gpu_and_a_coral_stick_are_seen_by_their_device_nodes(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": arm_cpuinfo(A76, ["0xd42"]), "dev/nvhost-gpu": "", "dev/nvhost-ctrl-gpu": ""}
    found = written(seen(record(tmp_path / "root", {**files, "dev/apex_0": ""})), tmp_path)
    assert [(item.name, item.kind) for item in found.accelerators] == [
        ("NVIDIA Jetson GPU", "gpu"),
        ("Edge TPU", "npu"),
    ]
    assert all(item.precisions == () for item in found.accelerators), "nothing is guessed"


def test_mixed_cores_are_both_named_and_the_older_instruction_set_holds(tmp_path: Path) -> None:
    cpuinfo = arm_cpuinfo(A72, ["0xd03", "0xd03", "0xd08", "0xd08"])
    cpu = cpu_of(seen(record(tmp_path, {"proc/cpuinfo": cpuinfo})))
    assert (cpu["name"], cpu["cores"], cpu["isa"]) == ("Cortex-A53 and Cortex-A72", 4, "armv8-a")


def test_a_32_bit_board_and_an_unknown_core_are_not_guessed_at(tmp_path: Path) -> None:
    features = "half thumb fastmult vfp edsp thumbee neon vfpv3 tls vfpv4 idiva idivt"
    files = {"proc/cpuinfo": arm_cpuinfo(features, ["0xc0f", "0xc0f"])}
    cpu = cpu_of(seen(record(tmp_path, files), "armv7l"))
    assert (cpu["name"], cpu["isa"], cpu["features"]) == ("Cortex-A15", "armv7-a", ["neon", "vfpv4"])
    files = {"proc/cpuinfo": arm_cpuinfo(A76, ["0xfff"])}
    cpu = cpu_of(seen(record(tmp_path, files)))
    assert (cpu["name"], cpu["isa"]) == ("Arm part 0x41/0xfff", "armv8.2-a")


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("fpu sse sse2", "x86-64"),
        ("sse sse2 ssse3 sse4_1 sse4_2 popcnt cx16", "x86-64-v2"),
        ("ssse3 sse4_2 popcnt cx16 avx avx2 bmi1 bmi2 fma f16c movbe", "x86-64-v3"),
        ("avx2 fma avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni", "x86-64-v4"),
    ],
)
def test_a_pc_has_its_instruction_level_from_its_flags(tmp_path: Path, flags: str, isa: str) -> None:
    text = f"processor\t: 0\nmodel name\t: Some  CPU @ 2.00GHz\nflags\t\t: {flags}\n"
    cpu = cpu_of(seen(record(tmp_path, {"proc/cpuinfo": text}), "x86_64"))
    assert (cpu["name"], cpu["isa"]) == ("Some CPU @ 2.00GHz", isa)
    assert ("avx2" in cpu["features"]) == ("avx2" in flags.split())


def test_a_machine_without_a_runtime_is_told_what_to_install(tmp_path: Path) -> None:
    machine = dataclasses.replace(read_machine(tmp_path), runtimes={})
    with pytest.raises(UnavailableError, match="ai-edge-litert") as caught:
        profile_of(machine, day="2026-11-21")
    assert caught.value.code == "no_runtime"


def test_empty_proc_files_make_a_valid_profile_all_the_same(tmp_path: Path) -> None:
    assert written(seen(tmp_path / "nothing"), tmp_path).memory_mb == (0,)


def test_hostile_board_names_stay_text(tmp_path: Path) -> None:
    model = 'A "board"\n[[targets]]\\ \x01 ' + "x" * 300
    found = written(seen(record(tmp_path / "root", {"proc/device-tree/model": model})), tmp_path)
    assert found.title.startswith('A "board" [[targets]]\\')
    assert slug(model) == slug(model)[:64]
    assert slug("(R)") == "machine"


def test_this_machine_has_a_profile_of_itself(tmp_path: Path) -> None:
    machine = dataclasses.replace(read_machine(), runtimes={"onnxruntime": "1.31.1"})
    found = written(machine, tmp_path)
    assert found.cpu.cores >= 1
    assert found.targets[0].name == "onnx"


@pytest.mark.parametrize(
    ("release", "rules"),
    [("20.08", "armnn-20.08"), ("22.05", "armnn-20.08"), ("23.08", "armnn-23.08"), ("19.02", "armnn-20.08")],
)
def test_rules_are_never_newer_than_what_is_installed(tmp_path: Path, release: str, rules: str) -> None:
    """A file for a later Arm NN may end an older one's process. One older than all rules gets the oldest."""
    machine = dataclasses.replace(read_machine(), runtimes={"armnn": release})
    assert written(machine, tmp_path).targets[0].rules == rules


def test_arm_nn_is_found_though_it_belongs_to_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.armnn.version", lambda: "20.08")
    assert installed_runtimes()["armnn"] == "20.08"
    monkeypatch.setattr("edgekit.armnn.version", lambda: None)
    assert "armnn" not in installed_runtimes()
