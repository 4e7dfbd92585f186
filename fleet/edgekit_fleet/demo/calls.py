"""Every command the demo calls, as a user would type it, and what it reads from the answers."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from edgekit.errors import OperationTimeout, UnavailableError
from edgekit_fleet.demo.processes import Child, Children, CommandError, Done, program

SLOT = "digits"
_STEP = 120.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of device: what its owner lets it use, and the profile and precision that must follow."""

    name: str
    runtime: str
    precision: str
    profile: str


def kinds(machine: str | None = None) -> tuple[Kind, ...]:
    """The three kinds of this host's architecture; none is pretended.

    Raises:
        UnavailableError: neither x86-64 nor 64-bit ARM.
    """
    found = (machine or platform.machine()).lower()
    architecture = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64", "arm64": "arm64"}.get(found)
    if architecture is None:
        raise UnavailableError(
            f"the demo runs on x86-64 and 64-bit ARM, not on {found}", remedy="run it on such a computer"
        )
    return tuple(
        Kind(
            name=f"{runtime} {precision}",
            runtime=runtime,
            precision=precision,
            profile=f"{architecture}-{short}",
        )
        for runtime, short, precision in (
            ("litert", "litert", "int8"),
            ("onnxruntime", "onnx", "fp32"),
            ("onnxruntime", "onnx", "int8"),
        )
    )


@dataclass(kw_only=True)
class Device:
    """One of the demo's devices: a real agent in a home of its own."""

    id: str
    home: Path
    kind: Kind
    hardware: str
    child: Child | None = None
    url: str = ""


@dataclass(kw_only=True)
class Calls:
    """The command lines, all against one fleet home, through the service once its `url` is known."""

    children: Children
    folder: Path
    url: str = ""

    @property
    def home(self) -> Path:
        """The fleet's home."""
        return self.folder / "fleet"

    def edgekit(
        self, *words: str | Path, seconds: float = _STEP, expect: Sequence[int] | None = (0,)
    ) -> Done:
        """Run ``edgekit …``; fleet home and service are named by the environment, as a user may."""
        command = (*program("edgekit", "edgekit"), *words)
        environment = {"EDGEKIT_HOME": str(self.home)} | ({"EDGEKIT_URL": self.url} if self.url else {})
        return self.children.run(command, seconds=seconds, expect=expect, environment=environment)

    def train(self, script: Path, out: Path, *, version: str, inverted: bool, epochs: int) -> Child:
        """Begin to train one model."""
        words = ["--out", str(out), "--version", version, "--epochs", str(epochs)]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        flags = ["--inverted"] if inverted else []
        return self.children.start(
            f"train-{version}", [sys.executable, str(script), *words, *flags], environment=quiet
        )

    def convert(
        self, folder: Path, *, version: str, chosen: Sequence[Kind], source: str = "model.keras"
    ) -> Child:
        """Begin to convert one model for the devices of this host."""
        profiles = [word for name in dict.fromkeys(k.profile for k in chosen) for word in ("--profile", name)]
        precisions = [
            word for name in dict.fromkeys(k.precision for k in chosen) for word in ("--precision", name)
        ]
        command = (*program("edgekit", "edgekit"), "convert", str(folder / source))
        return self.children.start(
            f"convert-{version}", [*command, *profiles, *precisions, "--out", str(folder / "package")]
        )

    def prepare_fleet(self, tenant: str = "demo") -> None:
        """Home and keys."""
        self.edgekit("fleet", "init", "--no-keys", "--tenant", tenant)
        self.edgekit("key", "init")

    def publish(self, package: Path, ref: str) -> None:
        """Add and sign a release."""
        self.edgekit("release", "add", package)
        self.edgekit("release", "sign", ref)

    def serve(self, broker: str | None = None, *, port: int = 0) -> Child:
        """Start the service on a loopback port, 0 for a free one."""
        command = [
            *program("edgekit", "edgekit"),
            "fleet",
            "serve",
            "--home",
            str(self.home),
            "--port",
            str(port),
        ]
        return self.children.start("fleet-serve", command + (["--broker", broker] if broker else []))

    def probes(self, file: Path, *, policy: str, min_accuracy: float) -> None:
        """Give the slot labelled samples that every device must get right."""
        words = ("--min-accuracy", str(min_accuracy), "--policy", policy)
        self.edgekit("slot", "probes", "add", SLOT, file, *words)

    def device_home(self, name: str) -> Path:
        """Home of a device's agent."""
        return self.folder / "devices" / name

    def enrol_only(self, name: str, kind: Kind) -> dict[str, Any]:
        """Enrol one device; what ``edgekit-agent enrol --json`` says."""
        token = str(self.edgekit("device", "token", "--name", name, "--json").json()["token"])
        wishes = ("--runtime", kind.runtime, "--precision", kind.precision)
        agent = program("edgekit-agent", "edgekit_agent.cli")
        command = (*agent, "enrol", "--url", self.url, "--token", token, "--name", name, *wishes)
        return self.children.run((*command, "--home", self.device_home(name), "--json"), seconds=_STEP).json()

    def enrol(self, number: int, kind: Kind) -> Device:
        """Enrol one device and start its agent."""
        name = f"dev-{number:02d}"
        answer, home = self.enrol_only(name, kind), self.device_home(name)
        config = home / "agent.toml"
        text = config.read_text(encoding="utf-8").replace("seconds = 10.0", "seconds = 2.0")
        config.write_text(text, encoding="utf-8")
        agent = program("edgekit-agent", "edgekit_agent.cli")
        child = self.children.start(f"agent-{name}", (*agent, "run", "--home", str(home)))
        return Device(
            id=str(answer["device"]), home=home, kind=kind, hardware=str(answer["hardware"]), child=child
        )

    def start_rollout(self, ref: str, plan: Path, *, seconds: float) -> tuple[dict[str, Any], Done]:
        """Roll a release out and wait for its end; the exit code says how it went (0 good, 3 a gate)."""
        done = self.edgekit(
            "rollout", "start", ref, "--slot", SLOT, "--plan", plan, "--wait", "--json",
            seconds=seconds, expect=(0, 3),
        )  # fmt: skip
        return done.json(), done

    def serving(self) -> Mapping[str, str]:
        """Device → release it says it serves."""
        return {device: str(state.get("release", "")) for device, state in self.slots().items()}

    def slots(self) -> Mapping[str, Mapping[str, Any]]:
        """Device → what it says of its slot, empty where nothing runs."""
        listed = self.edgekit("device", "list", "--json").json()["devices"]
        return {item["id"]: (item["reported"] or {}).get("slots", {}).get(SLOT, {}) for item in listed}


