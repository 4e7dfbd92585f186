"""Arm NN through Debian's ``pyarmnn``, always in a process of its own: a crash there is an answer here.

`ArmnnChild` starts ``armnn_server.py`` with the interpreter that has pyarmnn and talks to it over pipes; a
child that dies, hangs or complains raises `ArmnnError`, which says at which stage. Only bytes travel, so that
neither numpy nor pyarmnn is imported here. The converters run variants with it, the agent serves with it.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from edgekit.errors import EdgekitError

BACKENDS = ("CpuAcc", "GpuAcc", "CpuRef")
"""Order of preference: Neon, Mali, reference code. What one does not take, the next one computes."""
PACKAGES = "libarmnn22 libarmnntfliteparser22 libarmnn-cpuref-backend22 python3-pyarmnn"
VARIABLE = "EDGEKIT_ARMNN_PYTHON"
RELEASES: Mapping[int, str] = {
    22: "20.08",
    23: "20.11",
    24: "21.02",
    25: "21.05",
    26: "21.08",
    27: "21.11",
    28: "22.02",
    29: "22.05",
    32: "23.02",
    33: "23.08",
}
"""Release by the library's major version, as Debian and upstream's release notes pair them."""
_PYTHON = "/usr/bin/python3"
_PACKAGE = Path("/usr/lib/python3/dist-packages/pyarmnn")
_SERVER = Path(__file__).with_name("armnn_server.py")
_START_S = 60.0
_ASK = "import pyarmnn; print('pyarmnn', pyarmnn.ARMNN_VERSION)"
_PIECE = 1 << 16


class ArmnnError(EdgekitError):
    """Arm NN refused a file, failed, crashed or hung. `stage`: import, parse, optimize, load or run."""

    default_code = "tool_failed"

    def __init__(
        self, message: str, *, stage: str, where: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, where=where, code=code)
        self.stage = stage


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output as Arm NN names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        width = {"float32": 4, "int32": 4, "int16": 2}.get(self.dtype, 1)
        for axis in self.shape:
            width *= axis
        return width


def python() -> str:
    """The interpreter to ask: ``$EDGEKIT_ARMNN_PYTHON``, else Debian's own."""
    return os.environ.get(VARIABLE) or _PYTHON


def version() -> str | None:
    """The release that answers here, such as ``20.08``; None where there is no pyarmnn.

    Asked once, in a process of its own, and not at all where Debian's package is not there.
    """
    if not os.environ.get(VARIABLE) and not _PACKAGE.is_dir():
        return None
    return _version(python())


@lru_cache(maxsize=4)
def _version(interpreter: str) -> str | None:
    command = [interpreter, "-I", "-c", _ASK]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_START_S, check=True, env=_environment())
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^pyarmnn (\d+)[.\d]*", done.stdout.decode("ascii", "replace"), re.MULTILINE)
    return None if found is None else release(found.group(0).split()[1])


def release(library: str) -> str:
    """The release of a library version: ``22.0.0`` is 20.08. One that is not known stays as it is."""
    return RELEASES.get(int(library.partition(".")[0]), library)


class ArmnnChild:
    """One file loaded in a process of its own; not for two threads at once.

    Args:
        model: the ``.tflite`` file.
        backends: by preference.
        seconds: how long loading, and every inference, may take.

    Raises:
        ArmnnError: Arm NN does not load the file; the process is gone then.
    """

    def __init__(self, model: Path, *, backends: Sequence[str] = BACKENDS, seconds: float = _START_S) -> None:
        self._where, self._seconds, self._buffer = str(model), seconds, b""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        command = [python(), "-I", str(_SERVER), str(model.absolute()), ",".join(backends)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_environment(),
            )
        except OSError as error:
            self._log.close()
            raise ArmnnError(
                f"{command[0]} does not start: {error.strerror}", stage="import", where=self._where
            ) from error
        try:
            facts = json.loads(self._line())
            if "error" in facts:
                raise ArmnnError(f"Arm NN: {facts['error']}", stage=self._stage(), where=self._where)
        except BaseException:
            self.close()
            raise
        self.inputs = tuple(_port(item) for item in facts["inputs"])
        self.outputs = tuple(_port(item) for item in facts["outputs"])
        self.version = release(facts["version"])
        self.layers: Mapping[str, int] = facts["layers"]

    @property
    def backend(self) -> str:
        """What really computes: the backends of the layers, the one with most of them first."""
        order = sorted(self.layers, key=lambda name: (-self.layers[name], name))
        return "+".join(order) or "none"

    @property
    def pid(self) -> int:
        """The child's process."""
        return self._process.pid

    def run(self, inputs: Sequence[bytes]) -> list[bytes]:
        """One inference: the bytes of every input in their order, and of every output.

        Raises:
            ArmnnError: it failed, died or took too long. Where it died, `alive` is False from then on.
        """
        assert self._process.stdin is not None
        try:
            for part in inputs:
                self._process.stdin.write(part)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._died() from error
        deadline = time.monotonic() + self._seconds
        if self._take(1, deadline) != b"+":
            facts = json.loads(self._line())
            raise ArmnnError(f"Arm NN: {facts['error']}", stage="run", where=self._where)
        return [self._take(port.size, deadline) for port in self.outputs]

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process; safe to repeat."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # what was not sent any more
                    continue

    def _line(self) -> bytes:
        deadline = time.monotonic() + self._seconds
        while b"\n" not in self._buffer:
            self._more(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._more(deadline)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _more(self, deadline: float) -> None:
        assert self._process.stdout is not None
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
            stage = self._stage()
            self._process.kill()
            raise ArmnnError(
                f"Arm NN took more than {self._seconds:g} s at the stage {stage!r} and was ended",
                stage=stage,
                where=self._where,
                code="tool_timeout",
            )
        piece = os.read(self._process.stdout.fileno(), _PIECE)
        if not piece:
            raise self._died()
        self._buffer += piece

    def _died(self) -> ArmnnError:
        code, stage = self._process.wait(), self._stage()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = [line for line in self._said() if not line.startswith("stage: ")]
        last = f": {said[-1][:300]}" if said else ""
        return ArmnnError(
            f"Arm NN ended its process ({how}) at the stage {stage!r}{last}", stage=stage, where=self._where
        )

    def _stage(self) -> str:
        stages = [line.removeprefix("stage: ") for line in self._said() if line.startswith("stage: ")]
        return stages[-1] if stages else "start"

    def _said(self) -> list[str]:
        """The child's standard error, less what pyarmnn always says of parsers it was built without."""
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip() and "parser functionality" not in line]


def _port(facts: Mapping[str, Any]) -> Port:
    return Port(name=facts["name"], dtype=facts["dtype"], shape=tuple(facts["shape"]))


def _environment() -> dict[str, str]:
    """Ours, less what leads another interpreter to our packages."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
