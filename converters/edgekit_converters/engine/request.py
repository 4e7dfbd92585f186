"""What a conversion is asked to do, what it gives, and how it tells of its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgekit.package import Manifest
from edgekit_converters.engine.pool import Limits


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of ``edgekit convert``. `cache` is the stage cache's folder; `trust` lets a pickle run.

    `deployment_target` is an iOS version other than the profiles'; `prune` and `cluster` ask for the variants
    ``pruned`` and ``clustered`` besides, `finetune` is ``file.py:function`` for the first. `budget` is what
    `edgekit_converters.budget.terms` reads, `measurements` are files of ``edgekit bench``.
    """

    source: Path
    profiles: tuple[str, ...]
    out: Path
    cache: Path
    targets: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    deployment_target: str | None = None
    contract: Path | None = None
    calibration: Path | None = None
    validation: Path | None = None
    prune: bool = False
    cluster: bool = False
    budget: str | None = None
    measurements: tuple[Path, ...] = ()
    finetune: str | None = None
    allow_breach: bool = False
    trust: bool = False
    seed: int = 0
    parallel: int = 2
    limits: Limits = field(default_factory=Limits)
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was written: the manifest, host figures, and the facts that only the report shows.

    `place` is the package's folder, the one asked for unless that would have cost an older package.
    """

    manifest: Manifest
    place: Path
    measurements: Mapping[str, Any]
    report: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Told of steps as they happen, from any thread."""

    def step(self, name: str, state: str) -> None:
        """`name` is a shared stage or a variant's build, `state` what it does now; ``done`` ends it."""


class Silent:
    """No progress."""

    def step(self, name: str, state: str) -> None:
        """Nothing."""
