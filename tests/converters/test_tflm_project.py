"""What lies beside a TFLM file: sources that say what they are, Vela's part, and a program that compiles."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from pathlib import Path

import pytest

from edgekit.package import Quantization, Requirements, Tensor
from edgekit.rules import load_rules
from edgekit_converters.errors import ToolFailed
from edgekit_converters.sidecars import VELA
from edgekit_converters.targets.tflm import project, toolchain, vela
from edgekit_converters.targets.tflm.arena import Arena
from edgekit_converters.targets.tflm.content import Content
from edgekit_converters.values import Built
from tests.converters import tflm_files as tflm
from tests.converters.quant_models import canonical, residual

DATA = bytes(range(256)) * 3 + b"\x07"
FOUND = Content(
    operators=("CONV_2D", "SOFTMAX"),
    inputs={"x": 0},
    outputs={"y": 0},
    stateful=False,
    hybrid=None,
    half=False,
    batch=1,
)
HALVES = Quantization(scale=0.5, zero_point=-3)
BUILT = Built(
    main="model.tflite",
    inputs=(
        Tensor(
            name="x", dtype="float32", shape=(-1, 8, 8), quantization=Quantization(scale=0.5, zero_point=-3)
        ),
    ),
    outputs=(Tensor(name="y", dtype="float32", shape=(-1, 4)),),
    requires=Requirements(runtime="tflm"),
    route="",
)
TAKEN = Arena(needed=15_472, total=15_472, head=12_288, tail=3_184)
OPTIONS = {
    "accelerator_config": "ethos-u55-128",
    "config": "Arm/vela.ini",
    "system_config": "Ethos_U55_High_End_Embedded",
    "memory_mode": "Shared_Sram",
}
SUMMARY = """experiment,core_clock,inference_time,sram_memory_used,off_chip_flash_memory_used,\
nn_macs,cycles_npu,cycles_total
default,500000000.0,0.0001798,21.671875,30.375,\
2664792,88902,89900
"""


GARBAGE = """for a in "$@"; do case $a in --output-dir=*) o=${a#*=};; esac; done
echo oops > $o/m_summary_x.csv; echo x > $o/m_vela.tflite"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The sources of a small program."""
    project.write(tmp_path, DATA, FOUND, BUILT, TAKEN)
    return tmp_path


def test_the_array_holds_the_file_byte_by_byte_and_is_aligned(written: Path) -> None:
    text = (written / "model_data.cc").read_text()
    head, _, body = text.partition("{")
    assert "alignas(16) const unsigned char kModel[kModelSize]" in head
    assert bytes(int(number) for number in body.partition("}")[0].split(",")[:-1]) == DATA
    assert f"kModelSize = {len(DATA)};" in (written / "model_data.h").read_text()


def test_exactly_the_operators_of_the_file_are_linked(written: Path) -> None:
    text = (written / "op_resolver.h").read_text()
    assert "MicroMutableOpResolver<2>" in text
    assert text.count("resolver.Add") == 2
    assert "AddConv2D()" in text
    assert "AddSoftmax()" in text


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("PADV2", "AddPadV2"),
        ("SELECT_V2", "AddSelectV2"),
        ("SPLIT_V", "AddSplitV"),
        ("L2_NORMALIZATION", "AddL2Normalization"),
        ("CUMSUM", "AddCumSum"),
        ("RESIZE_NEAREST_NEIGHBOR", "AddResizeNearestNeighbor"),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "AddUnidirectionalSequenceLSTM"),
        ("ethos-u", "AddEthosU"),
    ],
)
def test_an_operator_is_registered_by_tflms_name_for_it(operator: str, method: str) -> None:
    assert project.method(operator) == method


def test_the_arena_is_what_was_measured_and_a_margin(written: Path) -> None:
    text = (written / "main.cc").read_text()
    assert "kArenaSize = 17408;" in text
    assert "15472 bytes (tensors\n// 12288, structures 3184)" in text


def test_every_source_says_that_it_is_prepared(written: Path) -> None:
    assert all("Prepared" in path.read_text() for path in written.iterdir())
    readme = (written / "README.md").read_text()
    assert "real = 0.5 x (q - -3)" in readme
    assert "| output | `y` | -1, 4 | none" in readme


