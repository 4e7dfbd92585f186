"""Jobs for the targets of NVIDIA's servers and boards: the canonical graph, samples and ranges on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

from edgekit.package import Tensor
from edgekit_converters import hub
from edgekit_converters.npz import save_arrays
from edgekit_converters.quantize import calibration
from edgekit_converters.sidecars import TRITON
from edgekit_converters.targets.triton import TritonTarget
from edgekit_converters.values import Built, Job, Source
from tests.conftest import missing
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import residual, samples

Build = Callable[[GraphBuilder], tuple[str, list[int]]]


def job_of(
    folder: Path,
    build: Build = residual,
    *,
    precision: str = "fp32",
    rules: str = "",
    batch: int | str = "N",
    options: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> Job:
    """A job for what `build` appends to an image of 3x8x8."""
    graph = GraphBuilder((3, 8, 8), seed=3, batch=batch)
    output, size = build(graph)
    raw = folder / "raw.onnx"
    raw.write_bytes(graph.model(output, size).SerializeToString())
    return job_from(
        raw,
        folder,
        {"x": [-1, 3, 8, 8]},
        precision,
        rules,
        options or {},
        data if data is not None else samples(),
    )


def job_from(
    raw: Path,
    folder: Path,
    shapes: Mapping[str, list[int]],
    precision: str,
    rules: str,
    options: Mapping[str, Any],
    data: Mapping[str, Any],
) -> Job:
    """A job for an ONNX file, in its own names."""
    path = folder / "hub.onnx"
    graph = onnx.load(raw).graph
    weights = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    names = {item.name: item.name for item in (*inputs, *graph.output)}
    hub.canonicalise(raw, path, names, shapes)
    save_arrays(folder / "samples.npz", data)
    if precision == "int8":
        calibration.calibrate(path, folder / "samples.npz", folder / "ranges.npz")
    source = Source(path=str(raw), kind="onnx", digest="0" * 64, bytes=raw.stat().st_size)
    return Job(
        target="triton",
        precision=precision,
        source=source,
        hub=str(path),
        inputs=tuple(_port(item) for item in inputs),
        outputs=tuple(_port(item) for item in graph.output),
        options=options,
        calibration=str(folder / "samples.npz"),
        ranges=str(folder / "ranges.npz") if precision == "int8" else None,
        contract={"name": "little net", "version": "1.2.0", "outputs": [{"labels": ["a", "b"]}]},
        rules=rules,
    )


def _port(item: Any) -> Tensor:
    kind = item.type.tensor_type
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return Tensor(name=item.name, dtype=dtype, shape=(-1, *sizes[1:]))


def require_triton() -> Path:
    """The sidecar's interpreter; skips where there is none, fails in CI."""
    found = TRITON.python()
    if found is None:
        missing("the sidecar is not installed: edgekit tools install triton")
    return found


def built_in(folder: Path) -> tuple[Job, Built, Path]:
    """A small model as a Triton variant: its job, what was built, and where."""
    job, place = job_of(folder), folder / "variant"
    place.mkdir()
    return job, TritonTarget().build(job, place), place
