"""Building and saving a Core ML package. Imported in coremltools workers only."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil import Function, Program, types

from edgekit.digest import canonical_json, sha256_file, sha256_hex
from edgekit.package import Requirements, Tensor
from edgekit_converters.errors import Refusal
from edgekit_converters.hub import with_batch_one
from edgekit_converters.targets.coreml.onnx_to_mil import lower
from edgekit_converters.values import Built, Job

_DTYPES = {"float32": types.fp32, "int32": types.int32}
_SPACE = uuid.UUID("6b5b2f6e-3f0e-5d38-9a37-0d0c6f6c5a11")
"""Name space of the ids that replace coremltools' random ones."""


def build(job: Job, path: Path) -> Built:
    """Lower `job`'s hub to `path`. See `CoremlTarget.build`."""
    deployment = str(job.options.get("deployment_target", "iOS15"))
    target = getattr(ct.target, deployment, None)
    if target is None:
        raise Refusal(
            f"coremltools has no deployment target {deployment!r}", code="unknown_deployment_target"
        )
    inputs = [_named(item) for item in job.inputs]
    outputs = [_named(item) for item in job.outputs]
    program = _program(job, inputs, outputs, target)
    wide = job.precision == "fp32"
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32 if wide else ct.precision.FLOAT16,
        skip_model_load=True,
    )
    model.short_description = f"{job.inputs[0].name} to {job.outputs[0].name}, written by edgekit"
    model.save(str(path))
    _settle(path)
    _read_back(path, inputs, outputs)
    return Built(
        main=path.name,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        requires=Requirements(runtime="coreml", min_runtime=deployment.removeprefix("iOS") + ".0"),
        route=f"{job.source.kind} > hub > MIL ({deployment})",
        facts=_facts(path),
        tools={"coremltools": ct.__version__},
    )


def _named(port: Tensor) -> Tensor:
    """The port with the name that Core ML allows, where it differs."""
    allowed = re.sub(r"[^A-Za-z0-9_]", "_", port.name)
    allowed = f"_{allowed}" if allowed[0].isdigit() else allowed
    return port if allowed == port.name else replace(port, artifact_name=allowed)


def _program(job: Job, inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Any) -> Any:
    specs: dict[str, Any] = {}
    for item in inputs:
        if item.dtype not in _DTYPES:
            raise Refusal(
                f"input {item.name!r} is {item.dtype}; Core ML takes float32 and int32",
                remedy="export the model with float32 or int32 inputs",
                code="unsupported_type",
            )
        if any(size < 0 for size in item.shape[1:]):
            raise Refusal(
                f"input {item.name!r} has a free axis: {item.shape}",
                remedy="fix the shape in the contract's inputs.shape",
                code="dynamic_shape",
            )
        name = item.artifact_name or item.name
        specs[name] = mb.placeholder((1, *item.shape[1:]), dtype=_DTYPES[item.dtype])
    graph = with_batch_one(Path(job.hub)).graph
    wanted = [item.artifact_name or item.name for item in outputs]
    program = Program()
    with Function(specs, opset_version=target) as function:
        function.set_outputs(lower(graph, [function.inputs[name] for name in specs], wanted))
        program.add_function("main", function)
    return program


def _settle(path: Path) -> None:
    """Make the bytes depend on the content only: no date, ordered maps, ids from digests."""
    model = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(model.read_bytes())
    spec.description.metadata.userDefined.clear()
    model.write_bytes(spec.SerializeToString(deterministic=True))
    entries = {}
    for name, what in (("model.mlmodel", "Specification"), ("weights", "Weights")):
        place = path / "Data" / "com.apple.CoreML" / name
        if not place.exists():
            continue
        files = [place] if place.is_file() else sorted(item for item in place.rglob("*") if item.is_file())
        digest = sha256_hex("".join(sha256_file(item) for item in files).encode())
        entries[str(uuid.uuid5(_SPACE, f"{name}:{digest}"))] = {
            "author": "com.apple.CoreML",
            "description": f"CoreML Model {what}",
            "name": name,
            "path": f"com.apple.CoreML/{name}",
        }
    root = next(key for key, entry in entries.items() if entry["name"] == "model.mlmodel")
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": root}
    (path / "Manifest.json").write_bytes(canonical_json(manifest))
    for item in path.rglob("*"):
        item.chmod(0o755 if item.is_dir() else 0o644)


def _read_back(path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """The saved package parses, and its ports are what the manifest will say."""
    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    found = [item.name for item in spec.description.input], [item.name for item in spec.description.output]
    wanted = [i.artifact_name or i.name for i in inputs], [o.artifact_name or o.name for o in outputs]
    if found != wanted:
        shutil.rmtree(path)
        raise Refusal(f"the saved package has ports {found}, not {wanted}", code="ports_differ")


def _facts(path: Path) -> dict[str, Any]:
    from collections import Counter

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    kinds = Counter(op.type for op in block.operations if op.type != "const")
    return {"ops": dict(sorted(kinds.items())), "op_count": sum(kinds.values()), "int8_op_ratio": 0.0}
