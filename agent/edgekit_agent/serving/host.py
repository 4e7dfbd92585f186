"""The model host: loads variants beside the serving one, switches a pointer, drains and frees.

A request takes the slot's active candidate, counts itself in, computes, counts itself out; a switch
replaces the pointer between two requests and waits for nobody. A candidate that was taken off
closes with the last request inside it, so no request is ever dropped or held up by a swap.

The lifecycle (downloading, journal, probing, when to commit) is not here. numpy is imported with the
first variant.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgekit.errors import EdgekitError, RefusedError, UnavailableError
from edgekit.ports import Arrays, Clock, Runtime, Session
from edgekit_agent.errors import BusyError, ModelError, RequestError, UnknownModelError
from edgekit_agent.installed import Installed
from edgekit_agent.serving.candidate import Candidate
from edgekit_agent.serving.memory import give_back, trim
from edgekit_agent.serving.values import Prediction
from edgekit_agent.windows import (
    CLIENT,
    MODEL,
    Counters,
    ResourceMeter,
    Totals,
    TrialHealth,
    WindowCounters,
    available_memory_mb,
)

if TYPE_CHECKING:
    from edgekit_agent.serving.pipeline import Pipeline

_KEPT_WINDOWS = 64


@dataclass
class _Slot:
    active: Candidate | None = None
    previous: Candidate | None = None
    retired: list[WindowCounters] = field(default_factory=list)
    lost: int = 0


class ModelHost:
    """All slots of this device. Thread-safe.

    Args:
        runtimes: by name, as a variant's ``requires.runtime`` names them.
        threads: threads a runtime may use for one request.
        clock: for the length of windows and trials.
    """

    def __init__(self, runtimes: Mapping[str, Runtime], *, threads: int, clock: Clock) -> None:
        self._runtimes = dict(runtimes)
        self._threads = threads
        self._clock = clock
        self._slots: dict[str, _Slot] = {}
        self._loaded: weakref.WeakSet[Candidate] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._meter = ResourceMeter()

    def prepare(self, installed: Installed) -> Candidate:
        """Load a variant beside what serves, and warm it up. Nothing is switched.

        Raises:
            UnavailableError: its runtime is not here, or refuses the file.
            RefusedError: not enough memory, a step of its pipeline is not supported, or it fails on zeros.
            ContractError: the package's contract cannot be read.
        """
        variant = installed.variant
        runtime = self._runtimes.get(variant.requires.runtime)
        if runtime is None:
            raise UnavailableError(
                f"runtime {variant.requires.runtime!r} is not installed or not enabled on this device",
                where=variant.id,
                remedy=f"install it, or use one of {', '.join(sorted(self._runtimes)) or 'none'}",
                code="runtime_missing",
            )
        _check_memory(installed)
        session = runtime.load(installed.folder, variant, threads=self._threads)
        try:
            return self._candidate(installed, session, runtime)
        except EdgekitError:
            session.close()
            raise

    def _candidate(self, installed: Installed, session: Session, runtime: Runtime) -> Candidate:
        from edgekit_agent.serving.pipeline import Pipeline
        from edgekit_agent.serving.warmup import warm_up

        pipeline = Pipeline(installed.manifest, installed.variant, session)
        warm_up(session, installed.variant.id)
        name = f"{runtime.name} {runtime.version() or ''}".strip()
        give_back()
        counters = Counters(
            installed,
            reference=installed.manifest.reference,
            classes=pipeline.classes,
            clock=self._clock,
            runtime=name,
            backend=session.backend,
        )
        candidate = Candidate(
            installed=installed,
            session=session,
            pipeline=pipeline,
            counters=counters,
            runtime=name,
            on_closed=self._closed,
        )
        with self._lock:
            self._loaded.add(candidate)
        return candidate

    def switch(self, slot: str, candidate: Candidate) -> None:
        """Serve `candidate` from the next request on; what served before stays as `previous`.

        A `previous` that was never committed or reverted is freed.
        """
        candidate.counters.restart()
        candidate.counters.trial = True
        with self._lock:
            state = self._slots.setdefault(slot, _Slot())
            if state.active is candidate:
                return
            abandoned, state.previous, state.active = state.previous, state.active, candidate
        if abandoned is not None:
            abandoned.close()

    def revert(self, slot: str) -> bool:
        """Serve the previous one again and free the one on trial; False when there is no previous."""
        with self._lock:
            state = self._slots.get(slot)
            if state is None or state.previous is None:
                return False
            failed, state.active, state.previous = state.active, state.previous, None
        if failed is not None:
            failed.close()
        return True

    def commit(self, slot: str) -> None:
        """End the trial: its figures become a window of their own, the previous is drained and freed."""
        with self._lock:
            state = self._slots.get(slot)
            if state is None or state.active is None:
                return
            previous, state.previous = state.previous, None
            if state.active.counters.trial:
                self._retire(state, state.active)
                state.active.counters.trial = False
        if previous is not None:
            previous.close()

    def remove(self, slot: str) -> None:
        """Serve nothing in this slot any more; requests get 503."""
        with self._lock:
            state = self._slots.get(slot)
            gone = (state.active, state.previous) if state else ()
            if state:
                state.active = state.previous = None
        for candidate in gone:
            if candidate is not None:
                candidate.close()

    def active(self, slot: str) -> Candidate | None:
        """What serves the slot now."""
        state = self._slots.get(slot)
        return state.active if state else None

    def slots(self) -> dict[str, Candidate | None]:
        """Every slot there ever was, with what serves it now."""
        with self._lock:
            return {name: state.active for name, state in self._slots.items()}

    def infer(
        self,
        slot: str,
        inputs: Arrays,
        *,
        version: str | None = None,
        request_id: str | None = None,
        queued_ms: float | None = None,
    ) -> Prediction:
        """Compute one batch on whatever serves the slot at this moment; never blocked by a swap.

        Args:
            slot: the slot.
            inputs: numpy arrays by input name, first axis = batch.
            version: only this version may answer, if given.
            request_id: comes back in the answer.
            queued_ms: how long the request waited before, for the ``queue`` stage.

        Raises:
            UnknownModelError: no such slot, or it serves another version.
            BusyError: the slot serves nothing yet.
            RequestError: the inputs do not fit.
            ModelError: the model failed.
        """
        return self._counted(slot, lambda _: inputs, version, request_id, queued_ms)

    def infer_values(
        self, slot: str, values: Mapping[str, object] | object, *, request_id: str | None = None
    ) -> Prediction:
        """`infer` for values without datatypes (streams, files, programs), by input name, or the one
        input's alone: arrays or nested lists; a single sample needs no batch axis.

        Raises:
            UnknownModelError, BusyError, RequestError, ModelError: as `infer`.
        """
        return self._counted(slot, lambda pipeline: pipeline.arrays(values), None, request_id, None)

    def _counted(
        self,
        slot: str,
        arrays: Callable[[Pipeline], Arrays],
        version: str | None,
        request_id: str | None,
        queued_ms: float | None,
    ) -> Prediction:
        candidate = self._enter(slot)
        try:
            _check_version(candidate, version)
            result = candidate.pipeline.run(arrays(candidate.pipeline))
            stages = result.stages if queued_ms is None else (("queue", queued_ms), *result.stages)
            candidate.counters.answered(stages, result.observations)
            candidate.took(result.stages[-1][1])
        except RequestError as error:
            candidate.counters.failed(CLIENT, error.code)
            raise
        except ModelError as error:
            candidate.counters.failed(MODEL, error.code)
            raise
        finally:
            candidate.leave()
        return Prediction(
            outputs=result.outputs,
            decisions=result.decisions,
            ran=candidate.installed,
            request_id=request_id,
            stages=stages,
        )

    def is_quick(self, slot: str) -> bool:
        """Whether the slot's model has proven to answer faster than a change of thread is worth; never
        while it is on trial, when it may still hang."""
        candidate = self.active(slot)
        return candidate is not None and candidate.quick and not candidate.counters.trial

    def reject(self, slot: str, kind: str) -> None:
        """Count a request to the slot that was refused before it reached the model (malformed JSON, …)."""
        candidate = self.active(slot)
        if candidate is not None:
            candidate.counters.failed(CLIENT, kind)

    def trial_health(self, slot: str) -> TrialHealth:
        """What the active variant did since it was switched in.

        Raises:
            UnknownModelError: the slot serves nothing.
        """
        candidate = self.active(slot)
        if candidate is None:
            raise UnknownModelError(f"slot {slot!r} serves nothing", where=slot)
        return replace(candidate.counters.health(), longest=candidate.longest)

    def longest(self) -> float:
        """For how many seconds the oldest request under way has been computed, by whatever was loaded
        here, taken off meanwhile or not; 0.0 when there is none."""
        with self._lock:
            loaded = list(self._loaded)
        return max((candidate.longest for candidate in loaded), default=0.0)

    def totals(self) -> list[tuple[str, Candidate, Totals]]:
        """Counters that never go back, of everything that is loaded (for ``/metrics``)."""
        with self._lock:
            loaded = [
                (name, item)
                for name, state in self._slots.items()
                for item in (state.active, state.previous)
                if item is not None
            ]
        return [(name, item, item.counters.totals()) for name, item in loaded]

    def collect(self) -> list[WindowCounters]:
        """Windows since the last call: one per variant that serves or has served meanwhile."""
        resources = self._meter.read()
        windows: list[WindowCounters] = []
        with self._lock:
            for state in self._slots.values():
                windows += state.retired
                state.retired = []
                if state.active is not None:
                    windows.append(state.active.counters.cut(resources))
                if state.previous is not None:
                    rest = state.previous.counters.cut(resources)
                    windows += [rest] if rest.requests else []
        return windows

    def close(self) -> None:
        """Serve nothing any more and free everything."""
        for slot in list(self._slots):
            self.remove(slot)

    def expect(self, slot: str, version: str | None) -> None:
        """Make sure that there is such a slot, and that it serves `version`, if given and if it serves.

        Raises:
            UnknownModelError: no such slot, or it serves another version.
        """
        candidate = self._state(slot).active
        if candidate is not None:
            _check_version(candidate, version)

    def _state(self, slot: str) -> _Slot:
        state = self._slots.get(slot)
        if state is None:
            raise UnknownModelError(
                f"there is no slot {slot!r}",
                remedy=f"slots here: {', '.join(sorted(self._slots)) or 'none'}",
            )
        return state

    def _enter(self, slot: str) -> Candidate:
        while True:
            candidate = self._state(slot).active
            if candidate is None:
                raise BusyError(f"slot {slot!r} serves nothing yet", where=slot, code="not_ready")
            if candidate.enter():
                return candidate

    def _closed(self, candidate: Candidate) -> None:
        """Keep what a freed candidate has counted, and return its memory to the system."""
        with self._lock:
            state = self._slots.get(candidate.installed.slot)
            if state is not None:
                self._retire(state, candidate)
        trim()

    def _retire(self, state: _Slot, candidate: Candidate) -> None:
        window = candidate.counters.cut({})
        if window.requests:
            state.retired.append(window)
            del state.retired[:-_KEPT_WINDOWS]


def _check_version(candidate: Candidate, version: str | None) -> None:
    there = candidate.installed.manifest.version
    if version not in (None, there):
        raise UnknownModelError(
            f"slot {candidate.installed.slot!r} serves version {there}, not {version}",
            remedy="leave /versions/… out of the path to get whatever serves the slot",
        )


def _check_memory(installed: Installed) -> None:
    wanted, free = installed.variant.requires.memory_mb, available_memory_mb()
    if wanted and free is not None and free < wanted:
        raise RefusedError(
            f"needs {wanted} MB of memory to load beside what serves, {free:.0f} MB are free",
            where=installed.variant.id,
            remedy="stop other programs, or roll out a smaller variant",
            code="low_memory",
        )


__all__ = ["Candidate", "ModelHost"]
