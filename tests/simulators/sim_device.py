"""A device as the service sees it: documents in, documents out, in virtual time.

It follows DESIGN's swap order, keeps an outbox until the service acknowledges, and misbehaves as its
`Behaviour` says. It checks no signatures: the real agent's tests do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgekit.documents import (
    Ack,
    Desired,
    DeviceFacts,
    DeviceStep,
    Envelope,
    Event,
    Presence,
    ProbePolicy,
    ProbeReport,
    Reason,
    Reported,
    SlotDesire,
    SlotState,
    Window,
)
from edgekit.sketches import Bins, LatencyRecorder
from edgekit.topics import device_subscriptions, device_topic
from tests.simulators.sim_broker import SimBroker

STEPS = (
    DeviceStep.ACCEPTED,
    DeviceStep.DOWNLOADING,
    DeviceStep.VERIFYING,
    DeviceStep.PREPARING,
    DeviceStep.PROBING,
    DeviceStep.TRIAL,
    DeviceStep.COMMITTED,
)


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What a release does on a device. `fails` is (step, final step, reason); `stuck` a step it never
    leaves; `accuracy` of its ground-truth probes; `latency_ms` and `mix` (class shares) while serving."""

    fails: tuple[DeviceStep, DeviceStep, Reason] | None = None
    stuck: DeviceStep | None = None
    accuracy: float = 0.97
    latency_ms: float = 2.0
    mix: tuple[float, ...] = (0.1,) * 10
    model_errors: int = 0


Behaviours = Callable[[str, str], Behaviour]
"""(device, release) → behaviour."""


