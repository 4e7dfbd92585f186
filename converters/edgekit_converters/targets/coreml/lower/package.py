"""A MIL program into an ``.mlpackage``: coremltools' passes, its writer, bytes that depend on content only.

The passes are coremltools' own, less those that change what is computed: `fuse_pow2_sqrt` takes the root of
a square for the number itself, `select_optimization` adds an infinity where one was chosen,
`add_conv_transpose_output_shape` asks for a shape whose elements each compute unit picks in its own way,
`add_int16_cast` cuts computed whole numbers to 16 bits whether they fit or not; four more break
quantize/dequantize pairs apart and are left out of quantized programs. The package is written where it shall
be: weights are not copied on the way.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.backend.mil.load import load as to_proto
from coremltools.converters.mil.mil.passes.graph_pass import PassOption
from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipeline
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from coremltools.models.model import _create_mlpackage

from edgekit.digest import canonical_json, sha256_file, sha256_hex
from edgekit_converters.errors import Refusal

_SPACE = uuid.UUID("6b5b2f6e-3f0e-5d38-9a37-0d0c6f6c5a11")
"""Name space of the ids that replace coremltools' random ones."""
_UNSOUND = {
    "common::add_conv_transpose_output_shape",
    "common::add_int16_cast",
    "common::select_optimization",
    "mil_backend::fuse_pow2_sqrt",
}
_HALF = {"common::add_fp16_cast"}
_PAIR_BREAKERS = {
    "common::nullify_redundant_quantization_zero_point",
    "common::dequantize_quantize_pair_elimination",
    "common::distributive_quantized_binary_op_scale_normalization",
    "common::merge_affine_dequantize_with_consecutive_ops",
}
_COMPARES = frozenset({"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"})
_MOVES = frozenset(
    {
        "concat",
        "expand_dims",
        "gather",
        "gather_along_axis",
        "reshape",
        "slice_by_index",
        "squeeze",
        "transpose",
    }
)
_BACKEND = "backend_mlprogram"
LABEL = "classLabel"
"""What a classifier's label output is called, as coremltools' own converters call it."""


def optimise(program: Any, *, half: bool, quantized: bool) -> None:
    """Run the passes on `program`, in place: `half` computes in float16, `quantized` keeps its pairs.

    One after another without the pipeline's own checks in between: those take as long as the passes.
    """
    unwanted = _UNSOUND | (set() if half else _HALF) | (_PAIR_BREAKERS if quantized else set())
    options = {"common::add_fp16_cast": [PassOption("op_selector", _fits_half)]}
    for pipeline in ("default", _BACKEND):
        for name in PassPipeline._PIPELINE_NAME_TO_PASSES[pipeline]:
            if name not in unwanted:
                runner = PASS_REGISTRY[name]
                runner.set_options(options.get(name))
                runner(program)
    program.validate()


def _fits_half(op: Any) -> bool:
    """Whether an op may be computed in float16: its constants stay in range, and small ones are not lost."""
    if op.op_type == "identity" or _is_threshold(op):
        return False
    inputs = [
        v for value in op.inputs.values() for v in (value if isinstance(value, (list, tuple)) else (value,))
    ]
    constants = [item.val for item in inputs if item is not None and item.val is not None]
    return not any(_is_lost(np.asarray(value)) for value in constants)


def _is_threshold(op: Any) -> bool:
    """Whether it compares an input of the model as it came, or moves it to where that is done: a tree's
    question. An input that is rounded first goes the other way at a threshold, which is no small error."""
    if op.op_type in _COMPARES:
        return any(_is_raw(item) for item in (op.inputs["x"], op.inputs["y"]))
    if op.op_type not in _MOVES or not all(_is_raw(item) for item in op.outputs):
        return False
    return any(_is_threshold(reader) for item in op.outputs for reader in item.child_ops)


def _is_raw(var: Any) -> bool:
    """Whether it is an input of the model, or elements of one."""
    if var is None or var.val is not None:
        return False
    if var.op is None:
        return True
    if var.op.op_type not in _MOVES:
        return False
    values = var.op.inputs.get("values")
    return all(_is_raw(item) for item in values) if values else _is_raw(var.op.inputs.get("x"))


def _is_lost(value: Any) -> bool:
    if value.dtype != np.float32 or not value.size:
        return False
    low, high = float(value.min()), float(value.max())
    if value.size == 1 and low and np.float16(low) == 0:
        return True
    limit = float(np.finfo(np.float16).max)
    return any(np.isfinite(bound) and abs(bound) > limit for bound in (low, high))


def write(program: Any, path: Path, *, target: Any, classifier: Any = None, description: str = "") -> None:
    """Write the optimised `program` to `path`, deterministically.

    Raises:
        Refusal: the program is one that Core ML cannot take.
    """
    weights = path.with_name(f".{path.name}.weights")
    weights.mkdir(parents=True)
    try:
        program._check_early_error_out_for_invalid_program()
        spec = to_proto(
            program,
            weights_dir=str(weights),
            specification_version=target.value,
            classifier_config=classifier,
            convert_to="mlprogram",
            convert_from="milinternal",
        )
        spec.description.metadata.shortDescription = description
        _create_mlpackage(spec, str(weights), str(path))
    except (ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        shutil.rmtree(path, ignore_errors=True)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise Refusal(f"coremltools does not write the program: {text}", code="mil_refused") from error
    finally:
        shutil.rmtree(weights, ignore_errors=True)
    _settle(path)


def _settle(path: Path) -> None:
    """Make the bytes depend on the content only: ordered maps, ids from digests."""
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


def read_back(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The specification of the saved package, whose ports are what they should be.

    Raises:
        Refusal: ``ports_differ``.
    """
    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    found = [item.name for item in spec.description.input], [item.name for item in spec.description.output]
    if found != ([*inputs], [*outputs]):
        shutil.rmtree(path)
        raise Refusal(f"the saved package has ports {found}, not {inputs}, {outputs}", code="ports_differ")
    return spec
