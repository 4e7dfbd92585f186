from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgekit.errors import ProfileError
from edgekit.profile import list_profiles, load_profile, match_profiles, profiles_folder
from edgekit.rules import list_rules, load_rules
from edgekit.versions import version_key

GOOD = """
schema = 1
name = "board"
title = "A board"
memory_mb = [512]
[match]
machines = ["aarch64"]
models = ["Board"]
[cpu]
name = "Cortex-A53"
cores = 4
isa = "armv8-a"
[os]
name = "Linux"
[runtimes.litert]
minimum = "1.2.0"
[[targets]]
name = "tflite"
runtime = "litert"
rules = "tflite-2.3"
precisions = ["int8", "fp32"]
default = ["int8"]
[[evidence]]
facts = ["cpu"]
basis = "claimed"
source = "data sheet"
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    machine: str
    model: str | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)


def write(folder: Path, text: str, name: str = "board") -> str:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize("name", list_profiles())
def test_every_shipped_profile_is_valid_and_its_rules_exist(name: str) -> None:
    profile = load_profile(name)
    for target in profile.targets:
        assert load_rules(target.rules).target == target.name


def test_the_profiles_of_the_first_line_are_there() -> None:
    needed = {"rpi4", "jetson-orin-nano", "iphone-15", "x86-64-litert", "x86-64-onnx"}
    assert needed | {"arm64-litert", "arm64-onnx"} <= set(list_profiles())


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ProfileError, match="rpi4") as caught:
        load_profile("rpi-4")
    assert caught.value.code == "unknown_profile"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["../rules/tflite-2.3", "/etc/passwd", "", "RPI4"])
def test_a_profile_name_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(ProfileError, match="unknown profile"):
        load_profile(name)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("cores = 4", "cores = 0", "cpu.cores"),
        ("cores = 4", "cores = true", "cpu.cores"),
        ("cores = 4", "coers = 4", "cpu.cores"),
        ('isa = "armv8-a"', 'isa = "armv8-a"\nfast = true', "cpu.fast"),
        ('name = "tflite"', 'name = "tflight"', "targets[0].name"),
        ('default = ["int8"]', 'default = ["dynamic"]', "targets[0].default"),
        ('runtime = "litert"', 'runtime = "onnxruntime"', "targets[0].runtime"),
        ('basis = "claimed"', 'basis = "guessed"', "evidence[0].basis"),
        ("schema = 1", "schema = 9", "schema"),
        ('name = "board"', 'name = "other"', "name"),
        ("memory_mb = [512]", 'memory_mb = "512"', "memory_mb"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ProfileError) as caught:
        load_profile("board", tmp_path)
    assert caught.value.where is not None
    text = (tmp_path / "board.toml").read_text(encoding="utf-8").splitlines()
    wrong = text.index(new.splitlines()[-1]) + 1 if "coers" not in new else text.index("[cpu]") + 1
    assert caught.value.where.endswith(f"board.toml:{wrong}: {key}")


def test_a_misspelt_key_is_named_where_the_right_one_is_missing(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("cores = 4", "coers = 4"))
    with pytest.raises(ProfileError, match=r"is required.*at least 1.*'coers'"):
        load_profile("board", tmp_path)


def test_a_misspelt_value_gets_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace('name = "tflite"', 'name = "tflight"'))
    with pytest.raises(ProfileError, match="did you mean 'tflite'"):
        load_profile("board", tmp_path)


def test_a_profile_without_sources_is_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD.split("[[evidence]]", maxsplit=1)[0])
    with pytest.raises(ProfileError, match="without sources"):
        load_profile("board", tmp_path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"not toml at all [", b"", b"schema = 1"])
def test_garbage_is_a_profile_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "board.toml").write_bytes(data)
    with pytest.raises(ProfileError):
        load_profile("board", tmp_path)


def test_a_profile_file_can_be_given_by_path(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert load_profile(str(tmp_path / "board.toml")).title == "A board"


@pytest.mark.parametrize("board", ["am62a", "am67a", "am68a", "am69a", "tda4vm", "am5729"])
def test_a_board_is_found_by_its_short_name_and_keeps_its_own(board: str) -> None:
    assert load_profile(board).name == f"ti-{board}"
    assert board not in list_profiles()


def test_a_files_name_goes_before_anothers_alias(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace('name = "board"', 'name = "alpha"\naliases = ["board", "b2"]', 1), "alpha")
    (tmp_path / "broken.toml").write_text("not toml [", encoding="utf-8")
    assert load_profile("board", tmp_path).name == "board"
    assert load_profile("b2", tmp_path).name == "alpha"


@pytest.mark.parametrize(
    "name",
    [
        *("rpi-zero-2w", "rpi3", "rpi4", "rpi5", "jetson-nano", "jetson-orin-nano", "jetson-agx-orin"),
        *("iphone-12", "iphone-13", "iphone-14", "iphone-15", "iphone-15-pro", "iphone-16", "iphone-17-pro"),
        *("android-arm64", "coral-dev-board", "imx8m-plus", "armnn-linux", "cortex-m4", "cortex-m7"),
        *("cortex-m55-ethos-u", "x86-64-litert", "x86-64-onnx", "triton-cpu", "triton-nvidia", "web-wasm"),
    ],
)
def test_every_board_promised_is_there(name: str) -> None:
    assert load_profile(name).evidence


def test_a_named_board_beats_the_generic_profile() -> None:
    facts = Facts(machine="aarch64", model="Raspberry Pi 4 Model B Rev 1.4", runtimes={"litert": "2.3.0"})
    assert match_profiles(facts) == ("rpi4", "arm64-litert")


def test_a_host_matches_by_its_runtimes() -> None:
    both = Facts(machine="x86_64", runtimes={"litert": "2.3.0", "onnxruntime": "1.31.1"})
    assert match_profiles(both) == ("x86-64-litert", "x86-64-onnx")
    assert match_profiles(Facts(machine="x86_64", runtimes={"onnxruntime": "1.31.1"})) == ("x86-64-onnx",)
    assert match_profiles(Facts(machine="x86_64", runtimes={"litert": "1.0.1"})) == ()
    assert match_profiles(Facts(machine="riscv64", runtimes={"litert": "2.3.0"})) == ()


def test_a_phone_is_not_recognised_as_a_linux_board() -> None:
    assert match_profiles(Facts(machine="iPhone15,4", runtimes={"coreml": "17.2"})) == ("iphone-15",)


def test_versions_compare_as_numbers() -> None:
    assert version_key("1.10.0") > version_key("1.9")
    assert version_key("2.0") == version_key("2.0.0")
    assert version_key("2.14.0rc1") == (2, 14)
    assert version_key("unknown") == ()


def test_the_checkouts_profiles_are_preferred() -> None:
    assert profiles_folder().name == "hw_profiles"


def test_unknown_rules_name_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"tflite-2\.3"):
        load_rules("tflite-2.2")


def test_rules_answer_for_an_op() -> None:
    rules = load_rules("tflite-2.3")
    softmax = rules.rule("Softmax")
    assert softmax is not None
    assert (softmax.scale, softmax.zero_point) == (1 / 256, -128)
    assert rules.rule("Erf") is None
    assert rules.limit("dynamic") is not None
    assert "onnx-1.31" in list_rules()


def test_a_rules_file_must_be_called_what_it_says(tmp_path: Path) -> None:
    text = (profiles_folder() / "rules" / "tflm-0.toml").read_text(encoding="utf-8")
    (tmp_path / "tflm-1.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=r"tflm-0\.toml"):
        load_rules("tflm-1", tmp_path)