@dataclass
class SimDevice:
    """One device. `step_seconds` is how long each step takes, `window` how often it reports counters."""

    device: str
    tenant: str
    facts: DeviceFacts
    broker: SimBroker
    behave: Behaviours
    random: random.Random
    boot: int = 1
    step_seconds: float = 1.0
    window: float = 5.0
    probe_items: int = 200
    requests: int = 60
    online: bool = False
    session: int = 0
    seq: int = 0
    tm_seq: int = 0
    gen: int = 0
    desired: Desired | None = None
    step: DeviceStep = DeviceStep.IDLE
    step_at: float = 0.0
    window_at: float = 0.0
    reason: Reason | None = None
    active: dict[str, SlotState] = field(default_factory=dict)
    previous: dict[str, SlotState] = field(default_factory=dict)
    outbox: dict[int, Window | ProbeReport] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transport = self.broker.transport(self.device)

    @property
    def boot_id(self) -> str:
        """Sortable name of this boot."""
        return f"{self.boot:08d}-sim"

    def connect(self, now: float) -> None:
        """Go online: birth, facts, the whole truth, what is left in the outbox."""
        if not self.broker.up:
            return
        self.online = True
        self.session += 1
        self.transport.start(device_subscriptions(self.tenant, self.device), self._receive)
        self._presence("online", now)
        self._publish("profile", self.facts.to_bytes(), retain=True)
        self._report(now)
        for seq in sorted(self.outbox):
            self._send(self.outbox[seq])

    def lose(self, now: float) -> None:
        """The connection drops; the broker sends the will."""
        self._presence("lost", now)
        self.transport.stop()
        self.online = False

    def _presence(self, state: str, now: float) -> None:
        document = Presence(
            state=state, session=self.session, boot_id=self.boot_id, agent=self.facts.agent, at=now
        )
        self._publish("presence", document.to_bytes(), retain=True)

    def _publish(self, leaf: str, payload: bytes, *, retain: bool, slot: str | None = None) -> None:
        self.transport.publish(device_topic(self.tenant, self.device, leaf, slot), payload, retain=retain)

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic.endswith("/ack"):
            ack = Ack.parse(payload)
            if ack.boot_id == self.boot_id:
                self.outbox = {
                    seq: item for seq, item in self.outbox.items() if seq > ack.seq and seq not in ack.also
                }
            return
        desired = Desired.from_dict(Envelope.parse(payload).signed)
        if desired.gen > self.gen:
            self.gen, self.desired = desired.gen, desired
            self.step, self.step_at = DeviceStep.IDLE, -1.0

    def tick(self, now: float) -> None:
        """Let time pass until `now`."""
        if not self.online:
            return
        if self.desired is not None and not self.step.terminal and now >= self.step_at:
            self._advance(now)
        if now >= self.window_at:
            self.window_at = now + self.window
            self._windows(now)

    def _advance(self, now: float) -> None:
        assert self.desired is not None
        wanted = self._wanted()
        if wanted is None:
            self._finish(DeviceStep.CURRENT, None, now)
            return
        slot, desire = wanted
        if desire is None:
            self.active.pop(slot, None)
            self._finish(DeviceStep.COMMITTED, None, now)
            return
        behaviour = self.behave(self.device, desire.release)
        if self.step is behaviour.stuck:
            return
        self.step = STEPS[STEPS.index(self.step) + 1] if self.step in STEPS else STEPS[0]
        self.step_at = now + self.step_seconds
        if behaviour.fails and behaviour.fails[0] is self.step:
            self._finish(behaviour.fails[1], behaviour.fails[2], now)
            self._take_back(slot, behaviour.fails[1])
            return
        if self.step is DeviceStep.PROBING and self._probe(slot, desire, behaviour, now):
            reason = Reason(code="truth_probe_missed", text=f"accuracy {behaviour.accuracy:.2f}")
            self._finish(DeviceStep.REVERTED, reason, now)
            return
        if self.step is DeviceStep.TRIAL:
            self._activate(slot, desire, now)
        if self.step is DeviceStep.COMMITTED:
            self._finish(DeviceStep.COMMITTED, None, now)
        else:
            self._report(now)

    def _wanted(self) -> tuple[str, SlotDesire | None] | None:
        assert self.desired is not None
        for slot, desire in self.desired.slots.items():
            running = self.active.get(slot)
            if running is None or running.digest != desire.digest or self.step not in (DeviceStep.IDLE,):
                return slot, desire
        gone = next((slot for slot in self.active if slot not in self.desired.slots), None)
        return (gone, None) if gone else None

    def _activate(self, slot: str, desire: SlotDesire, now: float) -> None:
        if slot in self.active:
            self.previous[slot] = self.active[slot]
        self.installed.append(desire.release)
        self.active[slot] = SlotState(
            release=desire.release,
            variant=desire.variant,
            digest=desire.digest,
            package=desire.package,
            runtime="litert 2.0.0",
            backend="xnnpack",
            since=now,
        )

    def _take_back(self, slot: str, step: DeviceStep) -> None:
        if step is DeviceStep.REVERTED and slot in self.active:
            earlier = self.previous.get(slot)
            if earlier is None:
                self.active.pop(slot)
            else:
                self.active[slot] = earlier

    def _finish(self, step: DeviceStep, reason: Reason | None, now: float) -> None:
        self.step, self.reason = step, reason
        self._report(now)

    def _report(self, now: float) -> None:
        self.seq += 1
        deployment = self.desired.deployment if self.desired else ""
        document = Reported(
            boot_id=self.boot_id,
            seq=self.seq,
            gen=self.gen,
            deployment=deployment,
            attempt=self.desired.attempt if self.desired else 0,
            step=self.step,
            at=now,
            slots=dict(self.active),
            reason=self.reason if self.step.terminal else None,
        )
        self._publish("reported", document.to_bytes(), retain=True)
        event = Event(boot_id=self.boot_id, seq=self.seq, at=now, deployment=deployment, step=self.step)
        self._publish("ev", event.to_bytes(), retain=False)

    def _probe(self, slot: str, desire: SlotDesire, behaviour: Behaviour, now: float) -> bool:
        """Run the ground-truth probes; whether the release must not serve."""
        if desire.truth is None:
            return False
        right = _bits(behaviour.accuracy, self.probe_items)
        running = self.active.get(slot)
        baseline = (
            _bits(self.behave(self.device, running.release).accuracy, self.probe_items) if running else None
        )
        passed = right.count("1") / len(right) >= desire.truth.min_accuracy
        report = ProbeReport(
            **self._head(slot, desire.release, desire.variant, desire.digest, now),
            probe="truth",
            target=desire.truth.target,
            n=len(right),
            right=right,
            baseline=baseline,
            baseline_digest=running.digest if running else None,
            limit=desire.truth.min_accuracy,
            passed=passed,
            policy=desire.truth.policy,
        )
        self._keep(report)
        return not passed and desire.truth.policy is ProbePolicy.ENFORCE

    def _windows(self, now: float) -> None:
        for slot, state in self.active.items():
            behaviour = self.behave(self.device, state.release)
            latency = LatencyRecorder()
            for _ in range(self.requests):
                latency.record(behaviour.latency_ms * self.random.lognormvariate(0, 0.1))
            picks = self.random.choices(range(len(behaviour.mix)), behaviour.mix, k=self.requests)
            window = Window(
                **self._head(slot, state.release, state.variant, state.digest, now),
                seconds=self.window,
                requests=self.requests,
                errors={"model:run": behaviour.model_errors} if behaviour.model_errors else {},
                latency={"total": latency.snapshot()},
                predictions={"digit": Bins(counts=tuple(picks.count(i) for i in range(len(behaviour.mix))))},
            )
            self._keep(window)

    def _head(self, slot: str, release: str, variant: str, digest: str, now: float) -> dict[str, Any]:
        seq, self.tm_seq = self.tm_seq, self.tm_seq + 1
        return {
            "slot": slot,
            "boot_id": self.boot_id,
            "seq": seq,
            "oldest": min([*self.outbox, seq]),
            "release": release,
            "variant": variant,
            "digest": digest,
            "deployment": self.desired.deployment if self.desired else "",
            "at": now,
        }

    def _keep(self, document: Window | ProbeReport) -> None:
        self.outbox[document.seq] = document
        self.sent.append(document.seq)
        self._send(document)

    def _send(self, document: Window | ProbeReport) -> None:
        document = replace(document, oldest=min(self.outbox))
        self._publish("tm", document.to_bytes(), retain=False, slot=document.slot)


def _bits(accuracy: float, n: int) -> str:
    right = round(accuracy * n)
    return "1" * right + "0" * (n - right)


def always(behaviours: Mapping[str, Behaviour]) -> Behaviours:
    """Behaviour by release alone; unknown releases are fine."""
    fine = Behaviour()
    return lambda _device, release: behaviours.get(release, fine)
