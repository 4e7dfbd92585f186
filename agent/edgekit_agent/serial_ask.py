"""`edgekit-agent serial`: what the device on a line is, what it computes, whether it computes what it should.

With a package the device must run one of its variants, known by its digest, and that variant's probes are
run on the device: the proof on the board itself that the converter could not give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import RefusedError
from edgekit.package import Manifest, load_package
from edgekit_agent.errors import RequestError
from edgekit_agent.installed import Installed
from edgekit_agent.npz import read_npz
from edgekit_agent.probing import ProbeOutcome, run_package_probes
from edgekit_agent.serving.serial_client import SerialModel


@dataclass(frozen=True, kw_only=True)
class OnLine:
    """A variant on the other end of a line, as probes want it."""

    installed: Installed
    device: SerialModel

    def run_model(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """One item: contract names and dtypes, a batch axis of one."""
        variant = self.installed.variant
        names = {item.artifact_name or item.name: item.name for item in variant.inputs}
        found = self.device.run({port: inputs[name][0] for port, name in names.items()})
        return {
            item.name: np.asarray(found[item.artifact_name or item.name])
            .astype(item.dtype)
            .reshape(1, *item.shape[1:])
            for item in variant.outputs
        }


def facts(device: SerialModel) -> dict[str, Any]:
    """What the device says about itself, JSON-ready."""
    return asdict(device.description)


def prove(device: SerialModel, package: Path) -> ProbeOutcome:
    """Run the probes of the variant that the device says it runs.

    Raises:
        RefusedError: the device runs none of the package's variants, or it has no probes.
        DocumentError: the probes do not fit.
    """
    manifest = load_package(package)
    installed = _installed(manifest, device, package)
    probe = installed.variant.probe
    if probe is None:
        raise RefusedError("the package has no probes for it", where=installed.variant.id, code="no_probes")
    return run_package_probes(OnLine(installed=installed, device=device), package / probe.file.path)


def _installed(manifest: Manifest, device: SerialModel, package: Path) -> Installed:
    about = device.description
    for variant in manifest.variants:
        if about.digest and variant.digest.rpartition(":")[2] == about.digest:
            return Installed(
                slot="", manifest=manifest, variant=variant, folder=package, package=manifest.digest
            )
    raise RefusedError(
        f"the device runs {about.model} {about.variant}, digest {about.digest[:16] or 'unknown'}: "
        f"none of the variants of {manifest.ref}",
        remedy="flash what `edgekit export --platform c99` wrote from this package",
        code="wrong_model",
    )


def compute(device: SerialModel, samples: Path) -> dict[str, Any]:
    """The outputs, stacked, for an npz with one array for each input, first axis = items."""
    arrays = read_npz(samples)
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise RequestError("the same number of items in every array was expected", where=str(samples))
    rows = [device.run({name: array[i] for name, array in arrays.items()}) for i in range(counts.pop())]
    return {name: np.stack([row[name].reshape(row[name].shape[1:]) for row in rows]) for name in rows[0]}


__all__ = ["OnLine", "compute", "facts", "prove"]
