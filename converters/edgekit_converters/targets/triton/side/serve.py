"""Starts a real tritonserver on loopback, asks it, stops it. Runs in the sidecar's Python.

``python serve.py REQUEST.json`` reads ``{repository, model, inputs, outputs, names, batch, protocol,
seconds, work}`` (`inputs` an npz by name, `outputs` where to write the answers of the outputs `names`,
`batch` the most samples in one request, `work` an empty folder of the caller's) and prints one JSON line with
the server's version and timings, or ``{"error": …}``. The server dies with this process: the kernel is told
so, and its session is killed at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_SIGNAL_AT_PARENTS_DEATH = 1
_ATTEMPTS = 3
_MEMORY = Path("/dev/shm")  # the Python backend's own place
_SHARED = "edgekit-triton-"
_TAIL = 12
_ALWAYS = ("CudaDriverHelper", "NVML", "DCGM", "CUDA driver")
"""What the server says on every machine without a GPU."""
_WHEN = re.compile(r"^[EWI]\d{4} [\d:.]+ \d+ ")
"""Date, clock and process before each line of its log: they would make every refusal another one."""


class ServingError(Exception):
    """The server did not start, died, or refused a request."""


class PortTakenError(ServingError):
    """Somebody else took a port between looking for a free one and the server's start."""


def main() -> None:
    """Serve one request file."""
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # loopback is asked directly, whatever the clients think of proxies
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    deadline = time.monotonic() + float(request["seconds"])
    try:
        answer = _tried(request, Path(request["work"]), deadline)
    except ServingError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)


def _tried(request: dict[str, Any], work: Path, deadline: float) -> dict[str, Any]:
    """Serve, with other ports where the first ones were taken."""
    for attempt in range(_ATTEMPTS):
        place = work / str(attempt)
        place.mkdir()
        try:
            return _serve(request, place, deadline)
        except PortTakenError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _serve(request: dict[str, Any], work: Path, deadline: float) -> dict[str, Any]:
    started = time.monotonic()
    with _server(request, work) as (process, ports, log):
        module = importlib.import_module(f"tritonclient.{request['protocol']}")
        client = module.InferenceServerClient(f"127.0.0.1:{ports[request['protocol']]}")
        try:
            _wait(ports["http"], process, log, deadline)
            ready = time.monotonic()
            version = _version(client)
            outputs = _ask(module, client, request, process, log, deadline)
        finally:
            client.close()
        done = time.monotonic()
    np.savez(request["outputs"], **outputs)
    installed = importlib.import_module("importlib.metadata").version
    return {
        "server": version,
        "client": installed("tritonclient"),
        "onnxruntime": installed("onnxruntime"),
        "litert": installed("ai-edge-litert"),
        "protocol": request["protocol"],
        "seconds": {"ready": round(ready - started, 2), "asking": round(done - ready, 2)},
    }


@contextlib.contextmanager
def _server(request: dict[str, Any], work: Path) -> Iterator[tuple[Any, dict[str, int], Path]]:
    """A running server in a session of its own; whatever is left of that session is killed."""
    triton = Path(_package("pytriton")) / "tritonserver"
    ports = dict(zip(("http", "grpc"), _free_ports(2), strict=True))
    shared = f"{_SHARED}{os.getpid()}-"
    _sweep()
    log = work / "server.log"
    command = [
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={request['repository']}",
        f"--backend-directory={_backends(triton, work)}",
        f"--backend-config=python,shm-region-prefix-name={shared}",
        "--disable-auto-complete-config",
        "--allow-metrics=false",
    ]
    for name, port in ports.items():
        command += [f"--allow-{name}=true", f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(triton),
            cwd=work,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process, ports, log
    finally:
        _stop(process, shared)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)


