"""A model's Triton configuration: for production, and of the twin that can be served and compared here.

Production is the onnxruntime backend, on the CPU or on a GPU with TensorRT as accelerator; or the tensorrt
backend with one plan for each compute capability; or Arm NN's TFLite backend. The twin is the Python
backend with onnxruntime or LiteRT inside, the same in everything else: names, types, dims, batching,
warm-up, version policy. Field names and meanings: Triton's ``model_config.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.package import Tensor
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.triton.pbtxt import Map, Word

TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
BATCH = 8
DELAY_US = 500
ENGINES = "/var/cache/edgekit/tensorrt"
"""Where the server keeps TensorRT's engines and timings, unless the profile's options say otherwise."""
_WARM_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a configuration says of one model, whatever backend runs it.

    `batch` is the most samples in one batch, 0 where the model takes none (its dims then begin with 1);
    `labels` names a file with the classes of the first output; `warm` gives the file of each input's warm-up
    sample, empty where there is no sample (zeros are used).
    """

    name: str
    ref: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int = BATCH
    delay_us: int = DELAY_US
    versions: tuple[int, ...] = ()
    labels: str = ""
    warm: Mapping[str, str] = field(default_factory=dict)

    def common(self) -> dict[str, Any]:
        """The fields that every form shares."""
        found: dict[str, Any] = {
            "max_batch_size": self.batch,
            "input": [self._port(item) for item in self.inputs],
            "output": [self._port(item, first=item is self.outputs[0]) for item in self.outputs],
            "version_policy": self._policy(),
        }
        if self.batch > 1:
            preferred = sorted({max(2, self.batch // 2), self.batch})
            found["dynamic_batching"] = {
                "preferred_batch_size": preferred,
                "max_queue_delay_microseconds": self.delay_us,
            }
        return {**found, "model_warmup": self._warm_up()}

    def dims(self, tensor: Tensor) -> list[int]:
        """A tensor's dims as Triton counts them: without the batch where it forms batches."""
        shape = list(tensor.shape)
        return shape[1:] or [1] if self.batch else [1, *shape[1:]]

    def _port(self, tensor: Tensor, *, first: bool = False) -> dict[str, Any]:
        port: dict[str, Any] = {
            "name": tensor.name,
            "data_type": self._type(tensor),
            "dims": self.dims(tensor),
        }
        if self.batch and len(tensor.shape) == 1:
            # Triton takes no empty dims: a number a sample is [1] outside and nothing inside.
            port["reshape"] = {"shape": []}
        return {**port, "label_filename": self.labels} if first and self.labels else port

    def _type(self, tensor: Tensor) -> Word:
        if tensor.dtype not in TYPES:
            raise Refusal(
                f"Triton has no type for {tensor.name}'s {tensor.dtype}",
                remedy=f"it has {', '.join(TYPES)}",
                code="unsupported_type",
            )
        return Word(TYPES[tensor.dtype])

    def _policy(self) -> dict[str, Any]:
        """The newest version, or exactly those that the profile's options name."""
        if self.versions:
            return {"specific": {"versions": list(self.versions)}}
        return {"latest": {"num_versions": 1}}

    def _warm_up(self) -> list[dict[str, Any]]:
        """Alone and in a full batch before the first request: engines and buffers exist then."""
        sizes = {1: "alone", self.batch: "full batch"} if self.batch > 1 else {1: "alone"}
        return [
            {
                "name": name,
                "batch_size": size if self.batch else 0,
                "inputs": Map({item.name: self._warm_input(item) for item in self.inputs}),
                "count": _WARM_RUNS,
            }
            for size, name in sizes.items()
        ]

    def _warm_input(self, tensor: Tensor) -> dict[str, Any]:
        shape = [abs(size) for size in self.dims(tensor)]
        file = self.warm.get(tensor.name)
        source: dict[str, Any] = {"zero_data": True} if file is None else {"input_data_file": file}
        return {"data_type": self._type(tensor), "dims": shape, **source}


def production(
    serving: Serving,
    *,
    accelerator: str = "",
    precision: str = "fp32",
    threads: int = 0,
    engines: str = ENGINES,
) -> dict[str, Any]:
    """The onnxruntime backend: on the CPU, or on a GPU with `accelerator` ``tensorrt`` before CUDA."""
    kind = "KIND_GPU" if accelerator else "KIND_CPU"
    found = {
        "name": serving.name,
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        **serving.common(),
        "instance_group": [{"count": 1, "kind": Word(kind)}],
        "parameters": _parameters(
            edgekit_ref=serving.ref, **({"intra_op_thread_count": str(threads)} if threads else {})
        ),
    }
    if accelerator:
        found["optimization"] = {
            "execution_accelerators": {"gpu_execution_accelerator": [_tensorrt(serving, precision, engines)]}
        }
    return found


def plans(serving: Serving, files: Mapping[str, str]) -> dict[str, Any]:
    """The tensorrt backend: `files` by compute capability; a GPU of another one finds no plan and says so."""
    return {
        "name": serving.name,
        "backend": "tensorrt",
        **serving.common(),
        "instance_group": [{"count": 1, "kind": Word("KIND_GPU")}],
        "cc_model_filenames": Map(files),
        "parameters": _parameters(edgekit_ref=serving.ref),
    }


def armnn(serving: Serving, *, accelerator: str, threads: int) -> dict[str, Any]:
    """Arm NN's TFLite backend, Linux on arm64: ``cpu`` (Neon) or ``gpu`` (Mali); it forms no batches."""
    entry = {"name": "armnn", "parameters": Map({"fast_math_enabled": "off"})}
    if accelerator == "cpu":
        entry["parameters"] = Map({"num_threads": str(threads), "fast_math_enabled": "off"})
    return {
        "name": serving.name,
        "backend": "armnn_tflite",
        "default_model_filename": "model.tflite",
        **serving.common(),
        "instance_group": [{"count": 1, "kind": Word("KIND_CPU")}],
        "optimization": {"execution_accelerators": {f"{accelerator}_execution_accelerator": [entry]}},
        "parameters": _parameters(edgekit_ref=serving.ref, tflite_num_threads=str(threads)),
    }


def twin(serving: Serving, *, file: str, threads: int) -> dict[str, Any]:
    """The Python backend: onnxruntime or LiteRT runs `file`, relative to the model's folder."""
    return {
        "name": serving.name,
        "backend": "python",
        **serving.common(),
        "instance_group": [{"count": 1, "kind": Word("KIND_CPU")}],
        "parameters": _parameters(edgekit_ref=serving.ref, model_file=file, threads=str(threads)),
    }


def _parameters(**values: str) -> Map:
    return Map({key: {"string_value": value} for key, value in values.items()})


def _tensorrt(serving: Serving, precision: str, engines: str) -> dict[str, Any]:
    """TensorRT inside onnxruntime; engines are kept, and made for every batch from one to the largest."""
    mode = {"fp16": "FP16", "int8": "INT8"}.get(precision, "FP32")
    options = {
        "precision_mode": mode,
        "max_workspace_size_bytes": str(1 << 30),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": engines,
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": engines,
    }
    if serving.batch:
        options |= {
            f"trt_profile_{name}_shapes": ",".join(
                f"{item.name}:{'x'.join(str(n) for n in (size, *item.shape[1:]))}" for item in serving.inputs
            )
            for name, size in (("min", 1), ("opt", serving.batch), ("max", serving.batch))
        }
    return {"name": "tensorrt", "parameters": Map(options)}
