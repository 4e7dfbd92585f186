"""A loaded ``.tflite`` variant: a small pool of interpreters over one mapped file.

An Interpreter is not thread-safe but releases the interpreter lock while it computes, so each
thread takes one from the pool for the length of a request. The batch is fitted by resizing; a model
whose graph fixes its batch (a RESHAPE with constants, say) is run piece by piece instead.
Quantized inputs and outputs are converted to and from the contract's dtypes here.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np

from edgekit.errors import UnavailableError
from edgekit.package import Quantization, Tensor, Variant
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

_FAILURES = (RuntimeError, ValueError, TypeError, MemoryError)
_LARGEST_PIECE = 32


@dataclass(frozen=True, kw_only=True)
class Delegate:
    """A delegate other than LiteRT's own: what it is called in telemetry, and how it is loaded."""

    name: str
    load: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class _Port:
    """Where one tensor of the contract lies in the interpreter."""

    tensor: Tensor
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    quantization: Quantization | None


class LiteRtSession(ContractPorts):
    """Implements `edgekit.ports.Session`; `run` may be called from several threads at once."""

    def __init__(
        self, path: Path, variant: Variant, *, threads: int, pool: int, delegate: Delegate | None = None
    ) -> None:
        self._path, self._variant, self._threads = path, variant, threads
        self._delegate = delegate
        self._free: LifoQueue[_Worker] = LifoQueue()
        self._lock = threading.Lock()
        self._spare = max(1, pool) - 1
        first = self._new_worker()
        self._backend = first.backend
        self._free.put(first)

    @property
    def backend(self) -> str:
        """The delegate (usually ``xnnpack``) that took at least a part of the graph, else ``builtin``."""
        return self._backend

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs for one batch.

        Raises:
            ModelError: the interpreter failed.
        """
        with self._worker() as worker:
            try:
                return worker.run(inputs)
            except _FAILURES as error:
                raise ModelError(f"LiteRT: {error}", where=self._variant.id, code="runtime_failed") from error

    def close(self) -> None:
        """Free the interpreters; nobody may be inside `run`."""
        with self._lock:
            self._spare = 0
            while True:
                try:
                    self._free.get_nowait()
                except Empty:
                    return

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        worker = self._take()
        try:
            yield worker
        finally:
            self._free.put(worker)

    def _take(self) -> _Worker:
        try:
            return self._free.get_nowait()
        except Empty:
            pass
        with self._lock:
            grow = self._spare > 0
            self._spare -= grow
        return self._new_worker() if grow else self._free.get()

    def _new_worker(self) -> _Worker:
        try:
            return _Worker(self._path, self._variant, self._threads, self._delegate)
        except _FAILURES as error:
            raise UnavailableError(
                f"LiteRT refuses the model: {error}",
                where=str(self._path),
                remedy="check that the device's LiteRT is not older than the variant's min_runtime",
                code="model_refused",
            ) from error


class _Worker:
    """One interpreter, used by one thread at a time."""

    def __init__(self, path: Path, variant: Variant, threads: int, delegate: Delegate | None) -> None:
        self._variant, self._delegate = variant, delegate
        self._path, self._threads = path, threads
        self._interpreter = self._make()
        names = _names(self._interpreter)
        self._inputs = [_port(item, names[0], path) for item in variant.inputs]
        self._outputs = [_port(item, names[1], path) for item in variant.outputs]
        self._interpreter.allocate_tensors()
        self._shapes = {port.index: port.shape for port in self._inputs}
        self._batch = self._own_batch()
        self._resizable = True

    def _make(self) -> Any:
        if self._delegate is None:
            return interpreter_class()(model_path=str(self._path), num_threads=self._threads)
        delegates = [self._delegate.load()]
        return interpreter_class()(
            model_path=str(self._path), num_threads=self._threads, experimental_delegates=delegates
        )

    @property
    def backend(self) -> str:
        """What computes, from the nodes the graph really has after delegation."""
        # The list of nodes is the only place where LiteRT tells what a delegate took; it has no public name.
        listing = getattr(self._interpreter, "_get_ops_details", None)
        nodes = listing() if listing else ()
        taken = any(node["op_name"] == "DELEGATE" for node in nodes)
        return "builtin" if not taken else self._delegate.name if self._delegate else "xnnpack"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        n = batch_of(self._variant.inputs, inputs)
        if n is None:
            return self._run_once(dict(inputs))
        wanted = min(n, _LARGEST_PIECE)
        if wanted != self._batch and self._resizable:
            self._resize(wanted)
        return run_in_pieces(inputs, n, self._batch, self._run_once)

    def _run_once(self, inputs: dict[str, Array]) -> dict[str, Array]:
        for port in self._inputs:
            value = to_artifact(inputs[port.tensor.name], port.dtype, port.quantization)
            self._fit(port, value)
            self._interpreter.set_tensor(port.index, value)
        self._interpreter.invoke()
        return {
            port.tensor.name: from_artifact(
                read_output(self._interpreter, port.index), np.dtype(port.tensor.dtype), port.quantization
            )
            for port in self._outputs
        }

    def _fit(self, port: _Port, value: Array) -> None:
        """Follow dynamic dimensions beyond the batch, such as a sequence's length."""
        wanted = port.tensor.shape
        free = -1 in wanted[1:] or (bool(wanted) and wanted[0] != -1)
        if free and self._shapes[port.index] != value.shape:
            self._interpreter.resize_tensor_input(port.index, value.shape)
            self._interpreter.allocate_tensors()
            self._shapes[port.index] = value.shape

    def _own_batch(self) -> int:
        shape = self._inputs[0].shape if self._inputs else ()
        return int(shape[0]) if shape else 1

    def _resize(self, batch: int) -> None:
        """Try to give every input this batch; a graph that refuses is rebuilt and stays as it was made."""
        try:
            for port in self._inputs:
                self._interpreter.resize_tensor_input(port.index, (batch, *port.shape[1:]))
                self._shapes[port.index] = (batch, *port.shape[1:])
            self._interpreter.allocate_tensors()
            self._batch = batch
        except (RuntimeError, ValueError):
            self._interpreter = self._make()
            self._interpreter.allocate_tensors()
            self._batch, self._resizable = self._own_batch(), False


