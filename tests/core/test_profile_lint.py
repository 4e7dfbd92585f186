"""Faults of profile and rules files, by file, line and key; and what evidence has to cover."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.profile import FOLDERS, load_profile, profiles_folder
from edgekit.profile_lint import all_files, facts_of, lint_file
from edgekit.tomllines import key_lines, line_of
from tests.core.test_profile import GOOD, write

SOURCED = GOOD.replace(
    'facts = ["cpu"]', 'facts = ["cpu", "os", "memory_mb", "match", "runtimes", "targets"]'
)


def messages(path: Path) -> list[str]:
    return [str(item).replace(f"{path.parent}/", "") for item in lint_file(path)]


@pytest.mark.parametrize("path", all_files(), ids=lambda path: path.stem)
def test_every_shipped_file_is_without_fault_and_every_figure_has_its_source(path: Path) -> None:
    assert messages(path) == []


def test_a_fully_sourced_profile_has_no_finding(tmp_path: Path) -> None:
    write(tmp_path, SOURCED)
    assert messages(tmp_path / "board.toml") == []


def test_figures_without_evidence_are_warnings_with_their_lines(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    found = messages(tmp_path / "board.toml")
    assert [item.partition(": warning: no evidence (name ")[0] for item in found] == [
        "board.toml:13: os",
        "board.toml:15: runtimes.litert",
        "board.toml:17: targets[0]",
        "board.toml:5: memory_mb",
        "board.toml:7: match.machines",
        "board.toml:8: match.models",
    ]
    assert '"targets.tflite" in an [[evidence]] table' in found[2]


def test_a_board_costs_a_source_for_its_budgets_and_accelerators_too() -> None:
    facts = facts_of(load_profile("jetson-nano"))
    assert {"budgets.memory_mb", "accelerators", "targets.onnx", "cpu.isa"} <= set(facts)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 4", "cores = 0", "board.toml:11: cpu.cores: error: a whole number of at least 1"),
        ("cores = 4", "cores = 4\nspeed = 9", "board.toml:12: cpu.speed: error: unknown key"),
        ('name = "tflite"', 'name = "tflit"', "board.toml:18: targets[0].name: error: 'tflit' is not one of"),
        ("tflite-2.3", "tflite-9", "board.toml:20: targets[0].rules: error: no rules 'tflite-9' (there are"),
        ("tflite-2.3", "onnx-1.31", "board.toml:20: targets[0].rules: error: onnx-1.31 is for onnx"),
        (
            '["int8", "fp32"]',
            '["int8", "sparse75"]',
            "precisions: warning: tflite-2.3 has no sparse75",
        ),
        ('facts = ["cpu", ', 'facts = ["cup", "cpu", ', "evidence[0].facts: warning: 'cup' names nothing"),
        ("cores = 4", "cores = = 4", "not valid TOML"),
    ],
)
def test_a_fault_is_told_with_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SOURCED
    write(tmp_path, SOURCED.replace(old, new, 1))
    assert any(message in item for item in messages(tmp_path / "board.toml"))


def test_a_faulty_rules_file_is_recognised_as_one(tmp_path: Path) -> None:
    text = (profiles_folder() / "rules" / "tflm-0.toml").read_text(encoding="utf-8")
    (tmp_path / "tflm-0.toml").write_text(text.replace('weights = ["int8"]', 'weights = ["int7"]', 1))
    [found] = lint_file(tmp_path / "tflm-0.toml")
    line = text.splitlines().index('weights = ["int8"]') + 1
    assert found.where.endswith(f"tflm-0.toml:{line}: op[0].weights")
    assert "'int7' is not one of" in found.message
    assert "int8" in found.message


def test_rules_without_sources_or_ops_are_told(tmp_path: Path) -> None:
    head = 'schema = 1\ntarget = "tflm"\nversion = "0"\nruntime = "tflm"\nprecisions = ["int8"]\n'
    (tmp_path / "tflm-0.toml").write_text(head, encoding="utf-8")
    assert [item.message for item in lint_file(tmp_path / "tflm-0.toml")] == [
        "no evidence",
        "quantized precisions, and no op may be quantized",
    ]


def test_a_profile_whose_rules_are_faulty_is_told_so_and_the_others_are_still_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    (tmp_path / "rules").mkdir()
    rules = (profiles_folder() / "rules" / "tflite-2.3.toml").read_text(encoding="utf-8")
    faulty = rules.replace('version = "2.3"', 'version = "99"').replace("schema = 1", "schema = 1\nspeed = 9")
    (tmp_path / "rules" / "tflite-99.toml").write_text(faulty, encoding="utf-8")
    write(tmp_path, SOURCED.replace("tflite-2.3", "tflite-99"))
    [found] = messages(tmp_path / "board.toml")
    assert "targets[0].rules: error: the rules tflite-99 are faulty" in found
    assert "speed: unknown key" in found


def test_a_missing_file_is_an_error_not_a_crash(tmp_path: Path) -> None:
    assert [item.level for item in lint_file(tmp_path / "none.toml")] == ["error"]
    assert [item.level for item in lint_file(tmp_path)] == ["error"]
    (tmp_path / "board.txt").write_text(SOURCED, encoding="utf-8")
    assert messages(tmp_path / "board.txt") == ["board.txt: error: the file of a profile ends in .toml"]


def test_a_name_that_hides_a_shipped_profile_is_told(tmp_path: Path) -> None:
    write(tmp_path, SOURCED.replace('"board"', '"rpi4"', 1), "rpi4")
    assert any("hides the shipped profile rpi4" in item for item in messages(tmp_path / "rpi4.toml"))


def test_lines_are_found_in_nested_tables() -> None:
    lines = key_lines('a = 1\n[b.c]\n"d" = 2\n[[e]]\nx = 1\n[[e]]\nx = 2\n  [[e.f]]\n  y = 3\n[e.g]\nz = 1\n')
    assert lines["b.c.d"] == 3
    assert (lines["e[0].x"], lines["e[1].x"], lines["e[1].f[0].y"], lines["e[1].g.z"]) == (5, 7, 9, 11)
    assert line_of("e[1].f[0].nothing", lines) == 8
    assert line_of("nothing", lines) is None
