"""The whole line as real processes: service, broker and agents, started, killed and looked into.

Everything goes through the public command lines and HTTP; the databases are opened for reading only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgekit.errors import UnavailableError
from edgekit_fleet.broker.files import BrokerFiles
from edgekit_fleet.client import FleetClient
from edgekit_fleet.demo.calls import SLOT, Calls, Device, Kind, wait_inference_address, wait_service
from edgekit_fleet.demo.processes import Child, Children, program
from edgekit_fleet.demo.traffic import Samples
from edgekit_fleet.home import Home

T = TypeVar("T")
Json = dict[str, Any]
Seqs = Mapping[str, set[int]]
"""Boot id → sequence numbers."""

GATES = '{ type = "failures", limit = 0.5 }, { type = "probes", limit = 0.05 }'


def until(found: Callable[[], T], *, seconds: float, what: str, every: float = 0.05) -> T:
    """The first truthy result.

    Raises:
        AssertionError: none in time; says `what` was waited for and the last result.
    """
    end = time.monotonic() + seconds
    while True:
        result = found()
        if result:
            return result
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s; last {str(result)[:1500]}"
        time.sleep(every)


def free_port() -> int:
    """A loopback port that nobody listens on now, and that no outgoing connection gets as its local end."""
    while True:
        port = random.randrange(10_000, 20_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def plan(*, soak: float = 2.0, trial: float = 2.0, gates: str = GATES, early_stop: bool = True) -> str:
    """A plan of one ring that takes everybody."""
    early = "true" if early_stop else "false"
    return (
        f'trial_seconds = "{trial:g}s"\n[[ring]]\nname = "all"\nsoak = "{soak:g}s"\nearly_stop = {early}\n'
        f"gates = [{gates}]\n"
    )


class Line:
    """One fleet with its processes. Leaving the block ends them all."""

    def __init__(self, folder: Path, *, broker: str, tenant: str = "e2e") -> None:
        self.folder, self.broker, self.tenant = folder, broker, tenant
        self.children = Children(folder=folder / "logs")
        self.calls = Calls(children=self.children, folder=folder)
        self.port = free_port()
        self.service: Child | None = None
        self.devices: dict[str, Device] = {}
        self._plans = 0

    def __enter__(self) -> Line:
        self.children.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.children.stop()

    # -- the service -----------------------------------------------------------------------------

    def prepare(self, packages: Sequence[tuple[Path, str]], contract: Path) -> None:
        """Home, keys, signed releases, slot."""
        self.calls.prepare_fleet(self.tenant)
        for folder, ref in packages:
            self.calls.publish(folder, ref)
        self.calls.edgekit("slot", "create", SLOT, "--contract", contract)

    def adopt(self, home: Path) -> None:
        """Begin with a copy of a prepared home."""
        shutil.copytree(home, self.calls.home)

    def serve(self) -> None:
        """Start the service, on the same port every time, and wait until it answers."""
        self.service = self.calls.serve(self.broker, port=self.port)
        self.calls.url = wait_service(self.calls.home, self.service, 60)

    def kill_service(self) -> None:
        """kill -9 of the service; its broker goes with it."""
        assert self.service is not None
        self.service.kill()
        self.service.stop()
        self.children.running.remove(self.service)
        self.service = None

    def broker_pid(self) -> int:
        """Process id of the running broker."""
        return int(BrokerFiles(home=Home(path=self.calls.home)).pid.read_text())

    def kill_broker(self) -> None:
        """kill -9 of the broker; the service starts another."""
        old = self.broker_pid()
        os.kill(old, signal.SIGKILL)

    def client(self) -> FleetClient:
        """The service's API as an operator has it."""
        token = (self.calls.home / "operator.token").read_text().strip()
        return FleetClient(self.calls.url, token)

    def get(self, path: str) -> Json:
        """GET, waiting for a service that is away."""

        def tried() -> Json | None:
            with contextlib.suppress(UnavailableError), self.client() as client:
                return dict(client.get(path))
            return None

        found = until(tried, seconds=30, what=f"an answer to {path}")
        assert found is not None
        return found

    # -- devices ---------------------------------------------------------------------------------

    def enrol(self, kind: Kind, *, start: bool = True, extra: str = "", window: float = 1.0) -> Device:
        """Enrol a device with its own fixed inference port, and start its agent."""
        number = len(self.devices) + 1
        name = f"dev-{number:02d}"
        answer = self.calls.enrol_only(name, kind)
        home = self.calls.device_home(name)
        config = home / "agent.toml"
        text = config.read_text(encoding="utf-8")
        text = text.replace("seconds = 10.0", f"seconds = {window}\nresend_seconds = 3.0")
        text = text.replace("port = 0 ", f"port = {free_port()} ")
        config.write_text(text + extra, encoding="utf-8")
        device = Device(id=answer["device"], home=home, kind=kind, hardware=answer["hardware"], child=None)
        self.devices[device.id] = device
        if start:
            self.start_agent(device)
        return device

    def start_agent(self, device: Device, command: Sequence[str | Path] = ()) -> None:
        """Start (again) the agent of a device and wait until it listens."""
        (device.home / "state" / "http.json").unlink(missing_ok=True)
        words = command or (*program("edgekit-agent", "edgekit_agent.cli"), "run", "--home", device.home)
        device.child = self.children.start(f"agent-{device.id}", words)
        device.url = wait_inference_address(device, 60)

    def kill_agent(self, device: Device) -> None:
        """kill -9 of a device's agent."""
        assert device.child is not None
        device.child.kill()
        device.child.stop()
        self.children.running.remove(device.child)

    def stop_agent(self, device: Device) -> None:
        """Ask a device's agent to end."""
        assert device.child is not None
        assert device.child.stop(20) == 0, device.child.tail()
        self.children.running.remove(device.child)

    def device(self, device: Device) -> Json:
        """What the service knows of a device."""
        return self.get(f"/v1/devices/{device.id}")

    def serves(self, device: Device) -> str:
        """The release a device says it serves, empty for none."""
        slots = (self.device(device)["reported"] or {}).get("slots", {})
        return str(slots.get(SLOT, {}).get("release", ""))

    def identity(self, device: Device) -> Json:
        """A device's own credentials."""
        return dict(json.loads((device.home / "identity.json").read_text(encoding="utf-8")))

    # -- rollouts --------------------------------------------------------------------------------

    def start_rollout(self, ref: str, text: str) -> str:
        """Start a rollout; its id."""
        self._plans += 1
        path = self.folder / f"plan-{self._plans}.toml"
        path.write_text(text, encoding="utf-8")
        done = self.calls.edgekit("rollout", "start", ref, "--slot", SLOT, "--plan", path, "--json")
        return str(done.json()["id"])

    def rollout(self, name: str) -> Json:
        """A rollout's whole state."""
        return self.get(f"/v1/rollouts/{name}")

    def ended(self, name: str, *, seconds: float = 90) -> Json:
        """A rollout's state once nothing more happens by itself."""

        def over() -> Json | None:
            state = self.rollout(name)
            live = state["state"] in ("running", "rolling_back") or (
                state["state"] == "paused" and state["pause"] not in ("gate", "stalled")
            )
            return None if live else state

        found = until(over, seconds=seconds, what=f"the end of rollout {name}", every=0.2)
        assert found is not None
        return found

    def wait_step(self, name: str, steps: Sequence[str], *, seconds: float = 40) -> str:
        """Wait until a member of a rollout stands in one of `steps`; the step it was seen in."""

        def seen() -> str:
            members = [m for ring in self.rollout(name)["rings"] for m in ring["members"]]
            return next((m["step"] for m in members if m["step"] in steps), "")

        return until(seen, seconds=seconds, what=f"one of {', '.join(steps)} in {name}", every=0.02)

    # -- telemetry -------------------------------------------------------------------------------

    def stored(self, device: Device, record: str | None = None) -> list[Json]:
        """Telemetry of a device in the service's database, in order of boot and sequence number."""
        query = "SELECT boot_id, seq, record, body FROM telemetry WHERE device = ? ORDER BY boot_id, seq"
        with reading(self.calls.home / "fleet.db") as database:
            rows = database.execute(query, (device.id,)).fetchall()
        return [
            {"boot_id": boot, "seq": seq, **json.loads(body)}
            for boot, seq, kind, body in rows
            if record in (None, kind)
        ]

    def stored_seqs(self, device: Device) -> Seqs:
        """Sequence numbers in the service's database."""
        found: dict[str, set[int]] = defaultdict(set)
        for row in self.stored(device):
            found[row["boot_id"]].add(row["seq"])
        return found


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite file, for reading only, beside its living owner."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        yield database
    finally:
        database.close()


