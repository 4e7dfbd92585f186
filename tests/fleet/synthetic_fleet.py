"""A made-up fleet that keeps changing, to test and to look at the page without a service.

``python -m tests.fleet.synthetic_fleet`` serves it on a free loopback port until interrupted.
"""

from __future__ import annotations

import contextlib
import math
import random
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from edgekit.documents import DeviceStep
from edgekit_fleet.web.access import Access
from edgekit_fleet.web.feed import Feed
from edgekit_fleet.web.routes import page_router
from edgekit_fleet.web.views import (
    ActiveView,
    DeviceView,
    GateView,
    LogView,
    PointView,
    ProbeView,
    ReasonView,
    RingView,
    RolloutView,
    ServiceView,
    SlotView,
    device_status,
)

TOKEN = "operator-token-of-the-test"
DIGEST = "sha256:" + "5e" * 32
OLD, NEW = "digits@1.0.0", "digits@2.0.0"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class SyntheticFleet:
    """Twelve devices, one finished and one running rollout; `tick` lets two seconds pass."""

    def __init__(self, *, seed: int = 7) -> None:
        self.feed = Feed(now=time.time, epoch="e1")
        self.random = random.Random(seed)
        self.started = time.time() - 240
        self.ticks = 0
        self.put_frame()
        for back in range(100, 0, -1):
            self.put_windows(time.time() - 2 * back)

    def put_frame(self) -> None:
        """The service, slot, devices and rollouts as they stand now."""
        self.feed.put(
            ServiceView(
                tenant="demo", broker="mosquitto 2.0.11", connected=True, version="0.1.0", started=1.0
            ),
            SlotView(
                name="digits",
                labels={"probabilities": tuple("0123456789")},
                policy="observe",
                min_accuracy=0.8,
                items=64,
            ),
            *(self.device(number) for number in range(1, 13)),
            *self.rollouts(),
            LogView(at=time.time() - 63, kind="rollout", text=f"rollout r-2 of {NEW} started", tone="plain"),
            LogView(
                at=time.time() - 21,
                kind="device",
                device="dev-03",
                text="dev-03: ground truth 8 of 64 right, limit 0.8",
                tone="bad",
            ),
        )

    def hardware(self, number: int) -> str:
        """Which kind device `number` is."""
        return "x86-64-litert" if number <= 4 else "x86-64-onnx"

    def device(self, number: int) -> DeviceView:
        """One device's view."""
        step = {3: DeviceStep.REVERTED, 7: DeviceStep.TRIAL, 9: DeviceStep.DOWNLOADING}.get(
            number, DeviceStep.COMMITTED
        )
        presence = "lost" if number == 12 else "online"
        release = NEW if number == 7 else OLD
        runtime = (
            ("litert 2.1.0", "xnnpack") if number <= 4 else ("onnxruntime 1.31.0", "CPUExecutionProvider")
        )
        precision = "fp32" if 4 < number <= 8 else "int8"
        return DeviceView(
            id=f"dev-{number:02d}",
            hardware=self.hardware(number),
            status=device_status(presence, step),
            presence=presence,
            step=step.value,
            percent=40 if number == 9 else 100,
            ring={3: "canary", 7: "canary", 9: "canary"}.get(number, "half" if number % 2 else "rest"),
            rollout="r-2",
            machine="x86_64",
            agent="0.1.0",
            seen=time.time(),
            reason=ReasonView(code="truth_probe", text="8 of 64 ground-truth items right, 0.80 asked for")
            if number == 3
            else ReasonView(code="hostile", text=HOSTILE)
            if number == 12
            else None,
            slots=(
                ActiveView(
                    slot="digits",
                    release=release,
                    variant=f"{self.hardware(number)}/{precision}",
                    digest=DIGEST,
                    runtime=runtime[0],
                    backend=runtime[1],
                    since=time.time() - 200,
                    previous=OLD if release == NEW else None,
                ),
            ),
            probes=(
                ProbeView(
                    slot="digits",
                    probe="truth",
                    release=NEW,
                    variant="int8",
                    n=64,
                    right="".join("1" if i % 8 == 3 else "0" for i in range(64)),
                    limit=0.8,
                    passed=False,
                    policy="observe",
                    at=time.time() - 21,
                ),
                ProbeView(
                    slot="digits",
                    probe="package",
                    release=NEW,
                    variant="int8",
                    n=16,
                    right="1" * 16,
                    limit=0.02,
                    passed=True,
                    policy="enforce",
                    at=time.time() - 22,
                ),
            )
            if number in (3, 7)
            else (),
            labels={"site": "hall-2"},
            runtimes={runtime[0].split()[0]: runtime[0].split()[1]},
        )

    def rollouts(self) -> tuple[RolloutView, RolloutView]:
        """A rollout that went well and one that is being stopped."""
        begin = self.started
        gates = (
            GateView(
                name="failures",
                type="failures",
                verdict="PASS",
                n=3,
                effect=0.0,
                upper=0.02,
                limit=0.05,
                reason="0 of 3 devices failed; the bound 2.0 % lies inside the limit 5 %",
            ),
            GateView(
                name="latency",
                type="latency",
                verdict="INCONCLUSIVE",
                n=2,
                effect=1.04,
                upper=1.38,
                limit=1.25,
                reason="not proven (n=2, bound 138 %): two devices cannot prove a ratio of 1.25",
                stratum="x86-64-onnx",
            ),
            GateView(
                name="ground truth",
                type="truth",
                verdict="FAIL",
                n=64,
                effect=-0.84,
                lower=-0.75,
                limit=-0.05,
                reason="dev-07: 8 of 64 right, the release before had 62; the drop is at least 75 points",
            ),
            GateView(
                name="predictions",
                type="distribution",
                verdict="FAIL",
                n=1,
                effect=0.61,
                lower=0.48,
                limit=0.2,
                reason="answers shifted from the control devices (JSD 0.61, bound 0.48, limit 0.20)",
            ),
        )
        done = tuple(
            RingView(
                index=i,
                name=name,
                state="passed",
                members=m,
                good=m,
                opened=begin + 40 * i,
                closed=begin + 40 * i + 35,
            )
            for i, (name, m) in enumerate((("canary", 2), ("half", 4), ("rest", 6)))
        )
        running = (
            RingView(
                index=0,
                name="canary",
                state="failed",
                members=3,
                good=1,
                bad=1,
                opened=begin + 180,
                soak_until=time.time() + 30,
                gates=gates,
            ),
            RingView(index=1, name="half", state="pending", members=4),
            RingView(index=2, name="rest", state="pending", members=5),
        )
        return (
            RolloutView(
                id="r-1",
                release=OLD,
                slot="digits",
                state="completed",
                created=begin,
                ended=begin + 115,
                reason="all rings passed",
                rings=done,
            ),
            RolloutView(
                id="r-2",
                release=NEW,
                slot="digits",
                state="rolling_back",
                previous=OLD,
                created=begin + 178,
                rings=running,
                reason="ring canary failed its gates ground truth and predictions; going back to 1.0.0",
            ),
        )

    def put_windows(self, at: float) -> None:
        """One telemetry window of each connected device that ended at `at`."""
        for number in range(1, 12):
            new = number == 7 and at > self.started + 180
            base = 0.4 + 0.05 * number + 0.1 * math.sin(at / 20 + number)
            if new:
                counts = tuple(self.random.randint(0, 2) + (14 if i == 8 else 0) for i in range(10))
            else:
                counts = tuple(self.random.randint(3, 8) for _ in range(10))
            self.feed.put(
                PointView(
                    device=f"dev-{number:02d}",
                    slot="digits",
                    at=at,
                    seconds=2.0,
                    release=NEW if new else OLD,
                    variant="int8",
                    requests=sum(counts),
                    model_errors=0,
                    client_errors=0,
                    p50=round(base, 3),
                    p99=round(base * self.random.uniform(2, 3.2), 3),
                    predictions={"probabilities": counts},
                    resources={"rss_mb": 52.0},
                    trial=new,
                )
            )

    def tick(self) -> None:
        """Two seconds pass."""
        self.ticks += 1
        self.put_windows(time.time())
        self.feed.put(LogView(at=time.time(), kind="tick", text=f"tick {self.ticks}"))

    def app(self) -> FastAPI:
        """The page over this fleet."""
        app = FastAPI()
        app.include_router(page_router(self.feed, Access(token=lambda: TOKEN, now=time.time)))
        return app


class PageServer:
    """uvicorn on a free loopback port, in a thread."""

    def __init__(self, app: FastAPI, *, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def start(self) -> None:
        """Serve, once this returns."""
        self._thread.start()
        end = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < end, "the page's server did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End all connections and free the port."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
        assert not self._thread.is_alive()


@contextlib.contextmanager
def served(fleet: SyntheticFleet, *, every: float = 0.5) -> Iterator[PageServer]:
    """The page over `fleet`, which ticks until the block ends."""
    server, ended = PageServer(fleet.app()), threading.Event()

    def run() -> None:
        while not ended.wait(every):
            fleet.tick()

    ticker = threading.Thread(target=run, daemon=True)
    server.start()
    ticker.start()
    try:
        yield server
    finally:
        ended.set()
        ticker.join(5)
        fleet.feed.close()
        server.stop()


if __name__ == "__main__":
    with served(SyntheticFleet(), every=2.0) as running:
        print(running.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