def wait_child(child: Child, seconds: float) -> None:
    """Wait for a child that ends by itself.

    Raises:
        CommandError: it failed.
        OperationTimeout: it goes on.
    """
    end = time.monotonic() + seconds
    while child.alive:
        if time.monotonic() > end:
            raise OperationTimeout(f"not finished after {seconds:g} s", where=child.name)
        time.sleep(0.1)
    if child.process.returncode != 0:
        raise CommandError(f"exit code {child.process.returncode}: {child.tail(1500)}", where=child.name)


def wait_service(home: Path, child: Child, seconds: float) -> str:
    """Address of the service once it answers.

    Raises:
        CommandError: it ended.
        OperationTimeout: it does not answer.
    """
    from edgekit_fleet.home import Home

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not child.alive:
            raise CommandError(f"ended at once: {child.tail(1500)}", where=child.name)
        facts = Home(path=home).running_service()
        if facts and _answers(str(facts["url"])):
            return str(facts["url"])
        time.sleep(0.1)
    raise OperationTimeout(f"no answer after {seconds:g} s: {child.tail(800)}", where=child.name)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/", timeout=2, trust_env=False).status_code < 500
    except httpx.TransportError:
        return False


def wait_inference_address(device: Device, seconds: float) -> str:
    """Address of a device's inference server once it is written.

    Raises:
        CommandError: its agent ended.
        OperationTimeout: it does not appear.
    """
    import json

    end, place = time.monotonic() + seconds, device.home / "state" / "http.json"
    child = device.child
    while time.monotonic() < end:
        if child is None or not child.alive:
            raise CommandError(f"ended: {child.tail(1500) if child else 'never started'}", where=device.id)
        if place.exists():
            return str(json.loads(place.read_text(encoding="utf-8"))["url"])
        time.sleep(0.1)
    raise OperationTimeout(
        f"no address after {seconds:g} s: {child.tail(800) if child else ''}", where=device.id
    )