def outbox_seqs(device: Device) -> Seqs:
    """Sequence numbers that wait in a device's outbox."""
    found: dict[str, set[int]] = defaultdict(set)
    with reading(device.home / "state" / "outbox.db") as database:
        for boot, seq in database.execute("SELECT boot_id, seq FROM records"):
            found[boot].add(seq)
    return found


class OutboxWatch:
    """Looks into outboxes all the time, and remembers every record that ever was in one: what a service
    that acknowledged too much would have lost."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.seen: dict[str, dict[str, set[int]]] = {d.id: defaultdict(set) for d in devices}
        self.devices = list(devices)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> OutboxWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            for device in self.devices:
                with contextlib.suppress(sqlite3.OperationalError):
                    for boot, seqs in outbox_seqs(device).items():
                        self.seen[device.id][boot] |= seqs


def holes(seqs: Seqs) -> dict[str, list[int]]:
    """Sequence numbers missing below the highest, per boot; empty when there is none."""
    missing = {boot: sorted(set(range(max(found) + 1)) - found) for boot, found in seqs.items() if found}
    return {boot: lost for boot, lost in missing.items() if lost}


def _all_stored(line: Line, device: Device, wanted: Seqs) -> bool:
    stored = line.stored_seqs(device)
    return all(seqs <= stored.get(boot, set()) for boot, seqs in wanted.items())


def wait_stored(line: Line, watch: OutboxWatch) -> None:
    """Wait until all that was in an outbox until now is in the database: what a broker lost is sent again."""
    for device in watch.devices:
        wanted = {boot: set(seqs) for boot, seqs in dict(watch.seen[device.id]).items()}
        until(partial(_all_stored, line, device, wanted), seconds=30, what=f"telemetry of {device.id}")


def demand_nothing_lost(line: Line, watch: OutboxWatch) -> None:
    """Every record that ever was in an outbox is in the database, without a hole in the numbers. (What an
    agent sent as its last waits in its outbox for the acknowledgement, and is stored all the same.)"""
    wait_stored(line, watch)
    for device in watch.devices:
        assert holes(line.stored_seqs(device)) == {}


def field_samples(folder: Path) -> Samples:
    """The example's field data."""
    return Samples.load(folder / "field.npz", input_name="image", output="probabilities")
