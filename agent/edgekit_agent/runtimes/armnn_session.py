"""A loaded ``armnn`` variant in a child process (`edgekit.armnn`): requests one after the other.

Arm NN ends its process on some files; that ends the child, costs one request, and the next one starts
another. A child that died while it was loading is not tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekit import armnn
from edgekit.armnn import ArmnnChild, ArmnnError
from edgekit.errors import UnavailableError
from edgekit.package import Tensor, Variant
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

SECONDS = 60.0
"""How long loading, and one inference, may take before the child is ended."""


class ArmnnSession(ContractPorts):
    """Implements `edgekit.ports.Session`; threads wait for each other."""

    def __init__(
        self, path: Path, variant: Variant, *, backends: Sequence[str], seconds: float = SECONDS
    ) -> None:
        self._path, self._variant = path, variant
        self._backends, self._seconds = tuple(backends), seconds
        self._lock = threading.Lock()
        self._closed = False
        self._child = self._start()
        self._backend = self._child.backend
        self._batch = next((port.shape[0] for port in self._child.inputs if port.shape), 1)
        for tensor in (*variant.inputs, *variant.outputs):
            self._place(tensor)

    @property
    def backend(self) -> str:
        """The backends that Arm NN gave the layers to, such as ``CpuAcc`` or ``CpuAcc+CpuRef``."""
        return self._backend

    @property
    def pid(self) -> int:
        """The child that computes now."""
        return self._child.pid

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs for one batch.

        Raises:
            ModelError: Arm NN failed, crashed or took too long.
        """
        try:
            n = batch_of(self._variant.inputs, inputs)
            if n is None:
                return self._run_once(dict(inputs))
            return run_in_pieces(inputs, n, self._batch, self._run_once)
        except (ArmnnError, ValueError, TypeError) as error:
            raise ModelError(str(error), where=self._variant.id, code="runtime_failed") from error

    def close(self) -> None:
        """End the child; nobody may be inside `run`."""
        self._closed = True
        self._child.close()

    def _run_once(self, inputs: dict[str, Array]) -> dict[str, Array]:
        feeds = {}
        for item in self._variant.inputs:
            port = self._place(item)
            value = to_artifact(inputs[item.name], np.dtype(port.dtype), item.quantization)
            feeds[port.name] = value.tobytes()
        with self._lock:
            if not self._child.alive and not self._closed:
                self._child.close()
                self._child = self._start()
            answer = self._child.run([feeds[port.name] for port in self._child.inputs])
        found = dict(zip((port.name for port in self._child.outputs), answer, strict=True))
        return {item.name: self._read(item, found) for item in self._variant.outputs}

    def _read(self, item: Tensor, found: Mapping[str, bytes]) -> Array:
        port = self._place(item)
        array = np.frombuffer(found[port.name], port.dtype).reshape(port.shape)
        return from_artifact(array, np.dtype(item.dtype), item.quantization)

    def _place(self, tensor: Tensor) -> armnn.Port:
        ports = {port.name: port for port in (*self._child.inputs, *self._child.outputs)}
        name = tensor.artifact_name or tensor.name
        if name not in ports:
            raise self._refused(tensor_not_found(tensor, sorted(ports), self._path.name))
        return ports[name]

    def _start(self) -> ArmnnChild:
        try:
            return ArmnnChild(self._path, backends=self._backends, seconds=self._seconds)
        except ArmnnError as error:
            raise self._refused(error.message) from error

    def _refused(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"Arm NN refuses the model: {why}",
            where=str(self._path),
            remedy="check that the device's Arm NN is not older than the variant's min_runtime",
            code="model_refused",
        )


__all__ = ["SECONDS", "ArmnnSession"]
