"""Targets: one folder each, implementing `edgekit.ports.Target`, found by entry point.

Beyond the port, a target says which kind of worker process builds it (`worker`: ``plain``,
``tensorflow`` or ``coremltools``), how its artifacts are run (`method`: ``executed`` by their runtime in a
plain worker, or ``emulated`` by something of ours in the building one), names its runtime, and lists the
kernel sets that the runtime offers here, the first being the default; `imports`, where it has them, are
modules that a worker may import ahead; `open` gives a session on one of them.
A target whose files several runtimes take has `on(runtime)`, which gives the target as that one runs it.
A session that holds more than memory has `close`; one that ran otherwise than its target says has `ran`
(method, runtime, version). A target may name `wishes` for its jobs (``samples``, ``contract``) and the
`threads` to run with, may say that it is not `timed`, and may name the foreign `tools` that run its files
(`sidecars.tools`), so that a variant that nothing ran says how they are got.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from edgekit.errors import UsageError
from edgekit.ports import Arrays
from edgekit.tomlfile import did_you_mean
from edgekit_converters.targets.routes import Route
from edgekit_converters.values import Built, Job

GROUP = "edgekit.targets"


class Session(Protocol):
    """An open artifact: arrays in the contract's dtypes, any number of samples."""

    backend: str

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]: ...


class Target(Protocol):
    """`edgekit.ports.Target` as the engine uses it."""

    name: str
    precisions: tuple[str, ...]
    worker: str
    method: str
    runtime: str
    kernel_sets: tuple[str, ...]

    def build(self, job: Job, folder: Path) -> Built: ...

    def run(self, folder: Path, artifact: Built, inputs: Arrays) -> Arrays | None: ...

    def open(self, folder: Path, artifact: Built, *, kernels: str, threads: int) -> Session | None: ...

    def version(self) -> str: ...


def routes_of(target: Target, kind: str, precision: str) -> tuple[Route, ...]:
    """The target's ways to build from a source of `kind`; one for a target that names none."""
    named = getattr(target, "routes", None)
    if named is None:
        return (Route(name="", worker=target.worker),)
    found: tuple[Route, ...] = named(kind, precision)
    return found


def known_targets() -> tuple[str, ...]:
    """Names of the installed targets, nothing imported."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def load_target(name: str, runtime: str = "") -> Target:
    """Import the target called `name`, as `runtime` runs its files; by default its usual one.

    Raises:
        UsageError: it is not installed.
    """
    entry: EntryPoint | None = next(iter(entry_points(group=GROUP, name=name)), None)
    if entry is None:
        advice = did_you_mean(name, known_targets())
        raise UsageError(f"no target {name!r} is installed", remedy=advice, code="unknown_target")
    target: Target = entry.load()()
    on = getattr(target, "on", None)
    if not runtime or runtime == target.runtime or on is None:
        return target
    other: Target = on(runtime)
    return other
