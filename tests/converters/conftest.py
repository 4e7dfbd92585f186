"""The digits, trained once a session, and converted once into everything; other tests look at the result."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit_converters.engine.pool import Limits, Pool
from tests.conftest import require_package

REPOSITORY = Path(__file__).resolve().parents[2]
HOST_PROFILES = ("x86-64-litert", "x86-64-onnx")
PROFILES = (*HOST_PROFILES, "rpi4", "jetson-orin-nano", "iphone-15")
PRECISIONS = ("fp32", "fp16", "dynamic", "int8")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a call of the command line left."""

    code: int
    out: str
    err: str


def edgekit(*arguments: object, cache: Path, check: Sequence[int] = (0,)) -> Run:
    """Run `edgekit` in a process of its own."""
    command = [sys.executable, "-m", "edgekit", *(str(item) for item in arguments)]
    environment = {**os.environ, "EDGEKIT_CACHE": str(cache), "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in check:
        pytest.fail(f"exit code {done.returncode}, {check} expected\n{done.stdout}\n{done.stderr}")
    return Run(code=done.returncode, out=done.stdout, err=done.stderr)


def profile_options(*names: str) -> list[str]:
    """``--profile`` for each name."""
    return [part for name in names for part in ("--profile", name)]


def precision_options() -> list[str]:
    """``--precision`` for each of `PRECISIONS`."""
    return [part for name in PRECISIONS for part in ("--precision", name)]


@pytest.fixture(scope="session")
def workers() -> Iterator[Pool]:
    """Warm worker processes for the session: importing TensorFlow takes longer than most conversions."""
    with Pool(Limits()) as found:
        yield found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage cache for the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the trained digits model, its contract and data."""
    require_package("tensorflow", "tf")
    out = tmp_path_factory.mktemp("digits")
    train = REPOSITORY / "examples" / "digits" / "train.py"
    subprocess.run([sys.executable, str(train), "--out", str(out)], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def package(digits: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits converted into every precision that asks for no choice, for five profiles."""
    out = tmp_path_factory.mktemp("package") / "digits"
    options = [*profile_options(*PROFILES), *precision_options(), "--out", out]
    edgekit("convert", digits / "model.keras", *options, cache=cache)
    return out
