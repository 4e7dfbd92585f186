"""The lifecycle: from a desired document to a committed model, one step after the other.

Decides nothing by itself: what is believed says `edgekit_agent.trust`, what follows what says
`edgekit_agent.swap`. Here the journal is written, the step reported and the work done, blocking work on
threads. Documents arrive by `offer`; a newer one is verified while an older one is being installed,
and only a genuine newer one stops it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgekit.digest import digest_of
from edgekit.documents import Desired, DeviceFacts, DeviceStep, Reason, SlotDesire
from edgekit.errors import DocumentError, EdgekitError, StorageError
from edgekit.ports import Clock
from edgekit_agent import lean, swap
from edgekit_agent.clock import ClockFloor
from edgekit_agent.errors import VerificationError
from edgekit_agent.installer import Installer, Job
from edgekit_agent.journal import Attempt, Journal, Model
from edgekit_agent.reporter import Course, Reporter
from edgekit_agent.swap import Decision, Done, Event
from edgekit_agent.trust import Trust, Verified

_LOG = logging.getLogger("edgekit.agent")
_CLOCK_SECONDS = 5.0
_FIRST_RETRY, _LONGEST_RETRY = 2.0, 600.0


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A verified document being installed; `mark` is the sha256 of its envelope."""

    verified: Verified
    mark: str
    stop: threading.Event

    @property
    def course(self) -> Course:
        desired = self.verified.desired
        return Course(gen=desired.gen, deployment=desired.deployment, attempt=desired.attempt)

    def models(self) -> tuple[Model, ...]:
        return tuple(_model(self.verified.desired, wish) for wish in self.verified.desired.slots.values())

    def truths(self) -> tuple[str, ...]:
        wishes = self.verified.desired.slots.values()
        return tuple(wish.truth.sha256 for wish in wishes if wish.truth)


