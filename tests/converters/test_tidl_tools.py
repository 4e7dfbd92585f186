"""TI's compiler, where it is installed: contained when it fails, believed only for the files it leaves.

The interpreter here is a **stand-in** that plays failures. TI's tools are in no registry; that they compile a
bundle is nowhere shown by these tests.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tidl import bundle, tools

FULL = (
    "subgraph_0_tidl_net.bin",
    "subgraph_0_tidl_io_1.bin",
    "allowedNode.txt",
    "onnxrtMetaData.txt",
)
TEMPLATE = Path(bundle.__file__).with_name("templates") / "compile.py.txt"


def stand_in(folder: Path, body: str) -> tools.Tools:
    """An interpreter that ignores the script and does `body` in the bundle instead."""
    python = folder / "stand-in-for-ti-python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys, time\nfrom pathlib import Path\n{textwrap.dedent(body)}"
    )
    python.chmod(0o755)
    (folder / "tools").mkdir()
    return tools.Tools(folder=folder / "tools", python=python)


def a_bundle(folder: Path) -> Path:
    place = folder / "bundle"
    (place / "compile").mkdir(parents=True)
    (place / "compile" / "compile.py").write_text(TEMPLATE.read_text())
    return place


def left(folder: Path, *names: str) -> Path:
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    for name in names:
        (artifacts / name).write_bytes(b"x")
    return artifacts


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.kill(os.getpid(), 11)", "ended by signal 11"),
        ("print('no TIDLCompilationProvider'); sys.exit(3)", "ended with 3: no TIDLCompilationProvider"),
        ("time.sleep(30)", "took more than 1 s"),
        ("pass", "no subgraph_0_tidl_net.bin"),
        ("Path('artifacts').mkdir()", "no subgraph_0_tidl_net.bin"),
    ],
)
def test_a_compiler_that_fails_is_contained_and_told(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        tools.compile_bundle(stand_in(tmp_path, body), a_bundle(tmp_path), most=1, seconds=1)
    assert caught.value.code == "tool_failed"
    assert tools.FOLDER in (caught.value.remedy or "")


def test_an_interpreter_that_is_no_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("not a program")
    found = tools.Tools(folder=tmp_path, python=tmp_path / "python")
    with pytest.raises(Refusal, match="cannot be started"):
        tools.compile_bundle(found, a_bundle(tmp_path), most=1)


def test_an_exit_status_of_nought_is_no_success_when_the_console_names_an_error(tmp_path: Path) -> None:
    names = ", ".join(repr(name) for name in FULL)
    body = f"""
        Path("artifacts").mkdir()
        for name in ({names},):
            Path("artifacts", name).write_bytes(b"x")
        print("TIDL_RT: ERROR: unsupported layer")
    """
    with pytest.raises(Refusal, match="unsupported layer"):
        tools.compile_bundle(stand_in(tmp_path, body), a_bundle(tmp_path), most=1)


@pytest.mark.parametrize("missing", FULL)
def test_an_artifact_set_with_a_file_missing_is_no_success(missing: str, tmp_path: Path) -> None:
    artifacts = left(tmp_path, *(name for name in FULL if name != missing))
    with pytest.raises(Refusal, match=missing):
        tools.checked(artifacts, "", most=1)


def test_an_empty_artifact_is_no_success(tmp_path: Path) -> None:
    artifacts = left(tmp_path, *FULL)
    (artifacts / FULL[0]).write_bytes(b"")
    with pytest.raises(Refusal, match=f"{FULL[0]} is empty"):
        tools.checked(artifacts, "", most=1)


def test_a_whole_artifact_set_is_listed_and_more_subgraphs_than_expected_are_doubted(tmp_path: Path) -> None:
    more = [name.replace("_0_", "_1_") for name in FULL[:2]]
    found = tools.checked(left(tmp_path, *FULL, *more), "frames: 20", most=1)
    assert found["subgraphs"] == ["subgraph_0", "subgraph_1"]
    assert found["doubts"] == ["2 subgraphs, 1 were expected"]


def test_without_both_names_in_the_environment_nothing_is_run(tmp_path: Path) -> None:
    assert tools.find({}) is None
    assert tools.find({tools.FOLDER: str(tmp_path)}) is None
    assert tools.find({tools.PYTHON: sys.executable}) is None
    both = {tools.FOLDER: str(tmp_path), tools.PYTHON: sys.executable}
    assert tools.find(both) == tools.Tools(folder=tmp_path, python=Path(sys.executable))


@pytest.mark.parametrize("name", [tools.FOLDER, tools.PYTHON])
def test_tools_that_are_named_and_not_there_are_no_silence(name: str, tmp_path: Path) -> None:
    given = {tools.FOLDER: str(tmp_path), tools.PYTHON: sys.executable, name: str(tmp_path / "gone")}
    with pytest.raises(Refusal, match="gone") as caught:
        tools.find(given)
    assert caught.value.code == "tool_not_found"


def test_the_compile_script_is_python_3_10_and_imports_only_what_tis_interpreter_has() -> None:
    tree = ast.parse(TEMPLATE.read_text(encoding="utf-8"), feature_version=(3, 10))
    imported = {item.name for node in ast.walk(tree) if isinstance(node, ast.Import) for item in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"json", "os", "shutil", "sys", "pathlib", "numpy", "onnxruntime"}


def test_the_compile_script_stops_where_the_runtime_is_not_tis(tmp_path: Path) -> None:
    script = a_bundle(tmp_path) / "compile" / "compile.py"
    for folder, said in (("", "set TIDL_TOOLS_PATH"), (str(tmp_path), "TIDLCompilationProvider")):
        done = subprocess.run(
            [sys.executable, script],
            env={**os.environ, tools.FOLDER: folder},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert said in done.stderr
    assert not (tmp_path / "bundle" / "artifacts").exists()
