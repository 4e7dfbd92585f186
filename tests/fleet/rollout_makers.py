"""Builders of gate evidence, plans and members that the rollout tests share."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.documents import DeviceFacts, ProbeReport
from edgekit.sketches import LatencyRecorder
from edgekit_fleet.rollout.gates import Aggregate, Arm, DeviceEvidence, Evidence, GateSpec
from edgekit_fleet.rollout.rings import Candidate

NOTHING = Aggregate()
CANDIDATE_DIGEST = "sha256:" + "c" * 64
INCUMBENT_DIGEST = "sha256:" + "1" * 64


def spec(kind: str, limit: float, **options: object) -> GateSpec:
    """A gate with its default confidence of 95 %."""
    return GateSpec(type=kind, limit=limit, options=options)


def timed(milliseconds: float, requests: int = 100) -> Aggregate:
    """Windows whose every request took this long."""
    recorder = LatencyRecorder()
    for _ in range(requests):
        recorder.record(milliseconds)
    return Aggregate(windows=1, requests=requests, latency={"total": recorder.snapshot()})


def answered(counts: Sequence[int]) -> Aggregate:
    """Windows with these predicted classes of one output."""
    return Aggregate(windows=1, requests=sum(counts), predictions={"digit": tuple(counts)})


def good(
    device: str,
    *,
    hardware: str = "rpi4",
    candidate: Aggregate = NOTHING,
    incumbent: Aggregate = NOTHING,
    truth: ProbeReport | None = None,
) -> DeviceEvidence:
    """A canary that committed."""
    return DeviceEvidence(
        device=device, hardware=hardware, good=True, candidate=candidate, incumbent=incumbent, truth=truth
    )


def failed(device: str, *, hardware: str = "rpi4", reason: str = "reverted") -> DeviceEvidence:
    """A canary on which the release failed."""
    return DeviceEvidence(device=device, hardware=hardware, failed=True, reason=reason)


def control(device: str, incumbent: Aggregate, *, hardware: str = "rpi4") -> DeviceEvidence:
    """A device that was not offered the release."""
    return DeviceEvidence(
        device=device, hardware=hardware, arm=Arm.CONTROL, counted=False, incumbent=incumbent
    )


def evidence(*devices: DeviceEvidence, min_n: int = 1, min_accuracy: float | None = None) -> Evidence:
    """Evidence of these devices."""
    return Evidence(devices=devices, min_n=min_n, min_accuracy=min_accuracy)


def probe(right: str, baseline: str | None = None, *, floor: float = 0.0) -> ProbeReport:
    """A ground-truth report; `right` and `baseline` item by item."""
    return ProbeReport(
        slot="digits",
        boot_id="00000001-a",
        seq=1,
        oldest=0,
        release="digits@2.0.0",
        variant="rpi4-tflite-int8",
        digest=CANDIDATE_DIGEST,
        deployment="r-0001",
        at=0.0,
        probe="truth",
        n=len(right),
        right=right,
        baseline=baseline,
        baseline_digest=INCUMBENT_DIGEST if baseline else None,
        limit=floor,
        passed=right.count("1") >= floor * len(right),
    )


def facts(hardware: str = "rpi4", **labels: str) -> DeviceFacts:
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


def fleet(count: int, hardware: str = "rpi4", prefix: str = "d") -> list[Candidate]:
    """`count` devices of one hardware."""
    return [Candidate(device=f"{prefix}-{i:04d}", facts=facts(hardware)) for i in range(count)]
