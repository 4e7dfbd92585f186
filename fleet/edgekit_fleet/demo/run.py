"""The demo from beginning to end. The order of the acts is here; what is asserted is in `claims`."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError, UnavailableError
from edgekit_fleet.demo import claims, plans
from edgekit_fleet.demo.calls import (
    SLOT,
    Calls,
    Device,
    Kind,
    kinds,
    wait_child,
    wait_inference_address,
    wait_service,
)
from edgekit_fleet.demo.claims import Act, Claim
from edgekit_fleet.demo.examples import train_script
from edgekit_fleet.demo.processes import Children
from edgekit_fleet.demo.story import Story
from edgekit_fleet.demo.traffic import Answer, Samples, Traffic, tally

V1, V2 = "digits@1.0.0", "digits@2.0.0"
MIN_ACCURACY = 0.8
_NEEDED = {
    "edgekit_converters": "edgekit-converters",
    "edgekit_agent": "edgekit-agent",
    "tensorflow": "tensorflow-cpu",
    "sklearn": "scikit-learn",
    "ai_edge_litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller chose. `rate` is requests a second to each device."""

    devices: int = 12
    fast: bool = False
    broker: str | None = None
    rate: float = 8.0

    @property
    def epochs(self) -> int:
        """Training epochs."""
        return 8 if self.fast else 16

    @property
    def first_soak(self) -> float:
        """Seconds each ring of v1 is watched."""
        return 4.0 if self.fast else 6.0

    @property
    def second_soak(self) -> float:
        """Seconds the canaries of v2 are watched: enough answers for the distribution gate."""
        return 10.0 if self.fast else 14.0


@dataclass(kw_only=True)
class Result:
    """All that was measured."""

    acts: list[Act] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    timings: list[tuple[str, float]] = field(default_factory=list)
    devices: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @property
    def met(self) -> bool:
        """Whether all that was claimed held, and something was."""
        return bool(self.claims) and claims.all_met(self.claims)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "schema": 1,
            "ok": self.met,
            "url": self.url,
            "claims": [claim.to_dict() for claim in self.claims],
            "rollouts": [act.to_dict() for act in self.acts],
            "devices": self.devices,
            "timings": [{"stage": name, "seconds": round(seconds, 2)} for name, seconds in self.timings],
            "seconds": round(sum(seconds for _, seconds in self.timings), 2),
        }


def demand_everything() -> None:
    """Check that all four distributions and what the demo trains with are installed.

    Raises:
        UnavailableError: something is missing; names all of it.
    """
    missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UnavailableError(
            f"the demo needs {', '.join(missing)}",
            remedy=f"pip install {' '.join(missing)}",
            code="missing_packages",
        )


