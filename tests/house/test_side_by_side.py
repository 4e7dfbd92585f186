"""`make test` runs every test exactly once, in several processes, and tells them as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import test as tool


def test_every_test_file_is_run_exactly_once() -> None:
    files = {path.relative_to(tool.ROOT) for path in (tool.ROOT / "tests").rglob("test_*.py")}
    folders = [Path(name) for shard in tool.shards() for name in shard]
    times = {file: sum(folder in file.parents for folder in folders) for file in files}
    assert times == dict.fromkeys(files, 1)


def test_the_last_lines_of_both_become_one() -> None:
    one = "FAILED x\n==== 1 failed, 20 passed, 2 skipped in 12.50s ====\n"
    two = "== 3 passed, 1 error, 1 warning in 700.10s (0:11:40) ==\n"
    told = tool.summary([one, two], 701.0)
    assert told.strip("= ") == "1 failed, 1 error, 23 passed, 2 skipped, 1 warning in 701.00s (0:11:41)"
    assert told.startswith("=")


def test_a_process_that_ends_before_its_end_is_an_error() -> None:
    told = tool.summary(["==== 20 passed in 12.50s ====\n", "tests/house/test_locks.py ....\nKilled\n"], 13.0)
    assert "1 error, 20 passed" in told


@pytest.mark.parametrize(("broken", "code"), [("first", 1), ("second", 1), ("", 0)])
def test_a_failure_in_either_process_is_the_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    broken: str,
    code: int,
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"test_{name}.py").write_text(f"def test_it():\n    assert {broken != name}\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "shards", lambda: (("first",), ("second",)))
    assert tool.main([]) == code
    said = capfd.readouterr().out
    assert said.index("test_first.py") < said.index("test_second.py")
    assert ("1 failed, 1 passed" if code else " 2 passed") in said.splitlines()[-1]


def test_a_run_that_is_ended_leaves_no_process_behind(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        text = "import os, pathlib, time\ndef test_it():\n    "
        text += f"pathlib.Path('{name}.pid').write_text(str(os.getpid()))\n    time.sleep(60)\n"
        (tmp_path / name / f"test_{name}.py").write_text(text)
    code = (
        "import pathlib, sys\nfrom tools import test\n"
        f"test.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        "test.shards = lambda: (('first',), ('second',))\nsys.exit(test.command([]))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=tool.ROOT, stdout=subprocess.DEVNULL)
    places = [tmp_path / "first.pid", tmp_path / "second.pid"]
    end = time.monotonic() + 60
    while not all(place.exists() and place.read_text() for place in places):
        assert time.monotonic() < end, "they start"
        time.sleep(0.1)
    run.terminate()
    assert run.wait(30) == 128 + signal.SIGTERM
    for place in places:
        with pytest.raises(ProcessLookupError):
            os.kill(int(place.read_text()), 0)
