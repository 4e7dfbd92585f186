"""The stages that all variants share: describe, export, canonicalise, reference run, calibration."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contract import Contract, load_contract
from edgekit.digest import sha256_file
from edgekit.errors import EdgekitError, SourceError
from edgekit.package import Tensor
from edgekit_converters.data import Dataset, calibration_warnings, check_labels, read_dataset, synthetic
from edgekit_converters.engine.cache import Cache
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Progress, Request
from edgekit_converters.engine.source_checks import check_outputs, check_shapes, check_size
from edgekit_converters.engine.yardstick import Yardstick
from edgekit_converters.errors import ToolFailed
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.resolve import LabelFacts, Resolved, resolve, with_labels
from edgekit_converters.source import recognise
from edgekit_converters.tools import tool_versions
from edgekit_converters.values import Signature, Source
from edgekit_converters.verify.compare import output_error
from edgekit_converters.verify.scores import class_count

SYNTHETIC = 64
_SYNTHETIC_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Hub:
    """The canonical graph, or why there is none. `facts` are counted on it."""

    path: Path | None
    problem: EdgekitError | None = None
    facts: Mapping[str, Any] | None = None

    @property
    def digest(self) -> str:
        """sha256 of the graph."""
        return sha256_file(self.path) if self.path else ""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a variant's build and check stand on.

    `samples` are the evaluation inputs (their `origin` is ``validation``, ``calibration`` or
    ``synthetic``), `reference` the source's outputs on them; `data` the npz they lie in.
    """

    source: Source
    resolved: Resolved
    calibration: Dataset | None
    samples: Dataset
    origin: str
    reference: Mapping[str, Any]
    data: Path
    hub: Hub
    warnings: tuple[str, ...]

    @property
    def yardstick(self) -> Yardstick:
        """What variants are judged by."""
        return Yardstick(
            resolved=self.resolved,
            samples=self.samples,
            origin=self.origin,
            reference=self.reference,
            warnings=self.warnings,
        )

    def at(self, places: Sequence[int]) -> Prepared:
        """The same with these evaluation samples alone; `data` keeps all of them."""
        rows = list(places)
        reference = {name: value[rows] for name, value in self.reference.items()}
        return replace(self, samples=self.samples.at(places), reference=reference)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every stage needs."""

    request: Request
    pool: Pool
    cache: Cache
    work: Path
    progress: Progress


def prepare(context: Context, contract: Contract) -> Prepared:
    """Run the shared stages for the user's `contract`.

    Raises:
        SourceError, ContractError, DataError: something the user gave is wrong.
        ToolFailed: the source's own framework failed.
    """
    request = context.request
    source = recognise(request.source, trust=request.trust)
    context.progress.step("source", f"reading {request.source.name}")
    signature = _describe(context, source)
    beside = request.source.parent / "model.toml"
    where = str(request.contract or (beside if beside.is_file() else request.source))
    resolved = resolve(contract, signature, source, where=where)
    for port in (*resolved.inputs, *resolved.outputs):
        check_size(port, source)
    calibration, validation, resolved = _data(request, resolved)
    samples = validation or calibration
    if samples is None:
        samples = synthetic(resolved.inputs, resolved.ranges, _affordable(resolved), request.seed)
    origin = "validation" if validation else "calibration" if calibration else "synthetic"
    data = context.work / "samples.npz"
    save_arrays(data, samples.inputs)
    if calibration is not None:
        save_arrays(calibration_file(context), calibration.inputs)
    context.progress.step("source", "running on the evaluation data")
    reference = _reference(context, source, resolved, samples, data)
    check_outputs(reference, samples.n, source)
    check_shapes(reference, resolved, source)
    odd = Yardstick(resolved=resolved, samples=samples, origin=origin, reference=reference).check_labels()
    context.progress.step("source", "making the hub graph")
    hub = _hub(context, source, resolved, samples, data, reference)
    context.progress.step("source", "done")
    warnings = calibration_warnings(calibration, validation) if calibration else ()
    warnings = (*warnings, *odd)
    if validation is not None and validation.labels is not None and resolved.judged is None:
        warnings = (*warnings, "labels_not_used")
    return Prepared(
        source=source,
        resolved=resolved,
        calibration=calibration,
        samples=samples,
        origin=origin,
        reference=reference,
        data=data,
        hub=hub,
        warnings=warnings,
    )


def calibration_file(context: Context) -> Path:
    """Where the calibration samples lie for targets that calibrate by themselves."""
    return context.work / "calibration.npz"


def read_contract(request: Request) -> Contract:
    """The contract named, else the one beside the source, else an empty one.

    Raises:
        ContractError: it is invalid.
    """
    if request.contract is not None:
        return load_contract(request.contract)
    beside = request.source.parent / "model.toml"
    return load_contract(beside) if beside.is_file() else Contract()


def _describe(context: Context, source: Source) -> Signature:
    def run(_: Path) -> Any:
        return context.pool.run(source.worker, "describe", {"source": asdict(source)})

    key = {"source": source.digest, "kind": source.kind, "tools": dict(tool_versions())}
    try:
        signature = Signature.from_dict(context.cache.stage("describe", key, run).value)
    except ToolFailed as error:
        if error.code != "tool_failed":
            raise
        raise SourceError(
            f"its framework failed on it: {error.message}",
            where=source.path,
            remedy="the file is damaged; save the model again",
            code="corrupt_source",
        ) from error
    if not signature.inputs or not signature.outputs:
        raise SourceError("the model has no input or no output", where=source.path, code="corrupt_source")
    return signature


def _data(request: Request, resolved: Resolved) -> tuple[Dataset | None, Dataset | None, Resolved]:
    """Calibration and validation from the command line, else from the contract."""
    named = resolved.contract.data
    calibration_path = request.calibration or (Path(named.calibration) if named.calibration else None)
    validation_path = request.validation or (Path(named.validation) if named.validation else None)
    inputs, ranges = resolved.inputs, resolved.ranges
    calibration = read_dataset(calibration_path, inputs, ranges) if calibration_path else None
    validation = read_dataset(validation_path, inputs, ranges) if validation_path else None
    if validation is not None and validation.labels is not None:
        labels = validation.labels
        whole = labels.ndim == 1 and labels.dtype.kind in "iu"
        facts = LabelFacts(
            highest=int(labels.max()) if whole else None, per_sample=labels.size // max(1, len(labels))
        )
        resolved = with_labels(resolved, facts)
        chosen = resolved.classifier
        if chosen is not None:
            classes = next(o.shape[-1] for o in resolved.contract.outputs if o.name == chosen)
            check_labels(validation, class_count(classes))
    return calibration, validation, resolved


def _reference(
    context: Context, source: Source, resolved: Resolved, samples: Dataset, data: Path
) -> dict[str, Any]:
    def run(folder: Path) -> Any:
        args = {
            "source": asdict(source),
            "names": dict(resolved.names),
            "data": str(data),
            "out": str(folder / "outputs.npz"),
        }
        return context.pool.run(source.worker, "reference", args)

    key = {
        "source": source.digest,
        "names": dict(resolved.names),
        "data": samples.digest,
        "inputs": [asdict(item) for item in resolved.inputs],
        "tools": dict(tool_versions()),
    }
    stage = context.cache.stage("reference", key, run)
    return load_arrays(stage.folder / "outputs.npz")


def _affordable(resolved: Resolved) -> int:
    """How many random samples to make: fewer of large inputs."""
    size = sum(math.prod(port.shape[1:]) * np.dtype(port.dtype).itemsize for port in resolved.inputs)
    return max(2, min(SYNTHETIC, _SYNTHETIC_BYTES // max(1, size)))


def _hub(
    context: Context,
    source: Source,
    resolved: Resolved,
    samples: Dataset,
    data: Path,
    reference: Mapping[str, Any],
) -> Hub:
    """Export, canonicalise, and prove that the hub computes what the source does."""

    def run(folder: Path) -> Any:
        raw = folder / "raw.onnx"
        tools = context.pool.run(source.worker, "export", {"source": asdict(source), "out": str(raw)})
        args = {
            "raw": str(raw),
            "out": str(folder / "hub.onnx"),
            "renames": {item.name: resolved.names[item.name] for item in _ports(resolved.signature)},
            "shapes": {item.name: list(item.shape) for item in resolved.inputs},
        }
        facts = context.pool.run("plain", "canonicalise", args)
        raw.unlink()
        return {"tools": tools, "facts": facts}

    def check(folder: Path) -> Any:
        args = {"hub": str(path), "data": str(data), "out": str(folder / "outputs.npz")}
        return context.pool.run("plain", "run_hub", args)

    key: dict[str, Any] = {
        "source": source.digest,
        "names": dict(resolved.names),
        "inputs": [asdict(item) for item in resolved.inputs],
        "tools": dict(tool_versions()),
    }
    try:
        stage = context.cache.stage("hub", key, run)
        path = stage.folder / "hub.onnx"
        checked = context.cache.stage("hub-run", {"hub": sha256_file(path), "data": samples.digest}, check)
        outputs = load_arrays(checked.folder / "outputs.npz")
    except EdgekitError as error:
        if error.code == "disk_full":
            raise
        if error.where is None or str(error.where).endswith("raw.onnx"):
            error.where = source.path  # not the place where its ONNX form lay for a moment
        error.remedy = error.remedy or "export the model without it; docs/coverage.md lists what is taken"
        return Hub(path=None, problem=error)
    for name, expected in reference.items():
        if outputs[name].shape != expected.shape:
            problem = EdgekitError(
                f"the ONNX form gives {name!r} in shape {outputs[name].shape}, the source {expected.shape}",
                remedy="export the model with a free batch, or a batch of one, and outputs of fixed sizes",
                code="hub_differs",
            )
            return Hub(path=None, problem=problem)
        found = output_error(expected, outputs[name], activation=None)
        if found.max_relative > resolved.signature.tolerance:
            problem = EdgekitError(
                f"the ONNX form differs from the source by {found.max_relative:.2g} of {name}'s range",
                remedy="report the model; the tflite target does not depend on this form",
                code="hub_differs",
            )
            return Hub(path=None, problem=problem)
    mixed = checked.value["mixes_batch"]
    if mixed:
        raise SourceError(
            f"output {mixed!r} of one sample depends on the other samples of its batch",
            where=source.path,
            remedy="export the model for inference (no statistics over the batch), or fix its batch size",
            code="mixes_batch",
        )
    local = context.work / "hub.onnx"
    shutil.copyfile(path, local)
    return Hub(path=local, facts=stage.value["facts"])


def _ports(signature: Signature) -> tuple[Tensor, ...]:
    return (*signature.inputs, *signature.outputs)


def with_ranges(context: Context, prepared: Prepared) -> Path | None:
    """The stored calibration of the hub, computed once; None without calibration data or hub."""
    calibration, hub = prepared.calibration, prepared.hub
    if calibration is None or hub.path is None:
        return None

    def run(folder: Path) -> Any:
        args = {
            "hub": str(hub.path),
            "samples": str(calibration_file(context)),
            "out": str(folder / "calibration.npz"),
        }
        return context.pool.run("plain", "calibrate", args)

    key = {"hub": hub.digest, "data": calibration.digest}
    return context.cache.stage("calibrate", key, run).folder / "calibration.npz"


def with_range_doubts(prepared: Prepared, ranges: Path | None) -> Prepared:
    """The same, with a warning where the evaluation data lie outside of what was calibrated."""
    if ranges is None or prepared.origin != "validation":
        return prepared
    from edgekit_converters.quantize.sanity import range_doubts
    from edgekit_converters.quantize.statistics import load

    found = range_doubts(load(ranges), prepared.samples.inputs)
    known = ("scale_differs_from_validation", "wrong_scale")  # two words for the same thing
    new = [code for code in found if not (code in known and set(known) & set(prepared.warnings))]
    return replace(prepared, warnings=tuple(dict.fromkeys((*prepared.warnings, *new))))


__all__ = [
    "Context",
    "Hub",
    "Prepared",
    "calibration_file",
    "prepare",
    "read_contract",
    "with_range_doubts",
    "with_ranges",
]
