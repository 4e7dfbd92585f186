"""A variant that is installed on this device: the value passed between the lifecycle and serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.package import Manifest, Variant


@dataclass(frozen=True, kw_only=True)
class Installed:
    """One verified variant in one slot.

    `folder` is the package folder (the variant's files lie below ``variants/<id>/`` in it), `package`
    the package's digest (``sha256:…``), `deployment` the rollout's try that brought it, empty when
    it was installed by hand. Every byte was checked before such a value is made.
    """

    slot: str
    manifest: Manifest
    variant: Variant
    folder: Path
    package: str
    deployment: str = ""

    @property
    def ref(self) -> str:
        """``name@version`` of the model."""
        return self.manifest.ref


__all__ = ["Installed"]