class Demo:
    """One run. `play` goes through the acts; the caller ends `children`."""

    def __init__(self, options: Options, folder: Path, story: Story, children: Children) -> None:
        self._options, self._folder, self._story = options, folder, story
        self._calls = Calls(children=children, folder=folder)
        self._kinds = kinds()
        self._devices: list[Device] = []
        self._traffic: Traffic | None = None
        self.result = Result()

    def play(self) -> None:
        """All acts.

        Raises:
            EdgekitError: something of the line itself failed.
        """
        self._stage("train and convert", self._build)
        self._stage("sign and serve", self._open)
        self._stage("enrol", self._enrol)
        self._stage("roll out v1", self._first)
        self._stage("v2, probes enforce", self._enforced)
        self._stage("v2, probes observe", self._observed)
        self._close()

    def stop_traffic(self) -> None:
        """End the traffic; safe at any time."""
        if self._traffic is not None:
            self._traffic.stop()

    def _stage(self, name: str, act: Callable[[], None]) -> None:
        began = time.monotonic()
        act()
        self.result.timings.append((name, time.monotonic() - began))

    def _build(self) -> None:
        story, script = self._story, train_script()
        story.act("One model, one bad twin: train and compile")
        folders = {"1.0.0": self._folder / "v1", "2.0.0": self._folder / "v2"}
        story.say(f"training v1 on real handwritten digits, v2 on inverted ones: {script}")
        both = [
            self._calls.train(
                script, out, version=version, inverted=version == "2.0.0", epochs=self._options.epochs
            )
            for version, out in folders.items()
        ]
        for child in both:
            wait_child(child, 300)
            story.say(child.tail().strip().rpartition("\n")[2])
        wanted = ", ".join(kind.name for kind in self._kinds)
        story.say(f"edgekit convert, for {wanted} on this machine")
        both = [
            self._calls.convert(out, version=version, chosen=self._kinds) for version, out in folders.items()
        ]
        for child in both:
            wait_child(child, 300)
            story.say(f"{child.name}: every variant passed its verification")

    def _open(self) -> None:
        story = self._story
        story.act("Sign it, and open a fleet")
        self._calls.prepare_fleet()
        self._calls.publish(self._folder / "v1" / "package", V1)
        self._calls.publish(self._folder / "v2" / "package", V2)
        story.say(f"{V1} and {V2} are signed; v2 looks as good as v1 to every check its author has")
        child = self._calls.serve(self._options.broker)
        self.result.url = self._calls.url = wait_service(self._calls.home, child, 60)
        self._calls.edgekit("slot", "create", SLOT, "--contract", self._folder / "v1" / "model.toml")
        self._calls.probes(self._folder / "v1" / "probes.npz", policy="enforce", min_accuracy=MIN_ACCURACY)
        story.say(
            f"slot {SLOT} has 60 labelled ground-truth probes, policy enforce, at least {MIN_ACCURACY:.0%}"
        )
        story.page(self.result.url)

    def _enrol(self) -> None:
        story = self._story
        story.act(f"{self._options.devices} devices, each a real agent")
        samples = Samples.load(self._folder / "v1" / "field.npz", input_name="image", output="probabilities")
        self._traffic = Traffic(samples, slot=SLOT, rate=self._options.rate)
        for number in range(1, self._options.devices + 1):
            kind = self._kind_of(number)
            device = self._calls.enrol(number, kind)
            self._devices.append(device)
            story.say(f"{device.id} enrolled as {device.hardware}: {kind.name}")
        for device in self._devices:
            device.url = wait_inference_address(device, 60)
            self._traffic.add(device.id, device.url)
        story.say(f"real digits go to every device once it is ready, {self._options.rate:g} a second each")

    def _kind_of(self, number: int) -> Kind:
        return self._kinds[(number - 1) * len(self._kinds) // self._options.devices]

    def _first(self) -> None:
        self._story.act(f"Roll out {V1} in rings")
        act = self._rollout("v1 to everybody", V1, plans.first_plan(self._options.first_soak))
        self._conclude(act, claims.good_release(act, self._options.devices))

    def _enforced(self) -> None:
        self._story.act(f"Roll out {V2}: probes on enforce")
        act = self._rollout("v2 with probes on enforce", V2, plans.second_plan(self._options.second_soak))
        self._conclude(act, claims.stopped_before_serving(act, V1, self._options.devices))

    def _observed(self) -> None:
        self._story.act(f"Roll out {V2} again: probes only observe")
        self._calls.probes(self._folder / "v1" / "probes.npz", policy="observe", min_accuracy=MIN_ACCURACY)
        act = self._rollout("v2 with probes on observe", V2, plans.second_plan(self._options.second_soak))
        self._conclude(act, claims.stopped_after_serving(act, V1, self._options.devices))

    def _rollout(self, title: str, ref: str, plan: str) -> Act:
        assert self._traffic is not None
        path = self._folder / f"plan-{len(self.result.acts) + 1}.toml"
        path.write_text(plan, encoding="utf-8")
        if len(self.result.acts) < 2:
            self._story.plan(plan)
        began = time.time()
        document, done = self._calls.start_rollout(ref, path, seconds=240)
        settled = time.time()
        serving = self._settle(V1)
        answers = self._traffic.answers(since=began)
        act = act_of(title, document, done.code, settled - began, serving, answers)
        self.result.acts.append(act)
        self._story.outcome(act)
        return act

    def _settle(self, release: str) -> Mapping[str, str]:
        """What devices serve once all that go back have, at most 20 s later; then a little more traffic."""
        end = time.monotonic() + 20
        serving = self._calls.serving()
        while time.monotonic() < end and set(serving.values()) != {release}:
            time.sleep(0.5)
            serving = self._calls.serving()
        time.sleep(1.0)
        return serving

    def _conclude(self, act: Act, found: Sequence[Claim]) -> None:
        del act
        self.result.claims += found
        self._story.claims(found)

    def _close(self) -> None:
        assert self._traffic is not None
        self._traffic.stop()
        answers, states = self._traffic.answers(), self._calls.slots()
        self.result.devices = [
            _device_row(device, states.get(device.id, {}), answers) for device in self._devices
        ]
        self._story.act("All of it")
        self._story.devices([_printed(row) for row in self.result.devices])
        self._story.timings(self.result.timings)


def act_of(
    title: str,
    document: Mapping[str, Any],
    code: int,
    seconds: float,
    serving: Mapping[str, str],
    answers: Sequence[Answer],
) -> Act:
    """An act from what ``rollout start --wait --json`` answered and from the traffic log."""
    rings = [
        {
            "name": ring["name"],
            "state": ring["state"],
            "devices": sorted(member["device"] for member in ring["members"]) if ring["opened"] else [],
        }
        for ring in document["rings"]
    ]
    judged = [ring for ring in document["rings"] if ring["gates"]]
    gates = judged[-1]["gates"] if judged else []
    return Act(
        title=title,
        rollout=document["id"],
        release=document["release"],
        state=document["state"],
        reason=document["reason"],
        exit_code=code,
        seconds=round(seconds, 2),
        verdicts={gate["gate"]: gate["verdict"] for gate in gates},
        why={gate["gate"]: gate["why"] for gate in gates},
        serving=dict(serving),
        traffic=tally(answers),
        rings=rings,
    )


def _device_row(device: Device, state: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    own = tally(answer for answer in answers if answer.device == device.id)
    accuracy = own.accuracy(V1)
    return {
        "device": device.id,
        "hardware": device.hardware,
        "variant": state.get("variant", ""),
        "runtime": state.get("runtime", ""),
        "backend": state.get("backend", ""),
        "requests": own.sent,
        "dropped": own.dropped,
        "accuracy_v1": None if accuracy is None else round(accuracy, 4),
        "answers": dict(own.per_release),
        "p50_ms": own.p50,
        "p99_ms": own.p99,
    }


def _printed(row: Mapping[str, Any]) -> list[str]:
    accuracy = row["accuracy_v1"]
    return [
        row["device"],
        row["variant"],
        row["runtime"].partition(" ")[0],
        str(row["requests"]),
        str(row["dropped"]),
        "–" if accuracy is None else f"{accuracy:.1%}",
        f"{row['p99_ms']:.0f} ms",
    ]


__all__ = ["Demo", "EdgekitError", "Options", "Result", "demand_everything"]
