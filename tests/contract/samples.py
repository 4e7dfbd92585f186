"""One full sample of every wire document: what the golden files are made from."""

from __future__ import annotations

from edgekit.documents import (
    Ack,
    BenchFigures,
    BenchOrder,
    BenchResult,
    BenchResults,
    ControllerState,
    Desired,
    DeviceFacts,
    DeviceStep,
    Document,
    EnrolAnswer,
    EnrolRequest,
    Envelope,
    Event,
    Measurement,
    Measurements,
    Presence,
    ProbePolicy,
    ProbeReport,
    Reason,
    Reported,
    Signature,
    SlotDesire,
    SlotState,
    TruthProbes,
    Window,
)
from edgekit.sketches import Bins, LatencyHistogram

_BOOT = "00000003-9f2c"
_PACKAGE = "sha256:" + "a" * 64
_VARIANT = "sha256:" + "b" * 64

FACTS = DeviceFacts(
    machine="aarch64",
    agent="0.1.0",
    python="3.11.2",
    os="Debian GNU/Linux 12 (bookworm)",
    model="Raspberry Pi 4 Model B Rev 1.4",
    cpu_count=4,
    cpu_features=("asimd", "crc32"),
    memory_mb=3792,
    runtimes={"litert": "2.3.0"},
    profiles=("rpi4", "arm64-litert"),
    precisions=("int8",),
    labels={"site": "lab"},
)

DESIRED = Desired(
    device="cam-1",
    hardware="rpi4",
    gen=7,
    issued=1_790_000_000.0,
    deployment="r-0001",
    attempt=1,
    slots={
        "digits": SlotDesire(
            release="digits@1.0.0",
            package=_PACKAGE,
            variant="rpi4-tflite-int8",
            digest=_VARIANT,
            truth=TruthProbes(
                target="probes/digits/1.npz",
                sha256="c" * 64,
                bytes=4096,
                min_accuracy=0.9,
                policy=ProbePolicy.OBSERVE,
            ),
            trial_seconds=5.0,
        )
    },
)

_HEAD = {
    "slot": "digits",
    "boot_id": _BOOT,
    "seq": 12,
    "oldest": 10,
    "release": "digits@1.0.0",
    "variant": "rpi4-tflite-int8",
    "digest": _VARIANT,
    "deployment": "r-0001",
    "at": 1_790_000_060.5,
}

_FIGURES = BenchFigures(
    median_us=4010.0,
    p90_us=4100.5,
    p99_us=5000.0,
    n=200,
    threads=1,
    memory_mb=61.5,
    base_mb=40.0,
    runtime="litert",
    runtime_version="2.3.0",
    backend="xnnpack",
    load=0.4,
    load_after=0.9,
    busy=0.05,
    temperature_c=61.0,
    temperature_before_c=55.5,
    throttled=False,
    inputs="probes",
)
_BENCHED = BenchResult(
    cid="k3v9q2m7x1",
    device="cam-1",
    state="done",
    at=1_790_000_012.0,
    digest=_VARIANT,
    hardware="rpi4",
    figures=_FIGURES,
)
SAMPLES: dict[str, Document] = {
    "facts": FACTS,
    "presence": Presence(state="online", session=4, boot_id=_BOOT, agent="0.1.0", at=1_790_000_000.0),
    "desired": DESIRED,
    "envelope": Envelope(signed=DESIRED.to_dict(), signatures=(Signature(keyid="d" * 64, sig="e" * 128),)),
    "reported": Reported(
        boot_id=_BOOT,
        seq=9,
        gen=7,
        deployment="r-0001",
        attempt=1,
        step=DeviceStep.REVERTED,
        at=1_790_000_030.0,
        slot="digits",
        percent=100,
        slots={
            "digits": SlotState(
                release="digits@1.0.0",
                variant="rpi4-tflite-int8",
                digest=_VARIANT,
                package=_PACKAGE,
                runtime="litert 2.3.0",
                backend="xnnpack",
                since=1_789_000_000.0,
            )
        },
        reason=Reason(code="truth_probe_missed", text="accuracy 0.12 < 0.90"),
    ),
    "event": Event(
        boot_id=_BOOT,
        seq=5,
        at=1_790_000_010.0,
        deployment="r-0001",
        step=DeviceStep.DOWNLOADING,
        slot="digits",
    ),
    "window": Window(
        **_HEAD,  # type: ignore[arg-type]  # one head for both records
        seconds=10.0,
        requests=120,
        errors={"client:shape": 2},
        latency={"infer": LatencyHistogram(buckets={60: 100, 61: 20}, sum_ms=21.5, max_ms=0.4)},
        predictions={"digit": Bins(counts=(12,) * 10)},
        confidence={"digit": Bins(counts=(0, 5, 115))},
        inputs={"image": Bins(counts=(1, 2, 3))},
        resources={"rss_mb": 51.2},
        runtime="litert 2.3.0",
        backend="xnnpack",
    ),
    "probe": ProbeReport(
        **_HEAD,  # type: ignore[arg-type]  # one head for both records
        probe="truth",
        target="probes/digits/1.npz",
        n=8,
        right="11110111",
        baseline="11111111",
        baseline_digest=_VARIANT,
        limit=0.9,
        passed=False,
        policy=ProbePolicy.OBSERVE,
        detail={"accuracy": 0.875},
    ),
    "bench": BenchOrder(
        cid="k3v9q2m7x1",
        device="cam-1",
        issued=1_790_000_000.0,
        expires=1_790_000_090.0,
        release="digits@1.0.0",
        package=_PACKAGE,
        variant="rpi4-tflite-int8",
        digest=_VARIANT,
    ),
    "bench_result": _BENCHED,
    "bench_refused": BenchResult(
        cid="k3v9q2m7x2",
        device="cam-1",
        state="refused",
        at=1_790_000_004.0,
        digest=_VARIANT,
        reason=Reason(code="busy", text="it is installing or trying a model", retryable=True),
    ),
    "bench_results": BenchResults(device="cam-1", results=(_BENCHED,)),
    "measurements": Measurements(
        measurements=(
            Measurement(
                release="digits@1.0.0",
                variant="rpi4-tflite-int8",
                digest=_VARIANT,
                profile="rpi4",
                target="tflite",
                precision="int8",
                device="cam-1",
                hardware="rpi4",
                on_target=True,
                at=1_790_000_012.0,
                figures=_FIGURES,
            ),
        )
    ),
    "ack": Ack(boot_id=_BOOT, seq=12, also=(14, 15)),
    "controller": ControllerState(state="online", epoch=3, at=1_790_000_000.0),
    "enrol": EnrolRequest(token="s3cret." + "f" * 64, public_key="1" * 64, proof="2" * 128, facts=FACTS),
    "enrolled": EnrolAnswer(
        device="cam-1",
        tenant="default",
        hardware="rpi4",
        url="http://127.0.0.1:8420",
        mqtt_host="127.0.0.1",
        mqtt_port=1883,
        username="cam-1",
        password="not-a-secret",
        root="{}",
    ),
}
