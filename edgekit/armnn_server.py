"""One TFLite file in Arm NN, served to the process that started this script over two pipes.

Run by the interpreter that has ``pyarmnn`` (Debian's own Python), never imported by edgekit: Arm NN ends
its process on some valid files, and its extension belongs to one Python. Standard library, numpy and
pyarmnn only; nothing of edgekit is importable there. `edgekit.armnn` is the other end.

    python3 armnn_server.py MODEL.tflite CpuAcc,CpuRef

Standard output carries one JSON line that tells the ports, the version and the backends, or ``error``. Each
request is the bytes of all inputs in a row on standard input; each answer the byte ``+`` and the bytes of
all outputs, or ``-`` and a JSON line. Standard error carries ``stage: …`` lines, so that the last one names
where a crash happened.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the model named on the command line and serve it until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        network = Network(sys.argv[1], sys.argv[2].split(","))
    except (RuntimeError, ValueError, ImportError) as error:
        answers.write(json.dumps({"error": said(error)}).encode() + b"\n")
        sys.exit(1)
    answers.write(json.dumps(network.facts()).encode() + b"\n")
    requests = sys.stdin.buffer
    while data := requests.read(network.request_bytes):
        answers.write(answer(network, data))


def answer(network: Network, data: bytes) -> bytes:
    """What is written for one request."""
    try:
        return b"+" + network.run(data)
    except (RuntimeError, ValueError) as error:
        return b"-" + json.dumps({"error": said(error)}).encode() + b"\n"


def said(error: BaseException) -> str:
    """An error's words on one line."""
    return " ".join(str(error).split())[:600]


def stage(name: str) -> None:
    """Leave word of what comes next, for the case that it ends this process."""
    print(f"stage: {name}", file=sys.stderr, flush=True)


class Network:
    """A loaded network with tensors of its own."""

    def __init__(self, path: str, backends: list[str]) -> None:
        stage("import")
        self._ann = importlib.import_module("pyarmnn")
        parser = self._ann.ITfLiteParser()
        stage("parse")
        network = parser.CreateNetworkFromBinaryFile(path)
        runtime = self._ann.IRuntime(self._ann.CreationOptions())
        wanted = [self._ann.BackendId(name) for name in backends]
        stage("optimize")
        optimized, self._notes = self._ann.Optimize(
            network, wanted, runtime.GetDeviceSpec(), self._ann.OptimizerOptions()
        )
        self._layers = used_backends(optimized)
        self._inputs = self._ports(parser, parser.GetSubgraphInputTensorNames, "Input")
        self._outputs = self._ports(parser, parser.GetSubgraphOutputTensorNames, "Output")
        stage("load")
        self._id, problem = runtime.LoadNetwork(optimized)
        if problem:
            raise RuntimeError(problem)
        self._runtime = runtime
        self._make_tensors()
        stage("run")

    @property
    def request_bytes(self) -> int:
        """How long one request is."""
        return sum(len(item) for item in self._areas)

    def run(self, data: bytes) -> bytes:
        """One inference on the bytes of all inputs."""
        if len(data) != self.request_bytes:
            raise ValueError(f"a request has {self.request_bytes} bytes, not {len(data)}")
        start = 0
        for area in self._areas:
            area[:] = data[start : start + len(area)]
            start += len(area)
        self._runtime.EnqueueWorkload(self._id, self._feeds, self._results)
        return b"".join(tensor.get_memory_area().tobytes() for _, tensor in self._results)

    def facts(self) -> dict[str, Any]:
        """What the other end must know."""
        return {
            "version": str(self._ann.ARMNN_VERSION),
            "layers": self._layers,
            "notes": [said(ValueError(note)) for note in self._notes][:20],
            "inputs": [self._port(name, info) for name, info in self._inputs],
            "outputs": [self._port(name, info) for name, info in self._outputs],
        }

    def _ports(self, parser: Any, names: Any, kind: str) -> list[tuple[str, Any]]:
        binding = getattr(parser, f"GetNetwork{kind}BindingInfo")
        return [(name, binding(0, name)) for name in names(0)]

    def _port(self, name: str, binding: Any) -> dict[str, Any]:
        info = binding[1]
        shape = info.GetShape()
        return {
            "name": name,
            "dtype": self._dtype(info),
            "shape": [int(shape[axis]) for axis in range(shape.GetNumDimensions())],
        }

    def _dtype(self, info: Any) -> str:
        names = {
            "DataType_Float32": "float32",
            "DataType_QAsymmS8": "int8",
            "DataType_QSymmS8": "int8",
            "DataType_QAsymmU8": "uint8",
            "DataType_QSymmS16": "int16",
            "DataType_Signed32": "int32",
        }
        kinds = {getattr(self._ann, key): dtype for key, dtype in names.items()}
        found = kinds.get(info.GetDataType())
        if found is None:
            raise ValueError(f"a port has Arm NN's data type {info.GetDataType()}, which is not served")
        return found

    def _make_tensors(self) -> None:
        """Tensors made once: pyarmnn reads inputs where the request is written to."""
        numpy = importlib.import_module("numpy")
        self._areas = [bytearray(binding[1].GetNumBytes()) for _, binding in self._inputs]
        arrays = [
            numpy.frombuffer(area, self._dtype(self._inputs[place][1][1]))
            for place, area in enumerate(self._areas)
        ]
        self._feeds = self._ann.make_input_tensors([binding for _, binding in self._inputs], arrays)
        self._results = self._ann.make_output_tensors([binding for _, binding in self._outputs])


def used_backends(optimized: Any) -> dict[str, int]:
    """How many layers each backend computes, read from the graph that Arm NN writes for people."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "network.dot"
        optimized.SerializeToDot(str(place))
        names = re.findall(r"BackendID\s*:\s*(\w+)", place.read_text(encoding="utf-8", errors="replace"))
    return {name: names.count(name) for name in sorted(set(names))}


if __name__ == "__main__":
    main()
