"""Small real models for the tests of serving: linear classifiers as ONNX and as TFLite, in packages.

The classifier multiplies ``x`` (4 features) by a fixed matrix, so that the largest feature names the
class (3 classes) and its answers are known; `gain` makes another version that answers otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit.digest import sha256_file
from edgekit.package import (
    Distribution,
    File,
    Manifest,
    Probe,
    Quantization,
    Reference,
    Requirements,
    Tensor,
    Variant,
    Verification,
    variant_digest,
)
from edgekit_agent.installed import Installed

WEIGHTS = np.eye(4, 3, dtype=np.float32) * 4
LABELS = ("ant", "bee", "cat")


def write_onnx(path: Path, *, gain: float = 1.0, batch: int | str = "n", nan: bool = False) -> None:
    """``y = x · (gain · WEIGHTS)`` with a free batch, or with a fixed one."""
    weights = WEIGHTS * np.float32(gain)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0" if nan else "y"])]
    if nan:
        nodes.append(helper.make_node("Sqrt", ["y0"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_tflite(path: Path, *, gain: float = 1.0, quantized: bool = False) -> None:
    """The same as one FULLY_CONNECTED, float or int8 (x: scale 1/16, y: scale 1/4)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def quantization(scale: float) -> Any:
        made = schema.QuantizationParametersT()
        made.scale, made.zeroPoint = [scale], [0]
        return made

    def tensor(name: str, shape: list[int], buffer: int, scale: float) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, shape, buffer
        made.type = schema.TensorType.INT8 if quantized else schema.TensorType.FLOAT32
        if quantized:
            made.quantization = quantization(scale)
        return made

    weights = (WEIGHTS.T * np.float32(gain)).astype(np.float32)
    stored = np.rint(weights * 16).astype(np.int8) if quantized else weights
    buffers = [schema.BufferT() for _ in range(2)]
    buffers[1].data = np.frombuffer(stored.tobytes(), np.uint8)
    operator = schema.OperatorT()
    operator.inputs, operator.outputs, operator.opcodeIndex = [0, 1, -1], [2], 0
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if quantized else 1
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("serving_x", [1, 4], 0, 1 / 16),
        tensor("w", [3, 4], 1, 1 / 16),
        tensor("serving_y", [1, 3], 0, 1 / 4),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(builder.Output()))


def contract(**changes: Any) -> dict[str, Any]:
    """The classifier's contract: logits of three named classes."""
    return {
        "inputs": [{"name": "x", "shape": [-1, 4], **changes.pop("input", {})}],
        "outputs": [
            {
                "name": "y",
                "shape": [-1, 3],
                "task": "classification",
                "labels": list(LABELS),
                "activation": "logits",
                **changes.pop("output", {}),
            }
        ],
        **changes,
    }


REFERENCE = Reference(
    inputs={"x": Distribution(kind="bins", counts=(1, 1, 1), edges=(0.0, 0.5))},
    outputs={"y": Distribution(kind="classes", counts=(5, 5, 5))},
    confidence={"y": Distribution(kind="bins", counts=(1, 1), edges=(0.9,))},
)


def installed(
    folder: Path,
    *,
    kind: str = "onnx",
    version: str = "1",
    slot: str = "animals",
    gain: float = 1.0,
    contract_changes: Mapping[str, Any] | None = None,
    reference: Reference = REFERENCE,
    **options: Any,
) -> Installed:
    """A package of one variant written below `folder`, as if it had been installed.

    `kind` is ``onnx``, ``tflite`` or ``tflite-int8``.
    """
    runtime, suffix = ("onnxruntime", "onnx") if kind == "onnx" else ("litert", "tflite")
    variant_id = f"host-{kind}"
    path = folder / "variants" / variant_id / f"model.{suffix}"
    if kind == "onnx":
        write_onnx(path, gain=gain, **options)
    else:
        write_tflite(path, gain=gain, quantized=kind == "tflite-int8")
    file = File(path=str(path.relative_to(folder)), sha256=sha256_file(path), bytes=path.stat().st_size)
    variant = Variant(
        id=variant_id,
        digest=variant_digest(variant_id, (file,)),
        profile="host",
        target=suffix,
        precision="int8" if kind.endswith("int8") else "fp32",
        files=(file,),
        requires=Requirements(runtime=runtime),
        inputs=(tensor("x", (-1, 4), kind, 1 / 16),),
        outputs=(tensor("y", (-1, 3), kind, 1 / 4),),
        verification=Verification(method="executed", verdict="pass"),
    )
    manifest = Manifest(
        name="animals",
        version=version,
        source={},
        contract=contract(**dict(contract_changes or {})),
        variants=(variant,),
        reference=reference,
    )
    return Installed(
        slot=slot, manifest=manifest, variant=variant, folder=folder, package=f"sha256:{version:0>64}"
    )


def tensor(name: str, shape: tuple[int, ...], kind: str, scale: float) -> Tensor:
    """A tensor of the contract, with what the artifact calls it and how it is quantized."""
    return Tensor(
        name=name,
        dtype="float32",
        shape=shape,
        artifact_name=None if kind == "onnx" else f"serving_{name}",
        quantization=Quantization(scale=scale, zero_point=0) if kind == "tflite-int8" else None,
    )


def with_probe(
    thing: Installed, npz: Path, *, n: int, atol: float = 1e-4, agreement: float | None = 0.99
) -> Installed:
    """The same with package probes that lie in `npz`."""
    file = File(path=f"probes/{thing.variant.id}.npz", sha256=sha256_file(npz), bytes=npz.stat().st_size)
    probe = Probe(file=file, n=n, atol=atol, argmax_agreement=agreement)
    variant = replace(thing.variant, probe=probe)
    return replace(thing, variant=variant, manifest=replace(thing.manifest, variants=(variant,)))


def samples(n: int, seed: int = 0) -> NDArray[np.float32]:
    """`n` samples for the classifier, each with a clear winner; its classes are `classes_of`."""
    random = np.random.default_rng(seed)
    made = random.uniform(0, 0.25, (n, 4)).astype(np.float32)
    made[np.arange(n), np.arange(n) % 3] = 1.0
    return made


def classes_of(inputs: NDArray[np.float32]) -> list[int]:
    """What the untampered classifier answers."""
    return [int(number) for number in (inputs @ WEIGHTS).argmax(axis=1)]
