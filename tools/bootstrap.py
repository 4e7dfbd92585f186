"""Makes `.venv` ready: the lock with hashes, then the four distributions from this checkout.

Needs only a Python with venv and pip (standard library only). Does nothing when `.venv` was made
from the same lock and the same project files. On machines the locks are not made for (another
architecture than x86-64 Linux, or a Python newer than the locks) the version ranges of the
pyproject files are installed instead, and that is said.

    python3 tools/bootstrap.py
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "edgekit-ready"
LOG = VENV / "install.log"
PROJECTS = (".", "converters", "agent", "fleet")
UNLOCKED = (".[cli]", "./converters[tf,ml,tflm]", "./agent[litert,onnx,serial]", "./fleet")


def lock_for(python: str) -> Path | None:
    """The development lock for a Python (``3.11``), or None where this machine has none."""
    path = ROOT / "locks" / f"dev-py{python}.txt"
    fits = sys.platform == "linux" and platform.machine() == "x86_64"
    return path if fits and path.exists() else None


def fingerprint(python: str) -> str:
    """What `.venv` depends on: the Python, the lock, the project files, the place."""
    hasher = hashlib.sha256(f"{python} {ROOT}".encode())
    for path in (lock_for(python), *(ROOT / folder / "pyproject.toml" for folder in PROJECTS)):
        hasher.update(path.read_bytes() if path else b"no lock")
    return hasher.hexdigest()


def version_of(python: Path | str) -> str | None:
    """``3.11`` and so on, or None when that Python does not run."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def pip(*arguments: str) -> None:
    """Run pip inside `.venv`, its output going to the log; ends the program when pip fails."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    with LOG.open("ab") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = LOG.read_text(errors="replace").splitlines()[-20:]
        print("\n".join(tail), file=sys.stderr)
        sys.exit(f"edgekit: pip failed; everything it said is in {LOG.relative_to(ROOT)}")


def install(python: str) -> None:
    """Install what the tools and the tests need, then edgekit itself, editable."""
    lock = lock_for(python)
    if lock is None:
        machine = f"Python {python} on {sys.platform} {platform.machine()}"
        print(f"edgekit: there is no lock for {machine}: installing the newest versions that fit")
        wanted = development_requirements()
        pip(*wanted, *(word for item in UNLOCKED for word in ("-e", item)))
        return
    pip("--require-hashes", "--no-deps", "-r", str(lock.relative_to(ROOT)))
    editable = (word for folder in PROJECTS for word in ("-e", f"./{folder}"))
    pip("--no-deps", "--no-build-isolation", *editable)


def development_requirements(group: str = "dev") -> list[str]:
    """A dependency group of the root pyproject, groups inside it opened."""
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as stream:
        items = tomllib.load(stream)["dependency-groups"][group]
    nested = (development_requirements(item["include-group"]) for item in items if not isinstance(item, str))
    return [item for item in items if isinstance(item, str)] + [line for lines in nested for line in lines]


def main() -> int:
    """Bring `.venv` up to date; 0 when it is ready."""
    python = version_of(PYTHON)
    if python and STAMP.exists() and STAMP.read_text() == fingerprint(python):
        return 0
    started = time.monotonic()
    python = version_of(sys.executable)
    if python is None or python != version_of(PYTHON):
        shutil.rmtree(VENV, ignore_errors=True)
        print(f"edgekit: making .venv with Python {platform.python_version()} (once; one to three minutes)")
        venv.create(VENV, with_pip=True, symlinks=os.name != "nt")
    else:
        print("edgekit: bringing .venv up to date")
    STAMP.unlink(missing_ok=True)
    install(str(python))
    STAMP.write_text(fingerprint(str(python)))
    print(f"edgekit: ready after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
