from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgekit.errors import ProfileError
from edgekit.profile import list_profiles, load_profile, match_profiles, profiles_folder
from edgekit.profile_lint import lint_file
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
        ("memory_mb = [512]", "memory_mb = [512, 256]", "memory_mb"),
        ("memory_mb = [512]", "memory_mb = [-1]", "memory_mb"),
        ('minimum = "1.2.0"', 'minimum = "new"', "runtimes.litert.minimum"),
        ('minimum = "1.2.0"', 'minimum = "1.2.0"\nbelow = "1.1"', "runtimes.litert.below"),
        ("[runtimes.litert]", "[runtimes.litrt]", "runtimes.litrt"),
        ('precisions = ["int8", "fp32"]', "precisions = []", "targets[0].precisions"),
        ('precisions = ["int8", "fp32"]', 'precisions = ["int8", "int8"]', "targets[0].precisions"),
        ('default = ["int8"]', 'default = ["int8"]\noptions = { speed = 9 }', "targets[0].options.speed"),
        ('facts = ["cpu"]', "facts = []", "evidence[0].facts"),
        ("[[evidence]]", "[budgets]\nsize_mb = -1\n[[evidence]]", "budgets.size_mb"),
        ("[[evidence]]", "[budgets]\nlatency_ms = 0\n[[evidence]]", "budgets.latency_ms"),
        ("[[evidence]]", "[budgets]\nmemory_mb = 0\n[[evidence]]", "budgets.memory_mb"),
        ("[[evidence]]", "[budgets]\nram_mb = 5\n[[evidence]]", "budgets.ram_mb"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ProfileError) as caught:
        load_profile("board", tmp_path)
    assert caught.value.where is not None
    text = (tmp_path / "board.toml").read_text(encoding="utf-8").splitlines()
    line = (
        next(line for line in reversed(new.splitlines()) if not line.startswith("[[")) if "\n" in new else new
    )
    wrong = text.index(line) + 1 if "coers" not in new else text.index("[cpu]") + 1
    assert caught.value.where.endswith(f"board.toml:{wrong}: {key}")


OPTIONS = [
    ("coreml", 'deployment_target = "iOS14"', "deployment_target", "iOS15, iOS16"),
    ("coreml", "image_inputs = 1", "image_inputs", "true or false"),
    ("coreml", "batch = [8, 1]", "batch", "[1, 8]"),
    ("coreml", "batch = [0, 1]", "batch", "at least 1"),
    ("tidl", 'soc = "am62"', "soc", "am5729, am5749, am62a"),
    ("tidl", "", "soc", "is required"),
    ("tflm", 'vela = { config = "Arm/vela.ini" }', "vela.accelerator_config", "is required"),
    ("triton", "max_batch = -1", "max_batch", "at least 0"),
    ("triton", 'accelerator = "cuda"', "accelerator", "tensorrt"),
    ("triton", "threads = 4096", "threads", "at most 1024"),
    ("triton", "versions = [0]", "versions", "at least 1"),
    ("c99", "fast = true", "fast", "none are known here"),
]


@pytest.mark.parametrize(("target", "options", "key", "allowed"), OPTIONS)
def test_an_option_that_its_target_does_not_have_is_named_with_what_is_allowed(
    tmp_path: Path, target: str, options: str, key: str, allowed: str
) -> None:
    text = GOOD.replace('name = "tflite"', f'name = "{target}"', 1)
    text = text.replace('default = ["int8"]', f'default = ["int8"]\noptions = {{ {options} }}')
    write(tmp_path, text)
    with pytest.raises(ProfileError) as caught:
        load_profile("board", tmp_path)
    line = next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith("options"))
    assert caught.value.where == f"{tmp_path}/board.toml:{line}: targets[0].options.{key}"
    assert allowed in f"{caught.value.message} {caught.value.remedy}"


def test_a_target_stands_in_a_profile_once(tmp_path: Path) -> None:
    target = GOOD[GOOD.index("[[targets]]") : GOOD.index("[[evidence]]")]
    write(tmp_path, GOOD.replace(target, target * 2))
    with pytest.raises(ProfileError, match="there already"):
        load_profile("board", tmp_path)


RULES = """
schema = 1
target = "tflm"
version = "9"
runtime = "tflm"
precisions = ["int8"]
sources = ["a trial"]
[[op]]
ops = ["Conv"]
activations = ["int8"]
weights = ["int8"]
scale = 0.5
zero_point = 3
weight_bits = 8
[[allow]]
ops = ["CONV_2D"]
types = ["int8"]
rank = 4
fused = ["relu"]
padding = ["same"]
[[limit]]
op = "Erf"
reason_code = "no_kernel"
detail = "no kernel"
remedy = "another op"
"""


def test_rules_of_the_tests_are_good(tmp_path: Path) -> None:
    (tmp_path / "tflm-9.toml").write_text(RULES, encoding="utf-8")
    assert load_rules("tflm-9", tmp_path).limit("Erf") is not None


@pytest.mark.parametrize(
    ("old", "new", "key", "allowed"),
    [
        ('precisions = ["int8"]', 'precisions = ["in8"]', "precisions", "fp32"),
        ('precisions = ["int8"]', "precisions = []", "precisions", "fp32"),
        ('runtime = "tflm"', 'runtime = "tfml"', "runtime", "tflm"),
        ('ops = ["Conv"]', "ops = []", "op[0].ops", "at least one"),
        ('activations = ["int8"]', 'activations = ["int9"]', "op[0].activations", "uint8"),
        ('weights = ["int8"]', 'weights = ["int8", "int8"]', "op[0].weights", "twice"),
        ("scale = 0.5", "scale = -0.5", "op[0].scale", "above 0"),
        ("zero_point = 3", "zero_point = 99999", "op[0].zero_point", "at most 65535"),
        ("weight_bits = 8", "weight_bits = 40", "op[0].weight_bits", "at most 16"),
        ("weight_bits = 8", "bits = 8", "op[0].bits", "weight_bits"),
        ("rank = 4", "rank = 0", "allow[0].rank", "at least 1"),
        ('fused = ["relu"]', 'fused = ["gelu"]', "allow[0].fused", "relu6"),
        ('padding = ["same"]', 'padding = ["reflect"]', "allow[0].padding", "valid"),
        ('types = ["int8"]', "types = []", "allow[0].types", "uint8"),
        ('reason_code = "no_kernel"', 'reason_code = "No kernel"', "limit[0].reason_code", "a-z"),
        ('remedy = "another op"', 'advice = "another op"', "limit[0]", "is required"),
    ],
)
def test_a_wrong_rule_is_named_with_file_line_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, key: str, allowed: str
) -> None:
    text = RULES.replace(old, new, 1)
    (tmp_path / "tflm-9.toml").write_text(text, encoding="utf-8")
    [found] = lint_file(tmp_path / "tflm-9.toml")
    assert found.level == "error"
    assert f"tflm-9.toml:{text.splitlines().index(new) + 1}: {key}" in found.where or "remedy" in found.where
    assert allowed in f"{found.message} {found.remedy}"


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