def _stop(process: Any, shared: str) -> None:
    """Kill the whole session and free its shared memory; nothing in it is worth the two seconds of asking."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in _MEMORY.glob(f"{shared}*"):
        path.unlink(missing_ok=True)


def _sweep() -> None:
    """Free the shared memory of runs that were killed before they could."""
    for path in _MEMORY.glob(f"{_SHARED}*"):
        owner = path.name.removeprefix(_SHARED).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            path.unlink(missing_ok=True)


def _backends(triton: Path, work: Path) -> Path:
    """The Python backend's folder with the stub for this very Python, as the server wants it."""
    folder = work / "backends"
    stub = triton / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    (folder / "python").mkdir(parents=True)
    for path in (*(triton / "backends" / "python").iterdir(), stub):
        if path.is_file():
            shutil.copy2(path, folder / "python" / path.name)
    return folder


def _environment(triton: Path) -> dict[str, str]:
    """The stub must find this Python's own library first, then those that the wheel brings.

    Another libpython of the same version on the machine would load this environment's packages and fail.
    """
    packages = triton.parents[1]
    libraries = [sysconfig.get_config_var("LIBDIR"), str(packages / "nvidia_pytriton.libs")]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LD_"))}
    return {
        **kept,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PYTHONPATH": str(packages),
    }


def _package(name: str) -> str:
    """A package's folder, without importing it."""
    util = importlib.import_module("importlib.util")
    spec = util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ServingError(f"{name} is not installed beside {sys.executable}")
    return str(Path(spec.origin).parent)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _wait(port: int, process: Any, log: Path, deadline: float) -> None:
    """Until the server says that it is ready."""
    while True:
        if process.poll() is not None:
            error = PortTakenError if "already in use" in _said(log) else ServingError
            raise error(f"tritonserver ended ({process.returncode}) before it was ready: {_tail(log)}")
        if time.monotonic() > deadline:
            raise ServingError(f"tritonserver was not ready in time: {_tail(log)}")
        if _is_ready(port):
            return
        time.sleep(0.05)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):  # nobody listens yet, or not ready is said by the status
        return False


def _version(client: Any) -> str:
    metadata = client.get_server_metadata()
    return str(metadata["version"] if isinstance(metadata, dict) else metadata.version)


def _ask(
    module: Any, client: Any, request: dict[str, Any], process: Any, log: Path, deadline: float
) -> dict[str, Any]:
    """All answers, in requests of at most `batch` samples, a last smaller one included."""
    with np.load(request["inputs"]) as stored:
        inputs = {name: stored[name] for name in stored.files}
    refused = importlib.import_module("tritonclient.utils").InferenceServerException
    names, step = request["names"], max(1, request["batch"])
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for start in range(0, len(next(iter(inputs.values()))), step):
        if time.monotonic() > deadline:
            raise ServingError(f"tritonserver did not answer all samples in time ({start} were)")
        fed = [_input(module, name, value[start : start + step]) for name, value in inputs.items()]
        wanted = [module.InferRequestedOutput(name) for name in names]
        try:
            answer = client.infer(request["model"], fed, outputs=wanted)
        except (refused, OSError) as error:
            state = "" if process.poll() is None else f", and the server ended ({process.returncode})"
            raise ServingError(f"sample {start}: {error}{state}: {_tail(log)}") from error
        for name in names:
            parts[name].append(answer.as_numpy(name))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _input(module: Any, name: str, value: Any) -> Any:
    """One tensor of a request."""
    utils = importlib.import_module("tritonclient.utils")
    tensor = module.InferInput(name, list(value.shape), utils.np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(value))
    return tensor


def _tail(log: Path) -> str:
    """The last lines that say something went wrong, else the last ones."""
    lines = [line for line in _said(log).splitlines() if not any(item in line for item in _ALWAYS)]
    errors = [line for line in lines if line.startswith("E") or "rror" in line]
    return " | ".join(_WHEN.sub("", line.strip())[:300] for line in (errors or lines)[-_TAIL:])[:1500]


def _said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
