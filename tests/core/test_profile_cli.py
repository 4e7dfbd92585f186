"""`edgekit profiles` from outside: what it prints, what it writes, its exit codes; own folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli.main import cli
from edgekit.errors import ProfileError, UsageError
from edgekit.profile import FOLDERS, list_profiles, load_profile, profiles_folder
from edgekit.profile_lint import lint_file
from edgekit.rules import load_rules
from tests.core.test_profile import GOOD, write


@pytest.fixture(autouse=True)
def no_own_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDERS, "")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_list_names_every_board_with_its_targets() -> None:
    lines = run("profiles", "list").output.splitlines()
    assert [line.split()[0] for line in lines] == list(list_profiles())
    assert any("Raspberry Pi 4" in line and "tflite, onnx" in line for line in lines)
    rows = json.loads(run("profiles", "list", "--json").output)
    assert {row["name"]: row["digest"] for row in rows}["rpi4"] == load_profile("rpi4").digest


def test_show_prints_a_file_that_reads_back_as_the_same_profile(tmp_path: Path) -> None:
    for name in list_profiles():
        text = run("profiles", "show", name).output
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        again = load_profile(name, tmp_path).to_dict()
        shipped = load_profile(name).to_dict()
        assert again.pop("digest") != shipped.pop("digest"), name
        assert again == shipped


def test_show_names_the_digests_of_profile_and_rules() -> None:
    text = run("profiles", "show", "rpi4").output
    assert load_profile("rpi4").digest in text
    assert load_rules("tflite-2.3").digest in text
    whole = json.loads(run("profiles", "show", "rpi4", "--json").output)
    assert whole["rules"]["tflite-2.3"]["ops"]
    assert {item["basis"] for item in whole["evidence"]} == {"measured", "claimed"}


def test_an_unknown_board_is_answered_with_the_nearest() -> None:
    error = run("profiles", "show", "rpi-4").exception
    assert isinstance(error, ProfileError)
    assert "rpi4" in str(error)


def test_lint_of_all_shipped_files_is_clean_even_strictly() -> None:
    done = run("profiles", "lint", "--strict")
    assert (done.exit_code, done.output.rpartition(" files: ")[2]) == (0, "0 errors, 0 warnings\n")


def test_lint_exits_2_on_an_error_and_on_a_warning_only_when_strict(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    path = str(tmp_path / "board.toml")
    assert run("profiles", "lint", path).exit_code == 0
    assert run("profiles", "lint", path, "--strict").exit_code == 2
    write(tmp_path, GOOD.replace("cores = 4", "coers = 4"))
    done = run("profiles", "lint", path, "--json")
    [finding] = json.loads(done.output)["findings"]
    assert done.exit_code == 2
    assert finding["where"] == f"{path}:9: cpu.cores"


def test_lint_takes_names_too_and_tells_an_unknown_one() -> None:
    assert run("profiles", "lint", "rpi4", "tda4vm").output == "2 files: 0 errors, 0 warnings\n"
    assert isinstance(run("profiles", "lint", "rpi44").exception, ProfileError)
    assert run("profiles", "lint", "rpi44.toml").exit_code == 2


def test_a_copy_claims_nothing_as_measured_and_is_valid(tmp_path: Path) -> None:
    done = run("profiles", "new", "my-board", "--from", "rpi4", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    mine = load_profile(str(tmp_path / "my-board.toml"))
    assert {item.basis for item in mine.evidence} == {"claimed"}
    assert all(item.source.startswith("copied from rpi4") for item in mine.evidence)
    assert mine.cpu == load_profile("rpi4").cpu


@pytest.mark.parametrize("name", list_profiles())
def test_every_shipped_profile_can_be_copied(tmp_path: Path, name: str) -> None:
    assert run("profiles", "new", "copy", "--from", name, "--out", str(tmp_path)).exit_code == 0
    assert lint_file(tmp_path / "copy.toml") == []


def test_a_blank_profile_is_valid_and_explains_every_key_it_has(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    assert run("profiles", "new", "my-board", "--blank", "--out", str(path)).exit_code == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [index for index, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert all(lines[index - 1].startswith("#") for index in keys)
    assert any("One of: measured, claimed." in line for line in lines)
    assert lint_file(path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("new", "x"),
        ("new", "x", "--blank", "--from", "rpi4"),
        ("new", "Bad Name", "--blank", "--out", "OUT/Bad Name.toml"),
        ("new", "../x", "--blank", "--out", "OUT/x.toml"),
        ("new", "x", "--blank", "--out", "OUT/y.toml"),
        ("new", "x", "--blank", "--out", "OUT/x.txt"),
    ],
)
def test_a_profile_that_could_not_be_read_again_is_not_left_behind(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = run("profiles", *(item.replace("OUT", str(tmp_path)) for item in arguments))
    assert isinstance(done.exception, UsageError)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_without_force_and_after_a_bad_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    out = ("--blank", "--out", str(tmp_path / "board.toml"))
    assert isinstance(run("profiles", "new", "board", *out).exception, UsageError)
    assert isinstance(run("profiles", "new", "other", "--force", *out).exception, UsageError)
    assert (tmp_path / "board.toml").read_text(encoding="utf-8") == GOOD
    assert run("profiles", "new", "board", "--force", *out).exit_code == 0
    assert (tmp_path / "board.toml").read_text(encoding="utf-8") != GOOD


def test_detect_writes_a_profile_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.profile_detect.installed_runtimes", lambda: {"litert": "2.3.0"})
    assert run("profiles", "detect", "--out", str(tmp_path / "here.toml")).exit_code == 0
    assert load_profile("here", tmp_path).evidence[0].basis == "measured"
    assert 'name = "x"' in run("profiles", "detect", "--name", "x").output


@pytest.mark.parametrize("kind", ["profile", "rules"])
def test_the_schema_is_printed_as_published(kind: str) -> None:
    published = profiles_folder() / "schema" / f"{kind}.schema.json"
    assert run("profiles", "schema", kind).output == published.read_text(encoding="utf-8")


def test_a_board_of_ones_own_is_one_file_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    assert run("profiles", "show", "board").exception is not None
    monkeypatch.setenv(FOLDERS, f"{tmp_path}{os.pathsep}")
    assert run("profiles", "show", "board").exit_code == 0
    assert {"board", "rpi4"} <= set(list_profiles())
    assert load_profile("board").title == "A board"


def test_the_first_folder_wins_and_brings_its_own_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "rules").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    write(tmp_path / "a", GOOD.replace("A board", "first"))
    write(tmp_path / "b", GOOD.replace("A board", "second"))
    rules = (profiles_folder() / "rules" / "tflite-2.3.toml").read_text(encoding="utf-8")
    (tmp_path / "a" / "rules" / "tflite-99.toml").write_text(rules.replace('"2.3"', '"99"', 1))
    monkeypatch.setenv(FOLDERS, f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    assert load_profile("board").title == "first"
    assert load_rules("tflite-99").version == "99"
    assert load_rules("tflite-2.3").version == "2.3"


def test_the_option_is_searched_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, GOOD.replace("A board", name))
    monkeypatch.setenv(FOLDERS, str(tmp_path / "a"))
    done = run("profiles", "--profiles-dir", str(tmp_path / "b"), "show", "board")
    assert 'title = "b"' in done.output


def test_a_folder_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDERS, "/nowhere/at/all")
    with pytest.raises(ProfileError, match=FOLDERS):
        list_profiles()