def test_without_tflms_sources_nothing_is_said_to_compile(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TFLM_ROOT", raising=False)
    assert toolchain.tried(written)["status"] == "prepared"
    monkeypatch.setenv("TFLM_ROOT", str(written))
    found = toolchain.tried(written)
    assert found["status"] == "failed"
    assert "does not hold tensorflow/lite/micro" in found["why"]


def test_the_program_compiles_against_the_interface_it_uses_and_an_error_is_told(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against stand-ins for TFLM's headers with the few names used: proof of syntax and of reporting."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    root = tmp_path / "root"
    stand_ins(root)
    monkeypatch.setenv("TFLM_ROOT", str(root))
    found = toolchain.tried(written)
    assert found["status"] == "compiled", found
    (root / "tensorflow/lite/micro/micro_mutable_op_resolver.h").write_text("#error broken checkout\n")
    found = toolchain.tried(written)
    assert found["status"] == "failed"
    assert "main.cc: exit code 1: " in found["why"]
    assert "broken checkout" in found["why"]


def stand_ins(root: Path) -> None:
    """The names of TFLM's interface that the program uses, and nothing behind them."""
    files = {
        "micro/micro_log.h": "#pragma once\nvoid MicroPrintf(const char*, ...);\n",
        "micro/system_setup.h": "#pragma once\nnamespace tflite { void InitializeTarget(); }\n",
        "schema/schema_generated.h": "#pragma once\n#define TFLITE_SCHEMA_VERSION 3\nnamespace tflite {\n"
        "struct Model { unsigned version() const; };\nconst Model* GetModel(const void*);\n}\n",
        "micro/micro_mutable_op_resolver.h": "#pragma once\nenum TfLiteStatus { kTfLiteOk, kTfLiteError };\n"
        "#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (false)\n"
        "namespace tflite { template <unsigned n> struct MicroMutableOpResolver {\n"
        "  TfLiteStatus AddConv2D();\n  TfLiteStatus AddSoftmax();\n}; }\n",
        "micro/micro_interpreter.h": "#pragma once\n#include <cstddef>\n#include <cstdint>\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n'
        '#include "tensorflow/lite/schema/schema_generated.h"\n'
        "struct TfLiteTensor { size_t bytes; union { char* raw; } data; };\nnamespace tflite {\n"
        "struct MicroInterpreter {\n"
        "  template <class R> MicroInterpreter(const Model*, R&, uint8_t*, size_t);\n"
        "  TfLiteStatus AllocateTensors();\n  TfLiteStatus Invoke();\n  size_t inputs_size();\n"
        "  TfLiteTensor* input(size_t);\n  size_t arena_used_bytes();\n};\n}\n",
    }
    for name, text in files.items():
        path = root / "tensorflow" / "lite" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_vela_the_plain_file_stands_and_the_way_to_vela_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_TOOLS", str(tmp_path / "none"))
    found = vela.made(tmp_path / "model.tflite", tmp_path, OPTIONS)
    assert found["status"] == "absent"
    assert found["remedy"] == "edgekit tools install vela"
    assert not (tmp_path / "ethos-u").exists()


def test_vela_is_never_left_to_its_own_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(VELA), "python", lambda self: Path(sys.executable))
    found = vela.made(tmp_path / "model.tflite", tmp_path, {"accelerator_config": "ethos-u55-128"})
    assert found["status"] == "failed"
    assert "lack vela.config, vela.system_config, vela.memory_mode" in found["why"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo 'unsupported model' >&2; exit 3", "Vela ended with 3: unsupported model"),
        ("kill -SEGV $$", "Vela ended with -11"),
        ("exit 0", "wrote 0 files and 0 summaries"),
        (GARBAGE, "summary is not as expected"),
    ],
)
def test_a_vela_that_fails_costs_only_its_own_file(
    body: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(type(VELA), "python", lambda self: fake)
    found = vela.made(tmp_path / "model.tflite", tmp_path, OPTIONS)
    assert found["status"] == "failed"
    assert why in found["why"]
    assert not (tmp_path / "ethos-u").exists()


def test_cycles_are_called_estimates_and_a_missing_column_is_an_error() -> None:
    found = vela.summary(SUMMARY)
    assert (found["estimated_cycles"], found["estimated_ms"]) == (89_900, 0.1798)
    assert found["basis"].startswith("Vela's performance model: estimates")
    assert {key for key in found if "cycles" in key or key.endswith("_ms")} == {
        "estimated_cycles",
        "estimated_npu_cycles",
        "estimated_ms",
    }
    with pytest.raises(ToolFailed, match="not as expected: 'cycles_total'"):
        vela.summary(SUMMARY.replace("cycles_total", "cycles"))


def test_operators_on_either_side_are_counted() -> None:
    said = "\nCPU operators = 2 (10.0%)\nNPU operators = 18 (90.0%)\n"
    assert vela.operators(said) == {"npu_ops": 18, "cpu_ops": 2}
    with pytest.raises(ToolFailed, match="does not say how many"):
        vela.operators("all is well\n")


def test_what_became_of_the_npus_file_is_said_in_a_sentence() -> None:
    made = {"status": "prepared", "npu_ops": 18, "cpu_ops": 2, "estimated_ms": 0.4}
    assert vela.note(made).startswith(
        "18 of 20 operators on the Ethos-U, 0.4 ms by Vela's estimate; prepared"
    )
    absent = {"status": "absent", "why": "Vela is not installed", "remedy": "edgekit tools install vela"}
    assert vela.note(absent) == "no file for the Ethos-U: Vela is not installed (edgekit tools install vela)"


def test_vela_makes_an_npu_file_of_ours(tmp_path: Path) -> None:
    if VELA.python() is None:
        pytest.skip("Vela is not installed (edgekit tools install vela)")
    from edgekit_converters.targets.tflm import TflmTarget

    built = TflmTarget().build(tflm.job_of(canonical(residual), tmp_path, vela=OPTIONS), tmp_path)
    found = built.facts["vela"]
    assert found["status"] == "prepared"
    assert found["npu_ops"] > 0
    assert json.loads((tmp_path / "ethos-u" / "vela.json").read_text()) == found
    assert "AddEthosU()" in (tmp_path / "ethos-u" / "op_resolver.h").read_text()


def test_every_listed_operator_has_a_method() -> None:
    names = {name for entry in load_rules("tflm-0").allow for name in entry.ops}
    assert all(project.method(name)[3].isupper() for name in names)
