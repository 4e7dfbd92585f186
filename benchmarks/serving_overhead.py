"""What serving adds to a model: one small ONNX model, raw, through the library and through HTTP.

The model computes in microseconds, so that everything else shows. HTTP is one kept-alive connection
from another process over loopback, with JSON in and out.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import ROOT, Run, Skipped

BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 0.4]}]}
).encode()


def main(run: Run) -> None:
    """Measure medians in microseconds."""
    try:
        import onnxruntime  # noqa: F401  # only to see that it is there
    except ImportError as error:
        raise Skipped("onnxruntime is not installed") from error
    n = run.repeats(5000, 500)
    with tempfile.TemporaryDirectory() as folder:
        _in_process(run, Path(folder), n)
        _over_http(run, Path(folder), n)


def _in_process(run: Run, folder: Path, n: int) -> None:
    import numpy as np

    from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
    from edgekit_agent.serving.host import ModelHost
    from tests.agent.models import installed
    from tests.conftest import FrozenClock

    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=FrozenClock())
    candidate = host.prepare(installed(folder))
    host.switch("animals", candidate)
    inputs = {"x": np.full((1, 4), 0.25, np.float32)}
    raw = candidate.session._session  # type: ignore[attr-defined]  # onnxruntime's own, to compare with
    run.add("raw", "ONNX Runtime alone", "µs", _timed(lambda: raw.run(None, inputs), n))
    run.add(
        "library",
        "the model host: validation, pipeline, counters",
        "µs",
        _timed(lambda: host.infer("animals", inputs), n),
    )
    host.close()


def _over_http(run: Run, folder: Path, n: int) -> None:
    command = [sys.executable, "-m", "benchmarks.serving_process", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        head = f"POST /v2/models/animals/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        message = head.encode() + BODY
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def ask() -> None:
                client.sendall(message)
                assert client.recv(65_536).startswith(b"HTTP/1.1 200")

            run.add("http", "one request over HTTP, JSON in and out", "µs", _timed(ask, n))
        server.terminate()


def _timed(work: Callable[[], object], n: int) -> list[float]:
    for _ in range(n // 10):
        work()
    samples = []
    for _ in range(n):
        began = time.perf_counter()
        work()
        samples.append((time.perf_counter() - began) * 1e6)
    return samples
