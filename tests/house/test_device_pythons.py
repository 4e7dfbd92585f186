"""Core and agent pass their own tests from their wheels, without the source and without any other part.

With the oldest and the newest Python a device may have; the environment is the agent's locked one
plus the test tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import in_ci
from tests.house.environments import fresh_environment, pip
from tools.lock import DEVICE_PYTHONS, ROOT

OWN_TESTS = ("tests/core", "tests/agent", "tests/contract/test_documents.py")
CHOSEN = (DEVICE_PYTHONS[0], DEVICE_PYTHONS[-1])
IN_A_CHECKOUT_ONLY = ("tests/core/test_profile.py::test_the_checkouts_profiles_are_preferred",)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (in_ci() or os.environ.get("EDGEKIT_LOCKS")),
        reason="makes an environment per Python, which takes minutes: runs with CI=true or EDGEKIT_LOCKS=1",
    ),
]


@pytest.mark.parametrize("python", CHOSEN)
def test_core_and_agent_pass_their_tests_without_source_and_other_parts(python: str, tmp_path: Path) -> None:
    fresh = fresh_environment(tmp_path / "venv", python)
    pip(fresh, "--require-hashes", "--no-deps", "-r", ROOT / "locks" / f"agent-dev-py{python}.txt")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", tmp_path, ROOT, ROOT / "agent"], check=True, capture_output=True)
    pip(fresh, "--no-deps", *tmp_path.glob("*.whl"))
    stage = tmp_path / "stage"
    for name in ("core", "agent", "contract", "simulators"):
        shutil.copytree(
            ROOT / "tests" / name, stage / "tests" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / name, stage / name)
    skipped = [f"--deselect={name}" for name in IN_A_CHECKOUT_ONLY]
    done = subprocess.run(
        [
            fresh,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "not e2e and not slow",
            *OWN_TESTS,
            *skipped,
        ],
        cwd=stage,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
