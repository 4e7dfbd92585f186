"""A board of one's own is one file and no code: the planner and `edgekit convert` see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli.main import cli
from edgekit.errors import ProfileError, SourceError
from edgekit.profile import FOLDERS, load_profile
from edgekit.profile_lint import lint_file
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.plan import make_plan
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from tests.converters.graphs import save, small_cnn

BOARD = """
schema = 1
name = "greenhouse"
title = "A camera in a greenhouse"
memory_mb = [256]
limits = ["it is hot there"]
[match]
machines = ["aarch64"]
[cpu]
name = "Cortex-A35"
cores = 2
isa = "armv8-a"
[os]
name = "Linux"
[runtimes.litert]
minimum = "1.2.0"
[[targets]]
name = "tflite"
runtime = "litert"
rules = "tflite-2.3"
precisions = ["fp32", "dynamic"]
default = ["fp32"]
[budgets]
size_mb = 0.5
[[evidence]]
facts = ["cpu", "os", "memory_mb", "match", "runtimes", "targets", "budgets", "limits"]
basis = "claimed"
source = "the label on the board"
"""


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDERS, "")
    done = CliRunner().invoke(cli, ["profiles", "new", "mine", "--from", "rpi5", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    return tmp_path


def test_the_plan_of_an_own_board_is_that_of_its_file(boards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDERS, str(boards))
    plan = make_plan(
        [load_profile("mine")], targets=(), precisions=(), installed=("tflite",), has_calibration=True
    )
    assert [item.id for item in plan.wanted] == ["mine-tflite-int8", "mine-tflite-fp16", "mine-tflite-fp32"]


def test_convert_knows_an_own_board_by_its_folder_only(boards: Path) -> None:
    convert = ["convert", str(boards / "none.onnx"), "--profile", "mine", "--out", str(boards / "out")]
    unknown = CliRunner().invoke(cli, convert).exception
    assert isinstance(unknown, ProfileError)
    assert unknown.code == "unknown_profile"
    known = CliRunner().invoke(cli, [*convert, "--profiles-dir", str(boards)]).exception
    assert isinstance(known, SourceError), "the profile was found, the model is what is missing"


def test_convert_names_file_and_line_of_a_mistake_in_an_own_board(boards: Path) -> None:
    path = boards / "mine.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("cores = 4", "cores = -4"), encoding="utf-8")
    arguments = ["convert", str(boards / "none.onnx"), "--profile", "mine", "--out", str(boards / "out")]
    error = CliRunner().invoke(cli, [*arguments, "--profiles-dir", str(boards)]).exception
    assert isinstance(error, ProfileError)
    line = path.read_text(encoding="utf-8").splitlines().index("cores = -4") + 1
    assert error.where == f"{path}:{line}: cpu.cores"
    assert "at least 1" in error.message


def test_a_new_board_is_one_file_and_a_model_is_converted_for_it(
    tmp_path: Path, workers: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    (tmp_path / "greenhouse.toml").write_text(BOARD, encoding="utf-8")
    assert lint_file(tmp_path / "greenhouse.toml") == []
    request = Request(
        source=save(small_cnn(), tmp_path / "cnn.onnx"),
        profiles=("greenhouse",),
        out=tmp_path / "out",
        cache=tmp_path / "cache",
    )
    result = convert(request, pool=workers)
    (found,) = result.manifest.variants
    assert found.id == "greenhouse-tflite-fp32"
    assert found.verification.method == "executed"
    assert found.requires.machines == ("aarch64",)
    assert result.manifest.profiles["greenhouse"] == load_profile("greenhouse").digest
    assert "it is hot there" in (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
