"""The inference server: Open Inference Protocol v2 over HTTP, and Prometheus metrics.

Paths name the *slot*; ``model_name`` and ``model_version`` in answers name what ran. Parsing happens
on the agent's event loop, decoding and inference on a few threads behind a bounded queue: when it
is full, the answer is 503 at once. Only small requests to a model that has proven quick (see
`ModelHost.is_quick`) are computed on the loop itself, when nothing waits. numpy is imported with the
first request that needs it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edgekit.errors import EdgekitError, StorageError
from edgekit_agent.errors import BusyError, ModelError, RequestError, UnknownModelError
from edgekit_agent.runtimes.installation import installed_version
from edgekit_agent.serving.host import Candidate, ModelHost
from edgekit_agent.serving.http_wire import (
    Bounds,
    Connection,
    Reply,
    Request,
    Response,
    answer,
    refusal,
)
from edgekit_agent.windows import ResourceMeter

if TYPE_CHECKING:
    import ssl

LOG = logging.getLogger(__name__)
NAME = "edgekit-agent"
INLINE_BYTES = 16 << 10
_SWEEP_SECONDS = 1.0
_INTERNAL = "internal error; the agent's log has more"
_STATUS: tuple[tuple[type[EdgekitError], int], ...] = (
    (RequestError, 400),
    (UnknownModelError, 404),
    (BusyError, 503),
    (ModelError, 500),
)


class InferenceServer:
    """Serves a ModelHost. All methods belong to one event loop.

    Args:
        host: what computes.
        address: where to listen; loopback unless the owner says otherwise.
        port: 0 for a free one.
        tls: a context makes it HTTPS.
        workers: requests computed at once.
        queue: requests that may wait besides.
        bounds: limits of each connection.
    """

    def __init__(
        self,
        host: ModelHost,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        *,
        workers: int = 2,
        queue: int = 64,
        bounds: Bounds | None = None,
    ) -> None:
        self._host, self._address, self._wanted_port, self._tls = host, address, port, tls
        self._workers, self._limit = workers, workers + queue
        self._bounds = bounds or Bounds()
        self._connections: set[Connection] = set()
        self._answers: Counter[int] = Counter()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._meter = ResourceMeter()
        self._stopping = False
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None, "not started"
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            StorageError: the address is taken or not this machine's.
        """
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="infer")
        make = partial(Connection, self._handle, self._bounds, self._connections, self._counted)
        try:
            self._server = await self._loop.create_server(
                make, self._address, self._wanted_port, ssl=self._tls, backlog=128
            )
        except OSError as error:
            self._threads.shutdown()
            raise StorageError(
                f"cannot listen: {error.strerror or error}",
                where=f"{self._address}:{self._wanted_port}",
                remedy="choose another [http] address or port in agent.toml",
                code="address_in_use",
            ) from error
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def stop(self, *, grace: float = 5.0) -> None:
        """Accept nothing more, let requests under way finish for at most `grace` seconds, close."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        for connection in list(self._connections):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.sleep(0)
        self._server = None

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections):
            connection.check(now)
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _counted(self, status: int) -> None:
        self._answers[status] += 1

    def _handle(self, request: Request, reply: Reply) -> None:
        path = request.target.partition("?")[0]
        parts = [unquote(part) for part in path.strip("/").split("/")]
        get = request.method in ("GET", "HEAD")
        route = self._simple_route(parts)
        if route is not None:
            reply(route() if get else _not_allowed("GET, HEAD"))
        elif parts[:2] == ["v2", "models"] and len(parts) >= 3:
            self._handle_model(request, parts[2:], get, reply)
        else:
            reply(refusal(404, f"there is nothing at {path!r}"))

    def _simple_route(self, parts: list[str]) -> Callable[[], Response] | None:
        return {
            ("v2",): self._about,
            ("v2", "health", "live"): self._live,
            ("v2", "health", "ready"): self._ready,
            ("metrics",): self._metrics,
        }.get(tuple(parts))

    def _handle_model(self, request: Request, parts: list[str], get: bool, reply: Reply) -> None:
        """``SLOT[/versions/V][/infer|/ready]``."""
        slot, rest = parts[0], parts[1:]
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        if rest == ["infer"]:
            if request.method == "POST":
                self._submit(request, slot, version, reply)
            else:
                reply(_not_allowed("POST"))
        elif rest in ([], ["ready"]):
            describe = self._model_ready if rest else self._model_metadata
            reply(self._described(describe, slot, version) if get else _not_allowed("GET, HEAD"))
        else:
            reply(refusal(404, f"there is nothing at {request.target!r}"))

    def _submit(self, request: Request, slot: str, version: str | None, reply: Reply) -> None:
        wrong = self._unknown(slot, version)
        if wrong is not None:
            reply(wrong)
            return
        wrong = _unsupported(request)
        if wrong is not None:
            self._host.reject(slot, "unsupported")
            reply(wrong)
        elif self._under_way >= self._limit or self._stopping:
            reply(refusal(503, "too many requests are waiting; try again", Retry_After="1"))
        elif not self._under_way and len(request.body) <= INLINE_BYTES and self._host.is_quick(slot):
            self._compute_here(request, slot, version, reply)
        else:
            self._under_way += 1
            self._idle.clear()
            future = self._threads.submit(
                _compute, self._host, slot, version, request.body, time.perf_counter()
            )
            # Straight back to the loop: run_in_executor's second future costs a third of the way.
            future.add_done_callback(partial(self._hand_back, reply))

    def _unknown(self, slot: str, version: str | None) -> Response | None:
        """404 for what is not here, before anything in the body is looked at."""
        try:
            self._host.expect(slot, version)
        except UnknownModelError as error:
            return refusal(404, str(error))
        return None

    def _compute_here(self, request: Request, slot: str, version: str | None, reply: Reply) -> None:
        """Compute on the loop: for a model of a few hundred microseconds two changes of thread cost
        more than the model."""
        response = refusal(500, _INTERNAL)
        try:
            response = _compute(self._host, slot, version, request.body, time.perf_counter())
        finally:
            reply(response)

    def _hand_back(self, reply: Reply, future: Future[Response]) -> None:
        """On a worker thread (on the loop's, when it was done or cancelled before)."""
        self._loop.call_soon_threadsafe(self._computed, reply, future)

    def _computed(self, reply: Reply, future: Future[Response]) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
        if future.cancelled():
            reply(refusal(503, "the server is stopping"))
        elif (error := future.exception()) is not None:
            LOG.error("a request failed in an unforeseen way", exc_info=error)
            reply(refusal(500, _INTERNAL))
        else:
            reply(future.result())

    def _about(self) -> Response:
        return answer(200, {"name": NAME, "version": _version(), "extensions": []})

    def _live(self) -> Response:
        return answer(200, {"live": True})

    def _ready(self) -> Response:
        slots = {name: item.installed.ref if item else None for name, item in self._host.slots().items()}
        ready = bool(slots) and None not in slots.values() and not self._stopping
        return answer(200 if ready else 400, {"ready": ready, "slots": slots})

    def _metrics(self) -> Response:
        from edgekit_agent.serving import prometheus

        text = prometheus.render(
            self._host, self._meter, answers=self._answers, waiting=self._under_way, version=_version()
        )
        return Response(body=text.encode(), content_type=prometheus.CONTENT_TYPE)

    def _described(
        self, describe: Callable[[str, Candidate], Response], slot: str, version: str | None
    ) -> Response:
        slots = self._host.slots()
        if slot not in slots:
            return refusal(
                404, f"there is no slot {slot!r}; slots here: {', '.join(sorted(slots)) or 'none'}"
            )
        candidate = slots[slot]
        if candidate is None:
            return answer(400, {"name": slot, "ready": False, "error": f"slot {slot!r} serves nothing yet"})
        there = candidate.installed.manifest.version
        if version not in (None, there):
            return refusal(404, f"slot {slot!r} serves version {there}, not {version}")
        return describe(slot, candidate)

    def _model_ready(self, slot: str, candidate: Candidate) -> Response:
        return answer(200, {"name": slot, "ready": True, "model": candidate.installed.ref})

    def _model_metadata(self, slot: str, candidate: Candidate) -> Response:
        from edgekit_agent.serving import oip

        ran = candidate.installed
        outputs = oip.metadata_tensors(ran.variant.outputs)
        for name in candidate.pipeline.classes:
            label, confidence = oip.decision_names(name)
            outputs.append({"name": label, "datatype": "BYTES", "shape": [-1]})
            outputs.append({"name": confidence, "datatype": "FP32", "shape": [-1]})
        return answer(
            200,
            {
                "name": slot,
                "versions": [ran.manifest.version],
                "platform": f"{ran.variant.requires.runtime}_{ran.variant.target}",
                "inputs": oip.metadata_tensors(ran.variant.inputs),
                "outputs": outputs,
                "parameters": {
                    "model": ran.manifest.name,
                    "variant": ran.variant.id,
                    "digest": ran.variant.digest,
                    "package": ran.package,
                    "runtime": candidate.runtime,
                    "backend": candidate.backend,
                },
            },
        )


def _compute(host: ModelHost, slot: str, version: str | None, body: bytes, arrived: float) -> Response:
    """One request, on a worker thread."""
    from edgekit_agent.serving import oip

    queued_ms = (time.perf_counter() - arrived) * 1e3
    try:
        try:
            request = oip.decode(body)
        except RequestError as error:
            host.reject(slot, error.code)
            raise
        prediction = host.infer(
            slot, request.inputs, version=version, request_id=request.id, queued_ms=queued_ms
        )
        return Response(body=oip.encode(slot, prediction, request.outputs))
    except EdgekitError as error:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        headers = {"Retry_After": "1"} if status == 503 else {}
        return refusal(status, str(error), **headers)


def _unsupported(request: Request) -> Response | None:
    """Requests in a form that is not offered, told so rather than misread."""
    if request.headers.get("content-encoding", "identity") != "identity":
        return refusal(415, "compressed bodies are not offered; send plain JSON")
    if "inference-header-content-length" in request.headers:
        return refusal(415, "the binary tensor extension is not offered; send JSON data")
    return None


def _not_allowed(allowed: str) -> Response:
    return refusal(405, f"only {allowed} is allowed here", Allow=allowed)


def _version() -> str:
    return installed_version("edgekit-agent") or "unknown"


__all__ = ["Bounds", "InferenceServer"]
