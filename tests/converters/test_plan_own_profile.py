"""A board of one's own is one file and no code: the planner and `edgekit convert` see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.cli.main import cli
from edgekit.errors import ProfileError, SourceError
from edgekit.profile import FOLDERS, load_profile
from edgekit_converters.engine.plan import make_plan


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
