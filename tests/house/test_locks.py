"""The locks: complete, clean, and installable by plain pip.

Installed for real with every Python found here: core, agent and fleet; converters with the running
one. With the other Pythons pip resolves the converters' lock, downloads and hash-checks every file,
and unpacks nothing: the test's name says so. The locks of test tools are installed by `make setup`
(dev) and by `test_device_pythons` (agent-dev); here their files are downloaded and hash-checked.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import in_ci
from tests.house.environments import RUNNING, fresh_environment, pip
from tests.house.test_device_pythons import CHOSEN as INSTALLED
from tools.lock import LOCKS, ROOT, drifted

EVERY = [
    pytest.param(lock.path(python), python, id=lock.path(python).stem)
    for lock in LOCKS
    for python in lock.pythons
]
LIGHT = [case for case in EVERY if str(case.id).rpartition("-")[0] in ("core", "agent", "fleet")]
CONVERTERS = [case for case in EVERY if str(case.id).startswith("converters-")]
TOOLS = [case for case in EVERY if "dev-" in str(case.id)]
PACKAGE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


takes_minutes = pytest.mark.skipif(
    not (in_ci() or os.environ.get("EDGEKIT_LOCKS")),
    reason="installs every lock, which takes minutes: runs with CI=true or EDGEKIT_LOCKS=1",
)


def test_no_lock_drifts_from_the_project_files() -> None:
    assert drifted() == []


@pytest.mark.parametrize(("lock", "python"), EVERY)
def test_a_lock_names_no_index_and_no_local_path(lock: Path, python: str) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if "/" in line or "@" in line or line.startswith("-")]


@pytest.mark.parametrize(("lock", "python"), EVERY)
def test_every_package_of_a_lock_is_pinned_with_a_hash(lock: Path, python: str) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text())
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert packages
    for entry in packages:
        assert PACKAGE.match(entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize(("lock", "python"), EVERY)
def test_known_traps_stay_out_of_the_locks(lock: Path, python: str) -> None:
    found = {name.lower(): version for name, version in PACKAGE.findall(lock.read_text())}
    assert not {"torch", "tflite-runtime", "tensorflow"} & set(found)
    assert not [name for name in found if name.startswith("nvidia-")]
    if "coremltools" in found:
        assert tuple(map(int, found["numpy"].split(".")[:2])) < (2, 4)
        assert found["backports-strenum"] < "1.3.1"


def test_the_agents_locks_hold_none_of_the_heavy_stacks() -> None:
    heavy = {"click", "coremltools", "fastapi", "keras", "onnx", "pydantic", "rich"}
    heavy |= {"sqlalchemy", "tensorflow-cpu", "uvicorn"}
    for lock in (ROOT / "locks").glob("agent-py*.txt"):
        assert not heavy & {name.lower() for name, _ in PACKAGE.findall(lock.read_text())}, lock


@takes_minutes
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("lock", "python"), LIGHT)
def test_plain_pip_installs_the_lock(lock: Path, python: str, tmp_path: Path) -> None:
    fresh = fresh_environment(tmp_path / "venv", python)
    pip(fresh, "--require-hashes", "-r", lock)
    check = subprocess.run([fresh, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout


@takes_minutes
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("lock", "python"), CONVERTERS)
def test_plain_pip_resolves_downloads_and_checks_hashes_of_the_converters_lock(
    lock: Path, python: str, tmp_path: Path
) -> None:
    if python == RUNNING:
        pytest.skip("installed for real by the test below")
    fresh = fresh_environment(tmp_path / "venv", python)
    pip(fresh, "--dry-run", "--require-hashes", "-r", lock)


@takes_minutes
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("lock", "python"), TOOLS)
def test_plain_pip_downloads_and_checks_hashes_of_the_tools_lock(
    lock: Path, python: str, tmp_path: Path
) -> None:
    if lock.stem == f"dev-py{RUNNING}":
        pytest.skip("installed for real by `make setup`")
    if lock.stem.startswith("agent-dev-") and python in INSTALLED:
        pytest.skip("installed for real by test_device_pythons")
    fresh = fresh_environment(tmp_path / "venv", python)
    pip(fresh, "--dry-run", "--no-deps", "--require-hashes", "-r", lock)


@takes_minutes
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_plain_pip_installs_the_converters_lock_with_the_running_python(tmp_path: Path) -> None:
    lock = ROOT / "locks" / f"converters-py{RUNNING}.txt"
    fresh = fresh_environment(tmp_path / "venv", RUNNING)
    pip(fresh, "--require-hashes", "-r", lock)
    done = subprocess.run(
        [fresh, "-c", "import onnx, onnxruntime, coremltools"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
