"""Running a file in Arm NN: as many samples as its work allows, and the same ones in LiteRT beside it.

The reference backend is slow (a tenth of a second for ResNet-8, twenty seconds for MobileNet), so `cost` says
how many samples are run; they are spread evenly over the data. `ran` says which they were; the engine judges
on them and on no others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import armnn
from edgekit.armnn import ArmnnChild, ArmnnError
from edgekit.package import Tensor
from edgekit.versions import version_key
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.armnn.cost import affordable
from edgekit_converters.targets.tflite.runner import LiteRtSession, dequantize, quantize
from edgekit_converters.values import Built

_INFERENCE_S = 120.0
_MEASURE_S, _TIMES, _LEAST, _SLOW_US = 0.5, 200, 3, 2e6

Arrays = Mapping[str, Any]


class ArmnnSession:
    """Implements `targets.Session` over one child process. `backend`: the one wanted, then what computes."""

    def __init__(self, path: Path, artifact: Built, *, backend: str) -> None:
        self._path, self._artifact = path, artifact
        self._wanted = (backend,)
        self._child = self._start()
        self.backend = self._child.backend
        self.ran: dict[str, Any] = {"version": self._child.version}
        self._inputs = self._ports(artifact.inputs, self._child.inputs)
        self._outputs = self._ports(artifact.outputs, self._child.outputs)

    @classmethod
    def on(cls, path: Path, artifact: Built, *, backend: str) -> ArmnnSession | None:
        """A session; None where the file was made for a later release than the one here.

        Raises:
            Refusal: Arm NN refuses the file, or crashes on it.
        """
        here, wanted = armnn.version(), artifact.requires.min_runtime
        if here is None or (wanted is not None and version_key(here) < version_key(wanted)):
            return None
        return cls(path, artifact, backend=backend)

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """All outputs for as many samples as the network's work allows, which `ran` then names.

        Raises:
            Refusal: Arm NN failed or crashed.
        """
        n = len(inputs[self._inputs[0][0].name])
        count = affordable(self._path, n)
        chosen = np.linspace(0, n - 1, count).round().astype(np.int64)
        some = {name: value[chosen] for name, value in inputs.items()}
        rows = [
            self.step({name: value[i : i + 1] for name, value in some.items()}) for i in range(len(chosen))
        ]
        found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        self.ran["metrics"] = {"litert_difference": self._difference(some, found)}
        if len(chosen) < n:
            self.ran["samples"] = [int(item) for item in chosen]
        self.close()
        return found

    def step(self, inputs: Arrays) -> dict[str, Any]:
        """One inference.

        Raises:
            Refusal: Arm NN failed or crashed.
        """
        feeds = [
            np.ascontiguousarray(quantize(inputs[port.name], port, np.dtype(place.dtype)), place.dtype)
            for port, place in self._inputs
        ]
        by_name = {place.name: feed.tobytes() for (_, place), feed in zip(self._inputs, feeds, strict=True)}
        try:
            answer = self._child.run([by_name[port.name] for port in self._child.inputs])
        except ArmnnError as error:
            raise _refused(error) from error
        data = {port.name: part for port, part in zip(self._child.outputs, answer, strict=True)}
        return {port.name: _array(data[place.name], place, port) for port, place in self._outputs}

    def timed(self, inputs: Arrays) -> list[float]:
        """Microseconds of single inferences; of the first one alone where it takes seconds."""
        times: list[float] = []
        end = time.perf_counter() + _MEASURE_S
        while len(times) < _TIMES and (time.perf_counter() < end or len(times) < _LEAST):
            started = time.perf_counter()
            self.step(inputs)
            times.append(1e6 * (time.perf_counter() - started))
            if times[0] > _SLOW_US:
                return times
        return times[1:]

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _start(self) -> ArmnnChild:
        try:
            return ArmnnChild(self._path, backends=self._wanted, seconds=_INFERENCE_S)
        except ArmnnError as error:
            raise _refused(error) from error

    @staticmethod
    def _ports(wanted: tuple[Tensor, ...], there: tuple[armnn.Port, ...]) -> list[tuple[Tensor, armnn.Port]]:
        by_name = {port.name: port for port in there}
        return [(port, by_name[port.artifact_name or port.name]) for port in wanted]

    def _difference(self, inputs: Arrays, found: Arrays) -> dict[str, Any]:
        """How far LiteRT is from it on the same file and samples: in steps of int8 outputs, else as it is."""
        expected = LiteRtSession(self._path, self._artifact, kernels="xnnpack").run(inputs)
        facts: dict[str, Any] = {"n": len(next(iter(found.values())))}
        for port in self._artifact.outputs:
            gap = np.abs(found[port.name].astype(np.float64) - expected[port.name].astype(np.float64))
            if port.quantization is None:
                facts[port.name] = {"max_error": float(f"{gap.max():.3g}")}
                continue
            steps = np.rint(gap / port.quantization.scale)
            facts[port.name] = {"max_steps": int(steps.max()), "differing": int((steps > 0).sum())}
        return facts


def _array(data: bytes, place: armnn.Port, port: Tensor) -> Any:
    return dequantize(np.frombuffer(data, place.dtype).reshape(place.shape), port)


def _refused(error: ArmnnError) -> Refusal:
    """A failure of Arm NN's as the reason why there is no variant."""
    return Refusal(
        error.message,
        remedy="take the tflite target, which LiteRT runs; the node named, or the stage, says what to change",
        code=error.code,
    )
