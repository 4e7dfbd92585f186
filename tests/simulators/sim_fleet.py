"""A whole fleet in virtual time: the real ingest and reconciler over SQLite, simulated broker and devices."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.contract import Contract
from edgekit.digest import sha256_hex
from edgekit.documents import DeviceFacts, DeviceStep
from edgekit.package import (
    Distribution,
    File,
    Manifest,
    Reference,
    Requirements,
    Tensor,
    Variant,
    Verification,
    variant_digest,
)
from edgekit.select import variant_table
from edgekit.topics import service_subscriptions
from edgekit_fleet.context import Fleet, open_fleet
from edgekit_fleet.db.tables import DeviceRow, ProbeSetRow, ReleaseRow, SlotRow
from edgekit_fleet.events import EventBus
from edgekit_fleet.home import Home, create_home
from edgekit_fleet.rollout.reducers import Arrived, read_message
from edgekit_fleet.rollout_start import StartOrder, start
from edgekit_fleet.rollout_view import full
from edgekit_fleet.rollouts import get_rollout
from edgekit_fleet.service.ingest import Ingest
from edgekit_fleet.service.reconciler import Reconciler
from edgekit_fleet.trust.keys import make_keys
from tests.conftest import FrozenClock
from tests.simulators.sim_broker import Chaos, SimBroker, SimTransport
from tests.simulators.sim_device import Behaviour, Behaviours, SimDevice, always

HARDWARE = ("rpi4", "jetson-orin-nano", "x86-64-onnx")
SLOT = "digits"
SERVICE = "edgekit-service-acme"


def sim_facts(hardware: str, **labels: str) -> DeviceFacts:
    """Facts of a device of this hardware."""
    return DeviceFacts(
        machine="aarch64",
        agent="0.1.0",
        python="3.11",
        os="Linux",
        runtimes={"litert": "2.0.0"},
        profiles=(hardware,),
        labels=labels,
    )


def sim_manifest(version: str, hardware: tuple[str, ...] = HARDWARE, name: str = SLOT) -> Manifest:
    """A package with one variant for each hardware, with made-up bytes."""
    variants = []
    for profile in hardware:
        data = f"{name}@{version} for {profile}".encode()
        variant_id = f"{profile}-tflite-int8"
        files = (File(path=f"variants/{variant_id}/model.tflite", sha256=sha256_hex(data), bytes=len(data)),)
        variants.append(
            Variant(
                id=variant_id,
                digest=variant_digest(variant_id, files),
                profile=profile,
                target="tflite",
                precision="int8",
                files=files,
                requires=Requirements(runtime="litert"),
                inputs=(Tensor(name="image", dtype="float32", shape=(-1, 8, 8, 1)),),
                outputs=(Tensor(name="digit", dtype="float32", shape=(-1, 10)),),
                verification=Verification(method="executed", verdict="pass", n=100),
            )
        )
    return Manifest(
        name=name,
        version=version,
        source={"format": "keras"},
        contract=Contract.from_dict({"name": name, "version": version}).to_dict(),
        variants=tuple(variants),
        reference=Reference(outputs={"digit": Distribution(kind="classes", counts=(100,) * 10)}),
    )


@cache
def _template() -> Path:
    """A home with keys and tables, made once."""
    folder = Path(tempfile.mkdtemp(prefix="edgekit-sim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    home = create_home(folder / "home", tenant="acme")
    make_keys(home.keys)
    open_fleet(home).database.close()
    return home.path


@dataclass
class SimFleet:
    """`advance` lets virtual time pass; everything is deterministic for a seed."""

    folder: Path
    clock: FrozenClock = field(default_factory=FrozenClock)
    seed: int = 1
    behave: Behaviours = field(default_factory=lambda: always({}))
    devices: dict[str, SimDevice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.broker = SimBroker()
        self.home = Home(path=self.folder / "home")
        shutil.copytree(_template(), self.home.path)
        self.start_service()

    # -- the service -------------------------------------------------------------------------

    def start_service(self) -> None:
        """Start it (again): a new process over the same home."""
        self.transport: SimTransport = self.broker.transport(SERVICE)
        self.fleet: Fleet = open_fleet(self.home, clock=self.clock, transport=self.transport)
        self.events = EventBus()
        self.ingest = Ingest(self.fleet, self.events)
        self.reconciler = Reconciler(self.fleet, self.events)
        self.transport.on_connection(self.reconciler._connection)
        self.arrived: list[Arrived] = []
        self.transport.start(service_subscriptions("acme"), self._on_message)
        self.alive = True

    def kill_service(self) -> None:
        """kill -9: what was delivered and not stored is lost, the lease is not given back."""
        self.arrived.clear()
        self.transport.stop()
        self.fleet.database.close()
        self.alive = False

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        found = read_message("acme", topic, payload)
        if isinstance(found, str):
            self.ingest.dropped.add(found)
        else:
            self.arrived.append(found)

    def service_step(self) -> None:
        """Store what arrived, then move rollouts."""
        if not self.alive:
            return
        for begin in range(0, len(self.arrived), 500):
            self.ingest.store(self.arrived[begin : begin + 500])
        self.arrived.clear()
        self.reconciler.tick()

    # -- the world ---------------------------------------------------------------------------

    def add_devices(self, count: int, *, hardware: tuple[str, ...] = HARDWARE, online: bool = True) -> None:
        """Enrol devices, spread over the hardwares."""
        first = len(self.devices)
        names = [f"d-{first + i:04d}" for i in range(count)]
        with self.fleet.database.write() as session:
            for index, name in enumerate(names):
                facts = sim_facts(hardware[index % len(hardware)], shop=str(index // 5))
                session.add(
                    DeviceRow(
                        id=name,
                        hardware=facts.hardware,
                        facts=facts.to_dict(),
                        labels=dict(facts.labels),
                        enrolled=self.clock.now(),
                        pins={},
                        public_key=sha256_hex(name.encode()),
                        password="-",
                    )
                )
                self.devices[name] = SimDevice(
                    device=name,
                    tenant="acme",
                    facts=facts,
                    broker=self.broker,
                    behave=lambda device, release: self.behave(device, release),
                    random=random.Random(f"{self.seed}|{name}"),
                    step_seconds=1.0,
                    step_at=0.0,
                    window_at=self.clock.now() + self.random.uniform(0, 5),
                )
        if online:
            for name in names:
                self.devices[name].connect(self.clock.now())

    def add_slot(self, *, truth: str | None = "observe", min_accuracy: float = 0.9) -> None:
        """Create the slot, with a ground-truth probe set unless `truth` is None."""
        with self.fleet.database.write() as session:
            session.add(SlotRow(name=SLOT, contract={}, created=self.clock.now()))
            session.flush()
            if truth is not None:
                session.add(
                    ProbeSetRow(
                        slot=SLOT,
                        n=1,
                        target=f"probes/{SLOT}/1.npz",
                        sha256="c" * 64,
                        size=4096,
                        items=200,
                        min_accuracy=min_accuracy,
                        policy=truth,
                        created=self.clock.now(),
                    )
                )

    def add_release(self, version: str, *, state: str = "signed", manifest: Manifest | None = None) -> str:
        """Publish a release; returns its ref."""
        manifest = manifest or sim_manifest(version)
        self.fleet.store.put_bytes(manifest.to_bytes())
        with self.fleet.database.write() as session:
            session.add(
                ReleaseRow(
                    ref=manifest.ref,
                    revision=1,
                    name=manifest.name,
                    version=version,
                    digest=manifest.digest,
                    state=state,
                    table=[entry.to_dict() for entry in variant_table(manifest)],
                    size=1,
                    added=self.clock.now(),
                )
            )
        return manifest.ref

    def start(self, release: str, plan: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Start a rollout; returns its id."""
        with self.fleet.database.write() as session:
            order = StartOrder(release=release, slot=SLOT, plan=plan, **options)
            return start(self.fleet, session, order, actor="test").id

    def state(self, rollout: str) -> dict[str, Any]:
        """The rollout's whole JSON."""
        with self.fleet.database.read() as session:
            return full(session, get_rollout(session, rollout))

    def advance(self, seconds: float, *, step: float = 1.0) -> None:
        """Let time pass in steps."""
        for _ in range(max(1, round(seconds / step))):
            self.clock.advance(step)
            for device in self.devices.values():
                device.tick(self.clock.now())
            self.broker.pump()
            self.service_step()
            self.broker.pump()

    def until(
        self, rollout: str, done: Callable[[dict[str, Any]], bool], *, limit: float = 3000
    ) -> dict[str, Any]:
        """Let time pass until the rollout's state is as wanted."""
        end = self.clock.now() + limit
        while self.clock.now() < end:
            state = self.state(rollout)
            if done(state):
                return state
            self.advance(1.0)
        state = self.state(rollout)
        raise AssertionError(f"after {limit:g} s it is {state['state']}: {state['reason']} {state['counts']}")

    def until_state(self, rollout: str, *states: str, limit: float = 3000) -> dict[str, Any]:
        """Let time pass until the rollout is in one of these states."""
        return self.until(rollout, lambda s: s["state"] in states, limit=limit)

    def running(self) -> dict[str, int]:
        """How many devices truly run which release."""
        counts: dict[str, int] = {}
        for device in self.devices.values():
            state = device.active.get(SLOT)
            name = state.release if state else "-"
            counts[name] = counts.get(name, 0) + 1
        return counts


__all__ = ["SLOT", "Behaviour", "Chaos", "DeviceStep", "SimFleet", "always", "sim_facts", "sim_manifest"]
