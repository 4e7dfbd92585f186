"""A loaded ``.onnx`` variant.

`InferenceSession.run` may be called from several threads at once. Threads do not spin while they
wait, because a device has other things to do with its cores; the CPU memory arena is off, see `ARENA`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import UnavailableError
from edgekit.package import Variant
from edgekit_agent.errors import ModelError
from edgekit_agent.runtimes.batching import (
    Array,
    batch_of,
    from_artifact,
    run_in_pieces,
    tensor_not_found,
    to_artifact,
)
from edgekit_agent.runtimes.contract_ports import ContractPorts

ARENA = False
"""Whether tensors come from ONNX Runtime's arena. Measured on small models (MNIST, digits int8; one
thread, x86-64) a run takes the same time with and without it (32 and 19 µs); the arena only grows, and
keeps the largest batch ever seen, so it is off."""

_CPU = "CPUExecutionProvider"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OnnxSession(ContractPorts):
    """Implements `edgekit.ports.Session`; `run` may be called from several threads at once."""

    def __init__(self, path: Path, variant: Variant, *, threads: int, providers: tuple[str, ...]) -> None:
        self._variant = variant
        library = _library()
        self._failures = failures(library)
        try:
            self._session: Any = library.InferenceSession(
                str(path), _options(library, threads), providers=_available(library, providers)
            )
            self._ports = {item.name: item for item in (*self._nodes("inputs"), *self._nodes("outputs"))}
            self._check_names(path)
        except self._failures as error:
            raise UnavailableError(
                f"ONNX Runtime refuses the model: {str(error).splitlines()[0]}",
                where=str(path),
                remedy="check that the device's onnxruntime is not older than the variant's min_runtime",
                code="model_refused",
            ) from error
        self._fixed = self._fixed_batch()
        self._wanted = [item.artifact_name or item.name for item in variant.outputs]

    @property
    def backend(self) -> str:
        """The first execution provider that the session really has."""
        return str(self._session.get_providers()[0])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs for one batch.

        Raises:
            ModelError: ONNX Runtime failed.
        """
        try:
            n = batch_of(self._variant.inputs, inputs)
            if n is None or self._fixed is None:
                return self._run_once(dict(inputs))
            return run_in_pieces(inputs, n, self._fixed, self._run_once)
        except self._failures as error:
            raise ModelError(
                f"ONNX Runtime: {str(error).splitlines()[0]}", where=self._variant.id, code="runtime_failed"
            ) from error

    def close(self) -> None:
        """Free the session; nobody may be inside `run`."""
        self._session = None

    def _run_once(self, inputs: dict[str, Array]) -> dict[str, Array]:
        feed = {}
        for item in self._variant.inputs:
            name = item.artifact_name or item.name
            feed[name] = to_artifact(inputs[item.name], self._dtype(name), item.quantization)
        results = self._session.run(self._wanted, feed)
        return {
            item.name: from_artifact(result, np.dtype(item.dtype), item.quantization)
            for item, result in zip(self._variant.outputs, results, strict=True)
        }

    def _dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(_DTYPES[self._ports[name].type])

    def _nodes(self, kind: str) -> Sequence[Any]:
        return list(self._session.get_inputs() if kind == "inputs" else self._session.get_outputs())

    def _check_names(self, path: Path) -> None:
        for tensor in (*self._variant.inputs, *self._variant.outputs):
            node = self._ports.get(tensor.artifact_name or tensor.name)
            if node is None:
                raise ValueError(tensor_not_found(tensor, sorted(self._ports), path.name))
            if node.type not in _DTYPES:
                raise ValueError(f"{node.name} is a {node.type}, which is not supported")

    def _fixed_batch(self) -> int | None:
        """The batch the graph fixes, None when any goes."""
        shapes = [node.shape for node in self._nodes("inputs")]
        first = shapes[0][0] if shapes and shapes[0] else None
        return first if isinstance(first, int) and first > 0 else None


def failures(library: Any) -> tuple[type[BaseException], ...]:
    """Every exception the library raises: its own derive from Exception without a common root."""
    state = library.capi.onnxruntime_pybind11_state
    own = [item for item in vars(state).values() if isinstance(item, type) and issubclass(item, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def _options(library: Any, threads: int) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = ARENA
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _available(library: Any, wanted: tuple[str, ...]) -> list[str]:
    there = set(library.get_available_providers())
    return [*(name for name in wanted if name in there and name != _CPU), _CPU]


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            f"ONNX Runtime cannot be imported: {error}",
            where="runtime onnxruntime",
            remedy="pip install 'edgekit-agent[onnx]'",
            code="runtime_missing",
        ) from error
    return onnxruntime


__all__ = ["ARENA", "OnnxSession", "failures"]
