"""Memory of the resident agent: RSS and PSS of real processes, idle, with LiteRT, with ONNX Runtime.

*Idle*: the agent has verified a release and downloaded it, and no runtime is loaded. The other two
run the whole line: a fleet service with its broker, devices of two profiles that got the digits
model by a rollout, loaded it, answered for a while and are idle again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import ROOT, Run, Skipped

BIN = Path(sys.executable).parent
RUNTIMES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
PLAN = """\
[[ring]]
name = "one"
select = {{ devices = ["{device}"] }}
soak = "1s"
min_n = 1
"""


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kib["Rss"] / 1024, kib["Pss"] / 1024


def edgekit(*words: str | Path) -> str:
    """Run one command; what it printed.

    Raises:
        Skipped: it failed.
    """
    done = subprocess.run([BIN / "edgekit", *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):
        raise Skipped(
            f"edgekit {words[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}"
        )
    return done.stdout


@contextmanager
def running(*words: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that is stopped at the end."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words, stdout=stream, stderr=stream, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(path: Path, words: str, seconds: float = 60.0) -> str:
    """The first line of a log that contains `words`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in path.read_text().splitlines() if path.exists() else ():
            if words in line:
                return line
        time.sleep(0.1)
    raise Skipped(f"{path.name} never said {words!r}")


def prepare(folder: Path) -> Path:
    """Train, convert and publish the digits model; returns the fleet home."""
    digits, home = folder / "digits", folder / "fleet"
    train: list[str | Path] = [sys.executable, ROOT / "examples" / "digits" / "train.py", "--out", digits]
    subprocess.run(train, check=True, capture_output=True)
    edgekit(
        "convert",
        digits / "model.keras",
        *("--profile", "x86-64-litert", "--profile", "x86-64-onnx", "--out", folder / "package"),
        *("--calibration", digits / "calibration.npz", "--validation", digits / "validation.npz"),
    )
    edgekit("key", "init", "--home", home)
    edgekit("release", "add", folder / "package", "--home", home)
    edgekit("release", "sign", "digits@1.0.0", "--home", home)
    edgekit("slot", "create", "digits", "--contract", digits / "model.toml", "--home", home)
    return home


def ask(agent_home: Path, times: int) -> None:
    """Send some requests to an agent."""
    url = json.loads((agent_home / "state" / "http.json").read_text())["url"]
    tensor = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": [0.0] * 64}
    body = json.dumps({"inputs": [tensor]}).encode()
    for _ in range(times):
        request = urllib.request.Request(f"{url}/v2/models/digits/infer", data=body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


def with_runtime(runtime: str, home: Path, url: str, folder: Path) -> tuple[float, float]:
    """RSS and PSS of an agent that runs the digits model with `runtime`."""
    token = json.loads(edgekit("device", "token", "--home", home, "--json"))["token"]
    agent_home = Path(tempfile.mkdtemp(dir=folder))
    device = f"device-{agent_home.name.strip('_')}"
    plan = agent_home / "plan.toml"
    plan.write_text(PLAN.format(device=device))
    agent = BIN / "edgekit-agent"
    words: list[str | Path] = [agent, "enrol", "--url", url, "--token", token, "--name", device]
    subprocess.run([*words, "--home", agent_home, "--runtime", runtime], check=True, capture_output=True)
    with running(agent, "run", "--home", agent_home, log=agent_home / "agent.log") as process:
        more: list[str | Path] = ["--plan", plan, "--timeout", "120", "--home", home]
        edgekit("rollout", "start", "digits@1.0.0", "--slot", "digits", "--wait", *more)
        ask(agent_home, 200)
        time.sleep(5)
        return memory(process.pid)


def idle(samples: int, folder: Path) -> list[tuple[float, float]]:
    """RSS and PSS of agents that verified and downloaded a release and loaded nothing."""
    from tests.agent.test_resident_process import idle_agent
    from tests.simulators.service import fake_service

    found = []
    for index in range(samples):
        with fake_service() as service, idle_agent(folder / f"idle-{index}", service) as (_, _, pid):
            time.sleep(2)
            found.append(memory(pid))
    return found


def keep(run: Run, name: str, title: str, samples: Sequence[tuple[float, float]]) -> None:
    """Keep RSS and PSS as two figures."""
    run.add(f"agent-{name}-rss", f"agent, {title}: RSS", "MiB", [rss for rss, _ in samples])
    run.add(f"agent-{name}-pss", f"agent, {title}: PSS", "MiB", [pss for _, pss in samples])


def main(run: Run) -> None:
    """Measure the three states."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise Skipped("needs Linux's /proc/<pid>/smaps_rollup")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep(run, "idle", "idle after a verified release, no runtime", idle(run.repeats(5, 1), folder))
        if run.short:
            return
        home = prepare(folder)
        log = folder / "serve.log"
        with running(BIN / "edgekit", "fleet", "serve", "--home", home, "--port", "0", log=log):
            url = wait_for(log, "fleet service").split()[-1]
            for runtime, title in RUNTIMES.items():
                samples = [with_runtime(runtime, home, url, folder) for _ in range(run.repeats(5))]
                keep(run, runtime, f"digits int8 with {title}", samples)