class Lifecycle:
    """Keeps the slots as the newest genuine desired document says.

    Args:
        journal, reporter, trust, installer, clock, floor: what it works with.
        facts: for the device's own check that a variant can run here.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        reporter: Reporter,
        trust: Trust,
        installer: Installer,
        clock: Clock,
        floor: ClockFloor,
        facts: DeviceFacts,
        device: str,
    ) -> None:
        self._journal, self._reporter, self._trust = journal, reporter, trust
        self._installer, self._clock, self._floor = installer, clock, floor
        self._facts, self._device = facts, device
        self._envelope: bytes | None = None
        self._wake = asyncio.Event()
        self._disk = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._plan: _Plan | None = None
        self._promised: _Plan | None = None
        self._retries = 0
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, envelope: bytes) -> None:
        """A desired document arrived (on the loop's thread); the newest one wins."""
        self._envelope = envelope
        self._wake.set()

    def resume(self) -> None:
        """Go on after a restart with the last accepted document, broker or not."""
        envelope = self._journal.get("envelope").encode()
        if envelope and hashlib.sha256(envelope).hexdigest() != self._journal.get("handled"):
            self.offer(envelope)

    @property
    def busy(self) -> bool:
        """Whether something is being installed."""
        return self._running is not None and not self._running.done()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._envelope is not None:
                    await self._consider(self._envelope)
        finally:
            await self._stop_running()

    async def _stop_running(self) -> None:
        if self._plan is not None:
            self._plan.stop.set()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def _consider(self, envelope: bytes) -> None:
        mark = hashlib.sha256(envelope).hexdigest()
        if mark == self._journal.get("handled") or (self.busy and self._plan and self._plan.mark == mark):
            self._reporter.publish()
            return
        if not self._floor.met(self._clock.now()):
            self._hold_for_clock(envelope)
            return
        plan = await self._verify(envelope, mark)
        if plan is None or self._conflicts(plan.verified.desired):
            return
        await self._stop_running()
        await asyncio.to_thread(self._accept, plan, envelope)
        self._reporter.step(plan.course, DeviceStep.ACCEPTED)
        self._plan = plan
        self._running = asyncio.create_task(self._install(plan))

    def _hold_for_clock(self, envelope: bytes) -> None:
        reason = Reason(
            code="clock_before_floor",
            text="this device's clock shows a time before the last one it saw signed; nothing is installed",
            retryable=True,
        )
        peeked = _peek(envelope)
        if peeked is not None and self._is_news(peeked):
            self._reporter.step(_course(peeked), DeviceStep.ACCEPTED, reason=reason, clock_ok=False)
        self._again(_CLOCK_SECONDS)

    def _is_news(self, peeked: Desired) -> bool:
        """Whether an unverified document may be reported about: it names this device, no older gen."""
        return peeked.device == self._device and peeked.gen >= int(self._journal.get("gen", "0"))

    async def _verify(self, envelope: bytes, mark: str) -> _Plan | None:
        gen = int(self._journal.get("gen", "0"))
        slots = self._journal.slots()
        installed = {name: f"{s.active.package}/{s.active.digest}" for name, s in slots.items()}
        try:
            async with self._disk:
                verified = await asyncio.to_thread(
                    self._trust.desired, envelope, gen=gen, installed=installed
                )
                self._promised = plan = _Plan(verified=verified, mark=mark, stop=threading.Event())
        except VerificationError as error:
            await self._refused(error, envelope, mark)
            return None
        if not self._floor.met(self._clock.now()) or verified.desired.issued > self._clock.now() + 300:
            await asyncio.to_thread(self._floor.saw, verified.desired.issued, now=self._clock.now())
            if not self._floor.met(self._clock.now()):
                self._hold_for_clock(envelope)
                return None
        return plan

    async def _refused(self, error: VerificationError, envelope: bytes, mark: str) -> None:
        """What was not believed: said in a way that no forger can stop a deployment with it."""
        _LOG.warning("refused (%s): %s", error.code, error)
        reason = Reason(code=error.code, text=str(error), retryable=error.retryable)
        peeked = _peek(envelope)
        if error.stage == "envelope" or peeked is None or not self._is_news(peeked):
            self._reporter.refuse(reason)
            return
        if error.retryable:
            self._reporter.step(_course(peeked), DeviceStep.ACCEPTED, reason=reason)
            self._again(self._backoff())
            return
        self._reporter.step(_course(peeked), DeviceStep.REJECTED, reason=reason)
        if error.stage == "package":
            await asyncio.to_thread(self._journal.put, gen=str(peeked.gen), handled=mark)
        else:
            self._again(self._backoff())

    def _conflicts(self, desired: Desired) -> bool:
        """A second document with a gen that was accepted before must say the same."""
        known = json.loads(self._journal.get("accepted", "{}"))
        if known.get("gen") != desired.gen or known.get("content") == _content(desired):
            return False
        self._reporter.refuse(
            Reason(code="gen_conflict", text=f"gen {desired.gen} was accepted before with another content")
        )
        return True

    def _accept(self, plan: _Plan, envelope: bytes) -> None:
        desired = plan.verified.desired
        self._floor.saw(desired.issued, now=self._clock.now())
        self._journal.put(
            gen=str(desired.gen),
            accepted=json.dumps({"gen": desired.gen, "content": _content(desired)}),
            envelope=envelope.decode("utf-8", "replace"),
            handled="",  # what was handled before is a replay from here on
        )

    def _backoff(self) -> float:
        pause = min(_FIRST_RETRY * float(2**self._retries), _LONGEST_RETRY)
        self._retries += 1
        return pause * (0.5 + 0.5 * random.random())

    def _again(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)

    # one document -------------------------------------------------------------------------------

    async def _install(self, plan: _Plan) -> None:
        """Bring every slot of the document where it shall be, one after the other."""
        await self._clean()
        for slot in set(self._journal.slots()) - set(plan.verified.desired.slots):
            await asyncio.to_thread(self._installer.remove, slot)
        desired, last = plan.verified.desired, DeviceStep.CURRENT
        reason: Reason | None = None
        slot = ""
        for slot, wish in sorted(desired.slots.items()):
            attempt = await self._slot(plan, slot, wish)
            if attempt is None:
                continue
            last, reason = attempt.step, attempt.reason
            if not last.good:
                break
        self._reporter.step(plan.course, last, slot=slot, percent=100, reason=reason)
        if reason is not None and reason.retryable and last is not DeviceStep.SUPERSEDED:
            self._again(self._backoff())
            return
        self._retries = 0
        if last is not DeviceStep.SUPERSEDED:
            await asyncio.to_thread(self._journal.put, handled=plan.mark)
        if self._promised is plan:
            self._promised = None
        self._plan = None
        await self._clean()
        await asyncio.to_thread(lean.trim)

    async def _clean(self) -> None:
        """Free the disk, but for what the slots and the documents under way need."""
        async with self._disk:
            plans = [item for item in (self._plan, self._promised) if item is not None]
            keep = [model for item in plans for model in item.models()]
            truth = [sha for item in plans for sha in item.truths()]
            await asyncio.to_thread(self._installer.clean, keep, truth)

    async def _slot(self, plan: _Plan, slot: str, wish: SlotDesire) -> Attempt | None:
        """Install into one slot; None when there is nothing to do there."""
        desired = plan.verified.desired
        model = _model(desired, wish)
        record = self._journal.slots().get(slot)
        if record and (record.active.digest, record.active.package) == (wish.digest, wish.package):
            return None
        attempt = self._begin(desired, slot, model)
        if attempt.step.terminal:
            return attempt
        job = Job(
            attempt=attempt,
            wish=wish,
            evidence=plan.verified.slots.get(slot),
            facts=self._facts,
            stop=plan.stop,
            progress=lambda percent: self._reporter.step(
                plan.course, DeviceStep.DOWNLOADING, slot=slot, percent=percent
            ),
        )
        if record and record.active.digest == wish.digest:
            decision = swap.already_current()
        else:
            decision = swap.decide(DeviceStep.ACCEPTED, await asyncio.to_thread(self._installer.check, job))
        return await self._follow(plan, job, decision)

    def _begin(self, desired: Desired, slot: str, model: Model) -> Attempt:
        """The attempt the journal knows (after a restart), else a new one."""
        known = self._journal.attempts().get(slot)
        if known and (known.gen, known.model) == (desired.gen, model):
            final = known.step.terminal and not (known.reason and known.reason.retryable)
            return known if final else replace(known, step=DeviceStep.ACCEPTED, reason=None)
        return Attempt(
            slot=slot,
            gen=desired.gen,
            deployment=desired.deployment,
            attempt=desired.attempt,
            model=model,
            at=self._clock.now(),
        )

    async def _follow(self, plan: _Plan, job: Job, decision: Decision) -> Attempt:
        """Journal, report, work, decide; until the attempt is over."""
        while True:
            job = job.at(decision, clock=self._clock.now())
            event = await self._perform(plan, job, decision)
            if decision.step.good and event.done is not Done.OK:
                decision = swap.not_on_record(decision.step, event)
                continue
            if decision.step.terminal:
                return job.attempt
            if plan.stop.is_set() and event.done is not Done.OK:
                event = _superseded()
            decision = swap.decide(decision.step, event)

    async def _perform(self, plan: _Plan, job: Job, decision: Decision) -> Event:
        event, step = Event(), decision.step
        try:
            await self._note(job, decision)
            if not step.terminal:
                self._reporter.step(plan.course, step, slot=job.attempt.slot, reason=decision.reason)
                if plan.stop.is_set():
                    return _superseded()
            for work in decision.work:
                event = await self._installer.do(work, job)
        except VerificationError as error:
            return Event(done=Done.REFUSED, reason=_reason(error, retryable=error.retryable))
        except EdgekitError as error:
            _LOG.warning("%s of %s failed: %s", step.value, job.attempt.slot, error)
            lasting = isinstance(error, StorageError)
            return _failed(error, retryable=bool(getattr(error, "retryable", lasting)))
        return event

    async def _note(self, job: Job, decision: Decision) -> None:
        """Journal first; only a step that undoes things is done even if that cannot be written."""
        try:
            await asyncio.to_thread(self._installer.note, job, decision)
        except StorageError as error:
            if decision.step.good or not decision.step.terminal:
                raise
            _LOG.error("%s of %s is not on record: %s", decision.step.value, job.attempt.slot, error)


def _superseded() -> Event:
    return Event(done=Done.SUPERSEDED, reason=Reason(code="superseded", text="a newer desired state arrived"))


def _failed(error: EdgekitError, *, retryable: bool) -> Event:
    return Event(done=Done.FAILED, reason=_reason(error, retryable=retryable))


def _reason(error: EdgekitError, *, retryable: bool) -> Reason:
    return Reason(code=error.code, text=str(error)[:500], retryable=retryable)


def _model(desired: Desired, wish: SlotDesire) -> Model:
    return Model(
        release=wish.release,
        package=wish.package,
        variant=wish.variant,
        digest=wish.digest,
        deployment=desired.deployment,
    )


def _content(desired: Desired) -> str:
    body: Mapping[str, Any] = desired.to_dict()
    return digest_of({name: value for name, value in body.items() if name != "issued"})


def _course(desired: Desired) -> Course:
    return Course(gen=desired.gen, deployment=desired.deployment, attempt=desired.attempt)


def _peek(envelope: bytes) -> Desired | None:
    """What an envelope says, believed by nobody: only to name what a report is about."""
    try:
        value = json.loads(envelope)
        return Desired.from_dict(value["signed"])
    except (ValueError, KeyError, TypeError, DocumentError):
        return None


__all__ = ["Lifecycle"]
