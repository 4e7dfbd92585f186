"""The modes of use an owner chooses in ``agent.toml``: service, stream, embedded, batch.

*service* answers HTTP, *stream* computes what comes on MQTT or a serial line, *embedded* opens nothing
(programs open models themselves, or the agent only keeps them up to date), *batch* computes files
with what the slots run and ends. This module starts and stops what does the work; the work is in
`edgekit_agent.serving`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import UnavailableError
from edgekit.files import atomic_write
from edgekit_agent.config import Config, Home
from edgekit_agent.detect import detect_apart, make_runtime
from edgekit_agent.errors import ConfigError
from edgekit_agent.journal import Journal
from edgekit_agent.store import Store

if TYPE_CHECKING:
    from edgekit_agent.serving.host import ModelHost
    from edgekit_agent.serving.http import InferenceServer
    from edgekit_agent.serving.stream_mqtt import MqttStream
    from edgekit_agent.serving.stream_serial import SerialStream

Publish = Callable[[str, bytes], bool]
"""(slot, payload) → whether it was handed over to ``out/<slot>``."""


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What one ``[[batch]]`` did, JSON-ready facts."""

    slot: str
    facts: Mapping[str, Any]


class Modes:
    """HTTP server and streams of a running agent. `open` and `close` belong to the event loop."""

    def __init__(self, home: Home, config: Config, host: ModelHost, publish: Publish) -> None:
        self._home, self._config, self._host, self._publish = home, config, host, publish
        self._server: InferenceServer | None = None
        self._mqtt: dict[str, MqttStream] = {}
        self._serial: list[SerialStream] = []

    async def open(self) -> None:
        """Start what the configuration names.

        Raises:
            StorageError: the HTTP address is taken. UnavailableError: pyserial is not installed.
        """
        if "service" in self._config.modes:
            await self._open_http()
        if "stream" in self._config.modes:
            self._open_streams()

    async def _open_http(self) -> None:
        from edgekit_agent.serving.http import InferenceServer

        self._server = InferenceServer(self._host, self._config.address, self._config.port)
        await self._server.start()
        place = {
            "address": self._config.address,
            "port": self._server.port,
            "url": f"http://{self._config.address}:{self._server.port}",
        }
        atomic_write(self._home.http, json.dumps(place).encode())

    def _open_streams(self) -> None:
        from edgekit_agent.serving.stream_mqtt import MqttStream
        from edgekit_agent.serving.stream_serial import SerialStream

        for item in self._config.streams:
            if item.kind == "mqtt":
                stream = MqttStream(self._host, item.slot, _bound(self._publish, item.slot))
                stream.start()
                self._mqtt[item.slot] = stream
            else:
                line = SerialStream(self._host, item.slot, item.port, item.baud, form=item.form)
                line.start()
                self._serial.append(line)

    def feed(self, slot: str, payload: bytes) -> None:
        """A sample came on ``in/<slot>``; one that no stream wants is left alone."""
        stream = self._mqtt.get(slot)
        if stream is not None:
            stream.feed(payload)

    async def close(self, *, grace: float = 5.0) -> None:
        """Let requests under way finish for at most `grace` seconds, end the streams."""
        if self._server is not None:
            await self._server.stop(grace=grace)
            self._home.http.unlink(missing_ok=True)
        for stream in self._mqtt.values():
            await asyncio.to_thread(stream.stop, wait=grace)
        for line in self._serial:
            await asyncio.to_thread(line.stop)


def _bound(publish: Publish, slot: str) -> Callable[[bytes], bool]:
    return lambda payload: publish(slot, payload)


def run_batches(home: Home, config: Config) -> list[BatchResult]:
    """Compute every ``[[batch]]`` with what its slot runs; no network, no other agent is disturbed.

    Raises:
        ConfigError: none is configured, or a slot runs nothing.
        DataError, StorageError: see `edgekit_agent.serving.batch.run_batch`.
    """
    from edgekit_agent.clock import SystemClock
    from edgekit_agent.serving.batch import run_batch
    from edgekit_agent.serving.model import Model

    if not config.batches:
        raise ConfigError("mode batch needs [[batch]] tables", where=str(home.config))
    journal = Journal(home.state / "agent.db")
    slots = journal.slots()
    journal.close()
    places = detect_apart(home).runtimes
    results = []
    for item in config.batches:
        record = slots.get(item.slot)
        if record is None:
            raise ConfigError(
                f"slot {item.slot!r} runs nothing yet",
                where=f"{home.config}: batch.slot",
                remedy=f"slots here: {', '.join(sorted(slots)) or 'none'}",
            )
        installed = Store(home.store).installed(item.slot, record.active)
        name = installed.variant.requires.runtime
        if name not in places:
            raise UnavailableError(f"runtime {name!r} is not installed here", code="runtime_missing")
        with Model(
            installed, make_runtime(places[name]), threads=config.threads, clock=SystemClock()
        ) as model:
            summary = run_batch(model, Path(item.input), Path(item.output), form=item.form)
        results.append(BatchResult(slot=item.slot, facts=summary.to_dict()))
    return results


__all__ = ["BatchResult", "Modes", "run_batches"]
