"""The twin repository served by a real tritonserver: our end of `side.serve`.

One run is one server: started on loopback with free ports, asked in batches, ended. What it does wrong
(it does not start, dies, takes too long, refuses a request) becomes one `ToolFailed`; no process is left.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.package import Tensor
from edgekit_converters.errors import ToolFailed
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.targets.tflite.runner import dequantize, quantize
from edgekit_converters.targets.triton.repository import PRODUCTION, TWIN
from edgekit_converters.values import Built

SERVER = "2.51.0"
"""Version of the server that the sidecar's nvidia-pytriton carries; each run is asked for its own."""
SECONDS = 300.0
_GRACE = 20.0
_SERVE = Path(__file__).parent / "side" / "serve.py"


class TritonSession:
    """A variant as tritonserver serves its twin.

    `emulates` names what the runtime in the twin stands in for, if anything.
    """

    def __init__(
        self,
        folder: Path,
        artifact: Built,
        python: Path,
        *,
        emulates: str = "",
        protocol: str = "grpc",
        seconds: float = SECONDS,
    ) -> None:
        self._folder = folder.resolve()
        self._artifact, self._python = artifact, python
        self._emulates, self._protocol, self._seconds = emulates, protocol, seconds
        self._inside = "litert" if next((folder / PRODUCTION).glob("*/1/*.tflite"), None) else "onnxruntime"
        self.backend = "twin: Python backend"
        self.ran: Mapping[str, str] = {"version": SERVER}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs for all samples.

        Raises:
            ToolFailed: ``triton_failed``, with what the server said last; ``tool_timeout``.
        """
        fed = {_own(port): quantize(inputs[port.name], port) for port in self._artifact.inputs}
        with tempfile.TemporaryDirectory(prefix="edgekit-triton-") as place:
            outputs, facts = self._serve(Path(place), fed)
        self._tell(facts)
        return {
            port.name: dequantize(_inside(outputs[_own(port)], port), port).astype(port.dtype)
            for port in self._artifact.outputs
        }

    def _serve(self, place: Path, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        (place / "work").mkdir()
        # A copy: the backend's Python leaves byte code beside the model's, and variants are not to change.
        shutil.copytree(self._folder / TWIN, place / TWIN)
        (place / PRODUCTION).symlink_to(self._folder / PRODUCTION, target_is_directory=True)
        model = next((place / TWIN).iterdir())
        batch = _batch(model / "config.pbtxt")
        save_arrays(place / "in.npz", {name: _outside(value, batch) for name, value in inputs.items()})
        request = {
            "repository": str(place / TWIN),
            "model": model.name,
            "names": [_own(port) for port in self._artifact.outputs],
            "inputs": str(place / "in.npz"),
            "outputs": str(place / "out.npz"),
            "work": str(place / "work"),
            "batch": batch,
            "protocol": self._protocol,
            "seconds": self._seconds,
        }
        (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
        facts = self._asked(place / "request.json")
        return load_arrays(place / "out.npz"), facts

    def _asked(self, request: Path) -> Mapping[str, Any]:
        command = [str(self._python), "-I", str(_SERVE), str(request)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._seconds + _GRACE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ToolFailed(
                f"tritonserver took more than {self._seconds:g} s and was ended", code="tool_timeout"
            ) from error
        try:
            facts: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
            raise ToolFailed(
                f"asking tritonserver ended with exit code {done.returncode}: {said}", code="triton_failed"
            ) from error
        if "error" in facts:
            raise ToolFailed(str(facts["error"]), code="triton_failed")
        return facts

    def _tell(self, facts: Mapping[str, Any]) -> None:
        """What ran, from the server's own mouth."""
        runtime = f"{self._inside} {facts[self._inside]} on the CPU"
        self.backend = f"twin: Python backend, {runtime}; production configuration not served"
        self.ran = {"version": facts["server"]}
        if self._emulates:
            self.ran = {**self.ran, "method": "emulated", "runtime": "triton"}
            self.backend += f", {self._emulates} did not run"


def _own(port: Tensor) -> str:
    """A port's name in the file, which is what is served."""
    return port.artifact_name or port.name


def _outside(value: Any, batch: int) -> Any:
    """An input as the server wants it: a number a sample is a row of one there (`config`)."""
    return value[:, None] if batch and value.ndim == 1 else value


def _inside(value: Any, port: Tensor) -> Any:
    """An output as the model gave it."""
    return value.reshape(-1) if len(port.shape) == 1 else value


def _batch(config: Path) -> int:
    found = re.search(r"^max_batch_size: (\d+)$", config.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0
