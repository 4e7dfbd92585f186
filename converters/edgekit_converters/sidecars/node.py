"""A sidecar of npm packages: one folder with its ``node_modules``, installed from a package lock.

The lock (``locks/<name>/package-lock.json``) pins every package with its sha512 and is made anew with
``npm install --package-lock-only --ignore-scripts`` beside it. No package's own scripts are run.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgekit.digest import sha256_file
from edgekit.errors import UnavailableError
from edgekit_converters.sidecars import environment
from edgekit_converters.sidecars.environment import STAMP, Say, Sidecar


@dataclass(frozen=True, kw_only=True)
class NodeSidecar(Sidecar):
    """A tool of npm. Its `requirements` read ``package==version`` like the others'; it has no Python."""

    pythons: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """What is used of the package: one that has lost them is as good as none."""

    @property
    def lock(self) -> Path:
        """The package lock."""
        return environment.LOCKS / self.name / "package-lock.json"

    @property
    def made(self) -> Path:
        """The folder of the tool's package."""
        return self.folder / "node_modules" / self.requirements[0].partition("==")[0]

    @property
    def needs(self) -> str:
        """What an installation needs."""
        return "it needs npm 7 or later and a package registry"

    def _kept(self) -> bool:
        return self.made.exists() and all((self.made / name).is_file() for name in self.files)

    def _make(self, say: Say) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise UnavailableError(
                f"{self.name} is an npm package, and npm is not on the PATH",
                remedy="install Node.js with npm (Debian: apt-get install npm)",
                code="no_npm",
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(self.lock.with_name(name), self.folder / name)
        say(f"installing {self.requirements[0]} into {self.folder} (about {self.megabytes} MB)")
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
        self._run([npm, "ci", "--prefix", str(self.folder), *options])
        (self.folder / STAMP).write_text(sha256_file(self.lock), encoding="utf-8")
        return self.made
