"""What we ship: wheels built, complete, installed without the source; the agent alone stays light."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools.lock import ROOT

FOLDERS = {
    "edgekit_core": ".",
    "edgekit_converters": "converters",
    "edgekit_agent": "agent",
    "edgekit_fleet": "fleet",
}
PACKAGES = {"edgekit_core": "edgekit", **{name: name for name in FOLDERS if name != "edgekit_core"}}
UNWANTED = frozenset({"tensorflow", "tensorflow_cpu", "keras", "torch", "fastapi", "pydantic", "sqlalchemy"})
UNWANTED |= {
    "uvicorn",
    "starlette",
    "coremltools",
    "onnx",
    "click",
    "rich",
    "edgekit_fleet",
    "edgekit_converters",
}
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The four wheels, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in FOLDERS.values():
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            folder,
        ]
        done = subprocess.run([*command, ROOT / name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def agent_alone(wheels: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment that got the core and the agent, as `pip install . ./agent` gives them."""
    folder = tmp_path_factory.mktemp("agent-alone")
    pins = re.findall(
        r"^\S+==[^\s\\]+", (ROOT / "locks" / f"agent-py{RUNNING}.txt").read_text(), re.MULTILINE
    )
    (folder / "constraints.txt").write_text("\n".join(pins))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    python = folder / "venv" / "bin" / "python"
    command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "-c", folder / "constraints.txt"]
    command += [wheels["edgekit_core"], wheels["edgekit_agent"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path, code: str, folder: Path) -> str:
    """What `code` prints in that environment, run from a folder without our source."""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FOLDERS)
def test_every_wheel_carries_its_licence_types_and_nothing_else(
    name: str, wheels: Mapping[str, Path]
) -> None:
    with zipfile.ZipFile(wheels[name]) as wheel:
        names = wheel.namelist()
        licence = next(item for item in names if item.endswith(".dist-info/licenses/LICENSE"))
        assert b"Apache License" in wheel.read(licence)
    assert f"{PACKAGES[name]}/py.typed" in names
    assert {item.split("/")[0].split("-")[0] for item in names} == {name, PACKAGES[name]}
    assert not [item for item in names if "/tests/" in item or item.endswith(".pyc")]


def test_the_core_wheel_carries_the_hardware_profiles_and_rules(wheels: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(wheels["edgekit_core"]) as wheel:
        names = set(wheel.namelist())
    here = {
        path.relative_to(ROOT / "hw_profiles").as_posix() for path in (ROOT / "hw_profiles").rglob("*.toml")
    }
    assert here
    assert {f"edgekit/_hw_profiles/{path}" for path in here} <= names


def test_every_module_of_every_part_is_in_its_wheel(wheels: Mapping[str, Path]) -> None:
    for name, folder in FOLDERS.items():
        sources = {
            path.relative_to(ROOT / folder).as_posix()
            for path in (ROOT / folder / PACKAGES[name]).rglob("*.py")
        }
        with zipfile.ZipFile(wheels[name]) as wheel:
            assert sources <= set(wheel.namelist())


def test_an_agent_alone_brings_no_heavy_stack(agent_alone: Path, tmp_path: Path) -> None:
    code = "import json, importlib.metadata as m\nprint(json.dumps([d.name for d in m.distributions()]))"
    installed = {name.lower().replace("-", "_") for name in json.loads(run(agent_alone, code, tmp_path))}
    assert {"edgekit_core", "edgekit_agent"} <= installed
    assert not installed & UNWANTED


def test_an_agent_alone_cannot_import_what_belongs_to_others(agent_alone: Path, tmp_path: Path) -> None:
    wanted = sorted(UNWANTED)
    code = f"import importlib.util as u; print([n for n in {wanted!r} if u.find_spec(n)])"
    assert run(agent_alone, code, tmp_path).strip() == "[]"


def test_an_agent_alone_imports_all_of_itself_without_a_runtime(agent_alone: Path, tmp_path: Path) -> None:
    code = (
        "import pkgutil, importlib, edgekit, edgekit_agent\n"
        "assert 'site-packages' in edgekit.__file__, edgekit.__file__\n"
        "for package in (edgekit, edgekit_agent):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.startswith('edgekit.cli') and not found.name.endswith('__main__'):\n"
        "            importlib.import_module(found.name)\n"
    )
    run(agent_alone, code, tmp_path)


def test_an_agent_alone_reads_the_profiles_it_shipped_with(agent_alone: Path, tmp_path: Path) -> None:
    code = "from edgekit.profile import list_profiles; print(len(list_profiles()))"
    assert int(run(agent_alone, code, tmp_path)) == len(list((ROOT / "hw_profiles").glob("*.toml")))


def test_an_agent_alone_answers_for_help(agent_alone: Path, tmp_path: Path) -> None:
    if not (ROOT / "agent" / "edgekit_agent" / "cli.py").exists():
        pytest.skip("edgekit-agent has no command line yet")
    program = agent_alone.parent / "edgekit-agent"
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "enrol" in done.stdout


def test_the_core_alone_says_what_its_command_line_needs(wheels: Mapping[str, Path], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, capture_output=True)
    python = tmp_path / "venv" / "bin" / "python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        wheels["edgekit_core"],
    ]
    subprocess.run(install, check=True, capture_output=True)
    done = subprocess.run(
        [python.parent / "edgekit"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode != 0
    assert "edgekit-core[cli]" in done.stderr
