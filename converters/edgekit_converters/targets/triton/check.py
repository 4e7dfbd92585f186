"""Whether a configuration is one that Triton takes and that fits its model, before any server sees it.

Syntax, field and enum names are asked of Triton's own protobuf, which lies in the sidecar's environment
(`tritonclient` is too heavy for ours); protobuf knows nothing of the model, so dims, types, names, batching
and warm-up files are compared with the model's file here. Without the sidecar only the second half is done.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit_converters.errors import Refusal, ToolFailed
from edgekit_converters.sidecars import TRITON
from edgekit_converters.targets.triton.config import TYPES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_PARSER = Path(__file__).parent / "side" / "parse.py"
_SECONDS = 60
_ONNX = {kind: name for name, kind in TYPES.items()}


def require_sound(config: Mapping[str, Any], folder: Path, model: Path) -> None:
    """Refuse a configuration that does not fit `model`; `folder` is the model's folder in its repository.

    Raises:
        Refusal: ``config_refused``, every fault named.
    """
    _refuse(tuple(faults(config, folder, model)), folder)


def parsed(paths: Sequence[Path]) -> tuple[Mapping[str, Any], ...] | None:
    """The files as Triton's protobuf reads them; None where the sidecar is not installed.

    Raises:
        Refusal: ``config_refused``: a file that it does not read, with line and column.
        ToolFailed: the parser itself failed.
    """
    python = TRITON.python()
    if python is None:
        return None
    command = [str(item) for item in (python, "-I", _PARSER, *paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        found: list[Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        said = (getattr(error, "stderr", None) or type(error).__name__).strip().splitlines()[-1][:300]
        raise ToolFailed(
            f"Triton's protobuf could not be asked: {said}",
            remedy="make its environment anew: edgekit tools remove triton; edgekit tools install triton",
        ) from error
    for path, item in zip(paths, found, strict=True):
        if "error" in item:
            _refuse((item["error"],), path)
    return tuple(found)


def faults(config: Mapping[str, Any], folder: Path, model: Path) -> Iterator[str]:
    """What protobuf does not see: everything that contradicts the model or the files beside it."""
    if config["name"] != folder.name:
        yield f"name {config['name']!r} is not that of its folder, {folder.name!r}"
    if NAME.match(config["name"]) is None:
        yield f"name {config['name']!r} has characters that a folder or an address cannot have"
    for kind, real in zip(("input", "output"), _model_ports(model), strict=True):
        yield from _ports(kind, config[kind], real, config["max_batch_size"])
    yield from _batching(config)
    yield from _files(config, folder)


def _ports(
    kind: str, ports: Sequence[Mapping[str, Any]], real: Mapping[str, tuple[str, list[int]]], batch: int
) -> Iterator[str]:
    names = [port["name"] for port in ports]
    if sorted(names) != sorted(real):
        yield f"{kind}s {', '.join(names)} are not the model's: {', '.join(real)}"
        return
    for port in ports:
        dtype, shape = real[port["name"]]
        if port["data_type"] != TYPES.get(dtype):
            yield f"{kind} {port['name']}: {port['data_type']}, the model has {dtype}"
        if batch and shape[:1] != [-1]:
            yield f"{kind} {port['name']}: batches of {batch}, the model's first axis is fixed"
        inside = port["reshape"]["shape"] if "reshape" in port else port["dims"]
        if not port["dims"] or not _fits(list(inside), shape[1:] if batch else shape):
            yield f"{kind} {port['name']}: dims {list(port['dims'])}, the model has {shape}"


def _model_ports(model: Path) -> Iterator[dict[str, tuple[str, list[int]]]]:
    """Inputs, then outputs of an ONNX or TFLite file: type and sizes by name, -1 where one is free."""
    if model.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        reader = Interpreter(model_path=str(model))
        for details in (reader.get_input_details(), reader.get_output_details()):
            yield {
                item["name"]: (np.dtype(item["dtype"]).name, [int(n) for n in item["shape_signature"]])
                for item in details
            }
        return
    graph = onnx.load(model, load_external_data=False).graph
    weights = {item.name for item in graph.initializer}
    for values in (graph.input, graph.output):
        kinds = {item.name: item.type.tensor_type for item in values if item.name not in weights}
        yield {
            name: (
                str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
                [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim],
            )
            for name, kind in kinds.items()
        }


def _fits(dims: Sequence[int], shape: Sequence[int]) -> bool:
    """Equal where both say a size; a free axis of the model may be pinned, not the other way round."""
    pairs = zip(dims, shape, strict=False)
    return len(dims) == len(shape) and all(ours == real or real < 0 for ours, real in pairs)


def _batching(config: Mapping[str, Any]) -> Iterator[str]:
    limit = config["max_batch_size"]
    preferred = config.get("dynamic_batching", {}).get("preferred_batch_size", [])
    if preferred and max(preferred) > limit:
        yield f"preferred_batch_size {max(preferred)} is more than max_batch_size {limit}"
    for sample in config.get("model_warmup", []):
        if sample["batch_size"] > limit:
            yield f"warm-up {sample['name']!r}: batch_size {sample['batch_size']}, at most {limit}"


def _files(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    for port in config["output"]:
        if port.get("label_filename") and not (folder / port["label_filename"]).is_file():
            yield f"output {port['name']}: there is no {port['label_filename']}"
    for sample in config.get("model_warmup", []):
        for name, item in sample["inputs"].items():
            file = item.get("input_data_file")
            if file is None:
                continue
            path = folder / "warmup" / file
            wanted = int(np.prod(item["dims"])) * np.dtype(_ONNX[item["data_type"]]).itemsize
            if not path.is_file() or path.stat().st_size != wanted:
                yield f"warm-up of {name}: warmup/{file} must hold {wanted} bytes"


def _refuse(found: Sequence[str], where: Path) -> None:
    if found:
        raise Refusal(
            f"the Triton configuration is not sound: {'; '.join(found)}",
            where=str(where.name),
            remedy="report this: edgekit wrote it",
            code="config_refused",
        )