def _names(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details of inputs and outputs by every name they have: the tensor's and the signature's."""
    inputs = {str(item["name"]): item for item in interpreter.get_input_details()}
    outputs = {str(item["name"]): item for item in interpreter.get_output_details()}
    for key, members in interpreter.get_signature_list().items():
        if len(members["inputs"]) == len(inputs):
            runner = interpreter.get_signature_runner(key)
            inputs = {**runner.get_input_details(), **inputs}
            outputs = {**runner.get_output_details(), **outputs}
            break
    return inputs, outputs


def _port(tensor: Tensor, names: Mapping[str, Any], path: Path) -> _Port:
    found = names.get(tensor.artifact_name or tensor.name)
    if found is None and len({item["index"] for item in names.values()}) == 1:
        found = next(iter(names.values()))
    if found is None:
        raise ValueError(tensor_not_found(tensor, sorted(names), path.name))
    dtype = np.dtype(found["dtype"])
    quantization = tensor.quantization
    scale, zero = found["quantization"]
    if quantization is None and dtype.kind in "iu" and tensor.dtype.startswith("float") and scale:
        quantization = Quantization(scale=float(scale), zero_point=int(zero))
    return _Port(
        tensor=tensor,
        index=int(found["index"]),
        shape=tuple(int(size) for size in found["shape"]),
        dtype=dtype,
        quantization=quantization if dtype.kind in "iu" else None,
    )


def read_output(interpreter: Any, index: int) -> Array:
    """A copy of an output's elements, of which there may be none: then LiteRT has no memory to show."""
    try:
        found: Array = interpreter.get_tensor(index)
    except ValueError:
        details = next(item for item in interpreter.get_output_details() if item["index"] == index)
        if 0 not in details["shape"]:
            raise
        return np.empty(tuple(int(size) for size in details["shape"]), details["dtype"])
    return found


def interpreter_class() -> Any:
    """The Interpreter of the LiteRT that is installed.

    Raises:
        UnavailableError: none is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            try:
                from tflite_runtime.interpreter import Interpreter
            except ImportError as error:
                raise UnavailableError(
                    f"LiteRT cannot be imported: {error}",
                    where="runtime litert",
                    remedy="pip install 'edgekit-agent[litert]'",
                    code="runtime_missing",
                ) from error
    return Interpreter


__all__ = ["LiteRtSession", "interpreter_class", "read_output"]
