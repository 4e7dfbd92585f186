"""Building TIDL bundles in tests: a job from a graph or a source, with its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.package import Tensor
from edgekit_converters import hub
from edgekit_converters.npz import save_arrays
from edgekit_converters.quantize import calibration
from edgekit_converters.targets.tidl import TidlTarget
from edgekit_converters.values import Built, Job, Source

RULES = {
    "am62a": "tidl-am62a-11.0",
    "am67a": "tidl-am67a-11.0",
    "am68a": "tidl-am68a-11.0",
    "am69a": "tidl-am68a-11.0",
    "tda4vm": "tidl-tda4vm-11.0",
    "am5729": "tidl-am57-6.3",
    "am5749": "tidl-am57-6.3",
}
ONNX = Source(path="model.onnx", kind="onnx", digest="0", bytes=1)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A hub on disk with its calibration."""

    hub: Path
    samples: Path
    ranges: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    source: Source = ONNX


def stored(
    proto: Any,
    samples: Mapping[str, Any],
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    folder: Path,
    source: Source = ONNX,
) -> Stored:
    """The canonical form of `proto`, calibrated on `samples`."""
    path, data, ranges = (folder / name for name in ("hub.onnx", "samples.npz", "ranges.npz"))
    path.write_bytes(hub.to_proto(hub.canonical(proto).model).SerializeToString(deterministic=True))
    save_arrays(data, samples)
    calibration.calibrate(path, data, ranges)
    return Stored(hub=path, samples=data, ranges=ranges, inputs=inputs, outputs=outputs, source=source)


def build(given: Stored, soc: str, folder: Path, **options: Any) -> Built:
    """The bundle for `soc` in `folder`, which is made."""
    folder.mkdir(parents=True)
    job = Job(
        target="tidl",
        precision="int8",
        source=given.source,
        hub=str(given.hub),
        inputs=given.inputs,
        outputs=given.outputs,
        options={"soc": soc, **options},
        calibration=str(given.samples),
        ranges=str(given.ranges),
        rules=RULES[soc],
    )
    return TidlTarget().build(job, folder)
