"""The resident agent: puts the parts together and runs them on one asyncio loop until it is stopped.

Threads: the MQTT link's own, and the executor's for blocking work and inference. Every long-running
task goes through `_guarded`, the outermost loop: whatever escapes is logged, counted and the task
started again. No numpy here: it comes with the first model.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.documents import Ack, Document, EnrolAnswer
from edgekit.errors import DocumentError, EdgekitError, StorageError
from edgekit.ports import Clock, Runtime
from edgekit.topics import DeviceTopic
from edgekit_agent import boot, lean, reserve, web, wedge
from edgekit_agent.bench import Bencher
from edgekit_agent.bench_run import make_bench
from edgekit_agent.clock import BUILT, ClockFloor, SystemClock
from edgekit_agent.config import Config, Home
from edgekit_agent.detect import Detected, detect_apart, make_runtime
from edgekit_agent.download import Downloader, Patience
from edgekit_agent.installer import Installer
from edgekit_agent.journal import Journal
from edgekit_agent.lifecycle import Lifecycle
from edgekit_agent.modes import Modes
from edgekit_agent.mqtt import Address, Link, tls_of
from edgekit_agent.outbox import Outbox
from edgekit_agent.reporter import Reporter
from edgekit_agent.sender import Sender
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.state import Live, Lock
from edgekit_agent.store import Store
from edgekit_agent.telemetry import Telemetry
from edgekit_agent.trust import Trust, TrustChild

_LOG = logging.getLogger("edgekit.agent")
_MEGA = 1 << 20
_HEALTHY_SECONDS = 10.0
_RESTART_SECONDS = 1.0
_GRACE, _WEDGED_GRACE = 5.0, 0.5


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What tests replace; the defaults are the real things."""

    clock: Clock = field(default_factory=SystemClock)
    detected: Detected | None = None
    runtimes: Mapping[str, Runtime] | None = None
    trust: Trust | None = None
    make_journal: Callable[[Home], Journal] = lambda home: Journal(home.state / "agent.db")
    patience: Patience | None = None
    built: float = BUILT


