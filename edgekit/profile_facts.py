"""What a hardware profile says, as values: see `edgekit.profile`, which reads and finds profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.errors import ProfileError
from edgekit.versions import version_key


@dataclass(frozen=True, kw_only=True)
class Match:
    """How a device is recognised; all that is given must hold. Without machines: never by itself.

    `machines` are ``platform.machine()`` names, `models` parts of the board's model string
    (``/proc/device-tree/model``), `runtimes` the runtimes that must be installed.
    """

    machines: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The application processor. `features` are the kernel's names, such as ``asimddp`` (dotprod)."""

    name: str
    cores: int
    isa: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A GPU, NPU or DSP, with what it computes and through which runtime it is reached."""

    name: str
    kind: str
    precisions: tuple[str, ...] = ()
    via: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class RuntimeRange:
    """Versions of a runtime, `minimum` inclusive, `below` exclusive."""

    minimum: str
    below: str | None = None

    def accepts(self, version: str) -> bool:
        """Whether `version` lies in the range."""
        number = version_key(version)
        return version_key(self.minimum) <= number and (
            self.below is None or number < version_key(self.below)
        )


@dataclass(frozen=True, kw_only=True)
class ProfileTarget:
    """A target of a profile: precisions in order of preference; `default` are built when none is asked."""

    name: str
    runtime: str
    rules: str
    precisions: tuple[str, ...]
    default: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Where facts come from: `facts` are keys of the file, `basis` is ``measured`` or ``claimed``."""

    facts: tuple[str, ...]
    basis: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What a model may take on this board unless the contract says otherwise.

    `arena_kb` and `flash_kb` are for microcontrollers: working memory and program memory, in KiB.
    """

    latency_ms: float | None = None
    memory_mb: int | None = None
    size_mb: float | None = None
    arena_kb: int | None = None
    flash_kb: int | None = None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One board. `memory_mb` lists the sizes it is sold with, smallest first; `digest` is the file's.

    `aliases` are other names it may be asked for by; packages and fleets know the board by `name`. `limits`
    are sentences on what to know before choosing it.
    """

    name: str
    title: str
    match: Match
    cpu: Cpu
    memory_mb: tuple[int, ...]
    accelerators: tuple[Accelerator, ...]
    os: str
    python: str | None
    runtimes: Mapping[str, RuntimeRange]
    targets: tuple[ProfileTarget, ...]
    budgets: Budgets
    evidence: tuple[Evidence, ...]
    digest: str
    aliases: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    def target(self, name: str) -> ProfileTarget:
        """The target called `name`.

        Raises:
            ProfileError: this board has none of that name.
        """
        for item in self.targets:
            if item.name == name:
                return item
        known = ", ".join(item.name for item in self.targets)
        raise ProfileError(
            f"profile {self.name} has no target {name!r}", remedy=f"it has {known}", code="unknown_target"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, everything flattened."""
        return asdict(self)
