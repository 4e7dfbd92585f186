"""One private virtual environment: where it lies, whether it is whole, how it is made and removed.

An environment counts only with its stamp, which is written last and holds the digest of the lock it was
made from: one that is half made, or made from another lock, is as good as none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.digest import sha256_file
from edgekit.errors import UnavailableError
from edgekit_converters.errors import ToolFailed, storage_error

LOCKS = Path(__file__).parent / "locks"
STAMP = "edgekit-ready"
_LOG = "install.log"
_SECONDS = 1800
Say = Callable[[str], None]


def root() -> Path:
    """``$EDGEKIT_TOOLS``, else ``$XDG_CACHE_HOME/edgekit/tools``, else ``~/.cache/edgekit/tools``."""
    chosen = os.environ.get("EDGEKIT_TOOLS")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgekit" / "tools"


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """A foreign tool with an environment of its own.

    `requirements` are what the lock was resolved from, the tool itself first; `pythons` the versions that
    the lock serves; `megabytes` about what it takes on the disk.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]
    megabytes: int

    @property
    def lock(self) -> Path:
        """The file that pins every package with its hashes."""
        return LOCKS / f"{self.name}.txt"

    @property
    def needs(self) -> str:
        """What an installation needs."""
        return "it needs the venv module (Debian: python3-venv) and a package index"

    @property
    def folder(self) -> Path:
        """Where the environment lies, made or not."""
        return root().absolute() / self.name

    @property
    def version(self) -> str:
        """The pinned version of the tool itself."""
        return self.requirements[0].partition("==")[2]

    @property
    def made(self) -> Path:
        """What of it is used: the environment's interpreter."""
        return self.folder / "bin" / "python"

    def ready(self) -> Path | None:
        """`made`, or None where it is not installed whole from this lock."""
        try:
            whole = (self.folder / STAMP).read_text(encoding="utf-8") == sha256_file(self.lock)
        except OSError:
            return None
        return self.made if whole and self._kept() else None

    def _kept(self) -> bool:
        """Whether the files are still there: the interpreter, and what pip recorded of the tool itself."""
        name = re.sub(r"[-_.]+", "_", self.requirements[0].partition("==")[0])
        records = self.folder.glob(f"lib/python3.*/site-packages/{name}-{self.version}.dist-info/RECORD")
        record = next(records, None)
        if record is None or not self.made.exists():
            return False
        rows = record.read_text(encoding="utf-8").splitlines()
        files = [row.rsplit(",", 2)[0].strip('"') for row in rows]
        return all((record.parents[1] / file).exists() for file in files if not file.endswith(".pyc"))

    def python(self) -> Path | None:
        """The environment's interpreter, or None where it is not installed."""
        return self.ready()

    def packages(self) -> Path | None:
        """The environment's site-packages folder, or None where it is not installed."""
        if self.python() is None:
            return None
        return next(iter(sorted(self.folder.glob("lib/python3.*/site-packages"))), None)

    def install(self, say: Say = lambda line: None) -> Path:
        """Make the environment with pip from the lock, unless it is whole already; gives `made`.

        Raises:
            UnavailableError: no Python here that the lock serves, or no npm.
            ToolFailed: venv, pip or npm failed; what they said is in ``install.log``, its end in the error.
            StorageError: the disk is full or not writable.
        """
        try:
            with self._alone():
                return self.ready() or self._make(say)
        except OSError as error:
            raise storage_error(
                error, str(self.folder), f"{self.name} cannot be installed", "set EDGEKIT_TOOLS to a folder"
            ) from error

    def remove(self) -> bool:
        """Delete the environment; whether there was one."""
        if not self.folder.exists():
            return False
        (self.folder / STAMP).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _make(self, say: Say) -> Path:
        base = _interpreter(self)
        shutil.rmtree(self.folder, ignore_errors=True)
        say(f"making {self.folder} with {base} (about {self.megabytes} MB)")
        self._run([str(base), "-m", "venv", str(self.folder)])
        python = self.folder / "bin" / "python"
        count = sum("==" in line for line in self.lock.read_text(encoding="utf-8").splitlines())
        say(f"installing {count} packages from the lock")
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
        pinned = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(self.lock)]
        self._run([str(python), "-m", "pip", "install", *quiet, *pinned])
        (self.folder / STAMP).write_text(sha256_file(self.lock), encoding="utf-8")
        return python

    def _run(self, command: list[str]) -> None:
        log = self.folder.with_name(f"{self.name}-{_LOG}")
        try:
            with log.open("wb") as stream:
                done = subprocess.run(
                    command, stdout=stream, stderr=subprocess.STDOUT, timeout=_SECONDS, check=False
                )
        except subprocess.TimeoutExpired as error:
            raise ToolFailed(
                f"{' '.join(command[1:3])} took more than {_SECONDS} s", code="install_failed"
            ) from error
        if done.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ToolFailed(
                f"{self.name} was not installed: {said[-1][:300] if said else 'nothing was said'}",
                where=str(log),
                remedy=self.needs,
                code="install_failed",
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One installation at a time; the system lets the lock go when its process ends."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f".{self.name}.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _interpreter(sidecar: Sidecar) -> Path:
    """A Python the lock serves: the running one, else one on the PATH."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if own in sidecar.pythons:
        return Path(sys.executable)
    for version in sidecar.pythons:
        found = shutil.which(f"python{version}")
        if found and _version(found) == version:
            return Path(found)
    raise UnavailableError(
        f"{sidecar.name} needs Python {' or '.join(sidecar.pythons)}; this is {own}, and none is on the PATH",
        remedy=f"install python{sidecar.pythons[0]}",
        code="no_python",
    )


def _version(python: str) -> str | None:
    """Version of an interpreter; None when it does not run (pyenv's shims stand for versions not chosen)."""
    try:
        done = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"(\d+\.\d+)\.", done.stdout)
    return found[1] if found else None