class Supervisor:
    """One agent.

    Args:
        home, config, identity: whose agent it is.
        seams: replacements for tests.
    """

    def __init__(self, home: Home, config: Config, identity: EnrolAnswer, seams: Seams | None = None) -> None:
        self._home, self._config, self._identity = home, config, identity
        seams = seams or Seams()
        self._clock = clock = seams.clock
        self._lock = Lock(home)
        home.http.unlink(missing_ok=True)  # a killed agent left it: nobody listens there
        self._detected = seams.detected or detect_apart(home)
        spare = home.state / "reserve"
        reserve.make_room(spare)
        self._journal = journal = seams.make_journal(home)
        self._crashes = boot.count_start(journal)
        self._boot = journal.new_boot()
        limits = config.limits
        self._outbox = Outbox(
            home.state / "outbox.db",
            boot_id=self._boot,
            records=limits.outbox_records,
            size=limits.outbox_mb * _MEGA,
        )
        self._service = web.Service(url=identity.url, username=identity.username, password=identity.password)
        self.host = self._make_host(seams)
        self.reporter = Reporter(
            journal, boot_id=self._boot, clock=clock, publish=self._publish, ran=self._ran
        )
        self._store = Store(home.store)
        self._telemetry = Telemetry(self._outbox, clock)
        self._lifecycle = self._make_lifecycle(seams)
        self._link = self._make_link()
        self._bencher = self._make_bencher(seams.patience)
        self._sender = Sender(
            self._outbox,
            lambda slot, payload: self._link.publish("tm", payload, slot=slot),
            clock=clock,
            resend=config.resend_seconds,
        )
        self._live = Live(home.live)
        self.malformed = self.exceptions = 0
        self._heard_desired = False
        self.wedged = False
        self.started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._modes = Modes(
            home,
            config,
            self.host,
            lambda slot, payload: self._link.publish("out", payload, slot=slot),
        )
        self.reporter.counters(self._counters)
        reserve.keep(spare)

    def _make_host(self, seams: Seams) -> ModelHost:
        runtimes = seams.runtimes
        if runtimes is None:
            runtimes = {name: make_runtime(place) for name, place in self._detected.runtimes.items()}
        return ModelHost(runtimes, threads=self._config.threads, clock=self._clock)

    def _make_lifecycle(self, seams: Seams) -> Lifecycle:
        limits, facts, identity = self._config.limits, self._detected.facts, self._identity
        hardware = (identity.hardware, *(name for name in facts.profiles if name != identity.hardware))
        trust = seams.trust or TrustChild(
            self._home,
            self._service,
            device=identity.device,
            hardware=hardware,
            seconds=limits.child_seconds,
        )
        downloader = Downloader(
            self._service,
            limit=limits.download_mb * _MEGA,
            free=limits.free_mb * _MEGA,
            patience=seams.patience or Patience(stall=limits.stall_seconds),
        )
        installer = Installer(
            journal=self._journal,
            store=self._store,
            trust=trust,
            downloader=downloader,
            host=self.host,
            telemetry=self._telemetry,
            clock=self._clock,
            hang_seconds=limits.hang_seconds,
        )
        return Lifecycle(
            journal=self._journal,
            reporter=self.reporter,
            trust=trust,
            installer=installer,
            clock=self._clock,
            floor=ClockFloor(self._journal, built=seams.built),
            facts=facts,
            device=identity.device,
        )

    def _make_bencher(self, patience: Patience | None) -> Bencher:
        return Bencher(
            make_bench(
                self._home, self._config.limits, self._identity, self._detected, self._clock, patience
            ),
            busy=lambda: self._lifecycle.busy,
            publish=lambda result: self._link.publish("res", result.to_bytes(), slot=result.cid),
            refuse=self.reporter.refuse,
        )

    def _make_link(self) -> Link:
        identity = self._identity
        return Link(
            Address(
                host=identity.mqtt_host,
                port=identity.mqtt_port,
                tenant=identity.tenant,
                device=identity.device,
                username=identity.username,
                password=identity.password,
                keepalive=self._config.keepalive,
                tls=tls_of(self._config, identity),
            ),
            boot_id=self._boot,
            agent=self._detected.facts.agent,
            clock=self._clock,
            new_session=lambda: self._journal.count("session"),
            on_message=lambda topic, payload: self._soon(self._incoming, topic, payload),
            on_connection=lambda up: self._soon(self._connection, up),
        )

    # running ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`."""
        self._loop = asyncio.get_running_loop()
        boot.recover(self._journal, self.reporter, self._crashes)
        await asyncio.to_thread(boot.load, self._journal, self.reporter, self._store, self.host)
        await self._modes.open()
        self.reporter.publish()
        self._lifecycle.resume()
        self._link.start()
        jobs: dict[str, Callable[[], Awaitable[None]]] = {
            "lifecycle": self._lifecycle.run,
            "telemetry": self._telemetry_loop,
            "polling": self._polling_loop,
            "health": self._health_loop,
            "measurements": self._bencher.run,
        }
        tasks = [asyncio.create_task(self._guarded(name, job)) for name, job in jobs.items()]
        lean.settle()
        self.started.set()
        try:
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    def stop(self) -> None:
        """Ask `run` to end (from the loop's thread)."""
        self._stopping.set()

    async def _guarded(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """The outermost loop: nothing that goes wrong in one task ends the agent."""
        while True:
            try:
                await job()
                return
            except Exception as error:  # noqa: BLE001  # STYLE: the agent's outermost loop
                self.exceptions += 1
                _LOG.exception("%s failed: %r", name, error)
                await asyncio.sleep(_RESTART_SECONDS)

    async def _close(self) -> None:
        await self._modes.close(grace=_WEDGED_GRACE if self.wedged else _GRACE)
        await asyncio.to_thread(self._collect)
        self._sender.pump()
        await asyncio.to_thread(self._link.stop)
        self.host.close()
        self.reporter.close()
        self._lived()
        self._write_live()
        self._journal.close()
        self._outbox.close()
        self._lock.release()

    def _soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """From the link's thread to the loop's."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # messages -----------------------------------------------------------------------------------

    def _connection(self, up: bool) -> None:
        if up:
            self._link.publish("profile", self._detected.facts.to_bytes(), retain=True)
            self.reporter.publish()
            self._sender.restart()
            self._sender.pump()
            self._bencher.connected()
        self._write_live()

    def _incoming(self, topic: DeviceTopic, payload: bytes) -> None:
        if topic.leaf == "desired" and payload:
            self._heard_desired = True
            self._lifecycle.offer(payload)
        elif topic.leaf == "ack" and payload:
            self._acknowledged(payload)
        elif topic.leaf == "cmd" and payload:
            self._bencher.offer(topic.slot, payload)
        elif topic.leaf == "in" and topic.slot is not None:
            self._modes.feed(topic.slot, payload)

    def _acknowledged(self, payload: bytes) -> None:
        try:
            self._sender.acknowledge(Ack.parse(payload))
            self._sender.pump()
        except DocumentError as error:
            self.malformed += 1
            _LOG.warning("an acknowledgement was dropped: %s", error)
        except StorageError as error:
            _LOG.error("%s", error)

    def _publish(self, leaf: str, document: Document) -> bool:
        return self._link.publish(leaf, document.to_bytes(), retain=leaf != "ev")

    def _ran(self, slot: str) -> tuple[str, str]:
        candidate = self.host.active(slot)
        return (candidate.runtime, candidate.backend) if candidate else ("", "")

    def _counters(self) -> dict[str, int]:
        counted = {
            "foreign": self._link.foreign,
            "malformed": self.malformed,
            "exceptions": self.exceptions,
            "lost": self._telemetry.lost,
        }
        return {name: value for name, value in counted.items() if value}

    # timers -------------------------------------------------------------------------------------

    async def _telemetry_loop(self) -> None:
        while True:
            await asyncio.sleep(self._config.telemetry_seconds)
            await asyncio.to_thread(self._collect)
            self._sender.pump()
            self._write_live()

    def _collect(self) -> None:
        self._telemetry.windows(self.host.collect(), self._journal.slots())

    async def _polling_loop(self) -> None:
        """Ask by HTTP what MQTT should have said: once when nothing came, then every few hours."""
        await asyncio.sleep(self._config.first_poll_seconds * (0.5 + random.random()))
        if not self._heard_desired:
            await self._poll()
        while True:
            await asyncio.sleep(self._config.poll_seconds * (0.5 + random.random()))
            await self._poll()

    async def _poll(self) -> None:
        path = f"/v1/devices/{self._identity.device}/desired"
        try:
            answer = await asyncio.to_thread(web.request, self._service, path)
        except EdgekitError as error:
            _LOG.info("polling: %s", error)
            return
        if answer.status == 200 and answer.body:
            self._lifecycle.offer(answer.body)

    async def _health_loop(self) -> None:
        """See that inferences return and the link's thread lives; note a start that was no crash."""
        began, noted = time.monotonic(), False
        while True:
            await asyncio.sleep(_RESTART_SECONDS)
            if not noted and time.monotonic() - began >= _HEALTHY_SECONDS:
                noted = True
                await asyncio.to_thread(self._lived)
            self._look_for_hangs()
            if not self._link.alive:
                self.exceptions += 1
                _LOG.error("the MQTT thread ended; it is started again")
                self._link.start()

    def _look_for_hangs(self) -> None:
        """An inference that never returns holds its thread for ever: only a fresh process has it back.
        An installation under way comes to its end first, as long as it does."""
        longest, limit = self.host.longest(), self._config.limits.hang_seconds
        if longest >= (2 * limit if self._lifecycle.busy else limit):
            _LOG.error("an inference has not returned for %.0f s: the agent starts anew", longest)
            self.wedged = True
            self.stop()

    def _lived(self) -> None:
        try:
            boot.lived(self._journal)
        except StorageError as error:
            _LOG.error("that this start was no crash is not on record: %s", error)

    def _write_live(self) -> None:
        refusal = self.reporter.last_refusal
        facts = {
            "pid": os.getpid(),
            "boot_id": self._boot,
            "connected": self._link.connected,
            "session": self._link.session,
            "outbox": self._outbox.depth,
            "dropped": self._outbox.dropped,
            "foreign": self._link.foreign,
            "malformed": self.malformed,
            "exceptions": self.exceptions,
            "refused": dict(self.reporter.refused),
            "last_error": self._link.last_error or (refusal.text if refusal else ""),
        }
        try:
            self._live.write(facts)
        except StorageError as error:
            _LOG.error("%s", error)


def serve(
    home: Home,
    config: Config,
    identity: EnrolAnswer,
    *,
    verbose: bool = False,
    seams: Seams | None = None,
) -> int:
    """`edgekit-agent run`: until SIGTERM or SIGINT; a fresh process takes over from a wedged one.

    Raises:
        ConfigError: an agent runs here already. StorageError: the state cannot be written.
    """
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(Supervisor(home, config, identity, seams), 2 * config.limits.hang_seconds))
    return 0


async def _serve(supervisor: Supervisor, still_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    async with wedge.beating(still_seconds):
        await supervisor.run()
    if supervisor.wedged:
        wedge.begin_anew()
    elif supervisor.host.longest():
        wedge.leave(0)


__all__ = ["Seams", "Supervisor", "serve"]
