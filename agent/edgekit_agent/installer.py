"""The work behind the steps: each `swap.Work` done once, on the disk, the model host or the probes.

Holds the candidates under way; everything blocking runs on threads. Order and consequences are
`edgekit_agent.swap`'s and `edgekit_agent.lifecycle`'s.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekit.documents import DeviceFacts, DeviceStep, ProbePolicy, Reason, SlotDesire, TruthProbes
from edgekit.errors import DocumentError, EdgekitError, StorageError
from edgekit.package import File
from edgekit.ports import Clock
from edgekit.select import variant_table, why_not
from edgekit_agent import swap
from edgekit_agent.download import Downloader
from edgekit_agent.errors import InstallError
from edgekit_agent.journal import Attempt, Journal, Model
from edgekit_agent.store import Store, files_of
from edgekit_agent.swap import Decision, Done, Event, Probed, Work
from edgekit_agent.telemetry import Telemetry
from edgekit_agent.trust import Evidence, Trust

if TYPE_CHECKING:
    from edgekit_agent.serving.host import Candidate, ModelHost

_LOG = logging.getLogger("edgekit.agent")
_PROGRESS_SECONDS = 1.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt with what it needs; `stop` is set when something newer supersedes it."""

    attempt: Attempt
    wish: SlotDesire
    evidence: Evidence | None
    facts: DeviceFacts
    stop: threading.Event
    progress: Callable[[int], None]

    def at(self, decision: Decision, *, clock: float) -> Job:
        """The job in its next step."""
        attempt = replace(self.attempt.to(decision.step, decision.reason), at=clock)
        if decision.step is DeviceStep.PREPARING:
            attempt = replace(attempt, tries=attempt.tries + 1)
        return replace(self, attempt=attempt)


class Installer:
    """Does the work of one attempt at a time.

    Args:
        prepare_seconds: how long loading (an engine build, say) may take.
        hang_seconds: how long one inference of a candidate may take.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        store: Store,
        trust: Trust,
        downloader: Downloader,
        host: ModelHost,
        telemetry: Telemetry,
        clock: Clock,
        prepare_seconds: float = 900.0,
        hang_seconds: float = 30.0,
    ) -> None:
        self._journal, self._store, self._trust = journal, store, trust
        self._downloader, self._host = downloader, host
        self._telemetry, self._clock = telemetry, clock
        self._prepare_seconds, self._hang_seconds = prepare_seconds, hang_seconds
        self._candidates: dict[str, Candidate] = {}

    def check(self, job: Job) -> Event:
        """The device's own opinion, before anything is fetched: can this variant run here?"""
        try:
            manifest = self._store.manifest(job.wish.package)
        except (StorageError, DocumentError) as error:
            return Event(done=Done.FAILED, reason=Reason(code=error.code, text=str(error), retryable=True))
        entry = next((item for item in variant_table(manifest) if item.id == job.wish.variant), None)
        why = why_not(entry, job.facts, allow_unverified=job.wish.allow_unverified) if entry else "not there"
        if why is None:
            return Event()
        text = f"variant {job.wish.variant} cannot run here: {why}"
        return Event(done=Done.REFUSED, reason=Reason(code="incompatible", text=text))

    def note(self, job: Job, decision: Decision) -> None:
        """Write the journal for a step that is about to be done."""
        if Work.COMMIT in decision.work:
            record = self._journal.slots().get(job.attempt.slot)
            self._journal.settle(job.attempt, swap.committed(record, job.attempt, self._clock.now()))
        elif Work.ADOPT not in decision.work:
            self._journal.write(job.attempt)

    async def do(self, work: Work, job: Job) -> Event:
        """Do one piece of work.

        Raises:
            EdgekitError: it failed; the lifecycle decides what follows.
        """
        if work is Work.PREPARE:
            return await self._prepare(job)
        if work is Work.PROBE:
            return await self._probing(job)
        if work is Work.WATCH:
            return await self._watch(job)
        simple = {
            Work.DOWNLOAD: self._download,
            Work.VERIFY: self._verify,
            Work.SWITCH: self._switch,
            Work.COMMIT: self._commit,
            Work.ADOPT: self._adopt,
            Work.REVERT: self._revert,
            Work.DROP: self._drop,
        }
        return await asyncio.to_thread(simple[work], job)

    def remove(self, slot: str) -> None:
        """Stop serving a slot that is not in the desired state any more."""
        _LOG.warning("slot %s is not wanted any more: it serves nothing from now on", slot)
        self._journal.remove_slot(slot)
        self._host.remove(slot)

    def clean(self, keep: Iterable[Model], truth: Iterable[str]) -> None:
        """Remove from the disk what neither the slots nor `keep` need."""
        needed = list(keep)
        for record in self._journal.slots().values():
            needed += [record.active] + ([record.previous] if record.previous else [])
        self._store.clean(needed, truth=set(truth))

    # work ---------------------------------------------------------------------------------------

    def _files(self, job: Job) -> tuple[File, ...]:
        manifest = self._store.manifest(job.wish.package)
        return files_of(manifest.variant(job.wish.variant))

    def _download(self, job: Job) -> Event:
        files = self._files(job)
        missing = [item for item in files if not self._store.has(item)]
        whole = sum(item.bytes for item in files) or 1
        got = whole - sum(item.bytes for item in missing)
        told = time.monotonic()

        def progress(more: int) -> None:
            nonlocal got, told
            got += more
            if time.monotonic() - told >= _PROGRESS_SECONDS:
                told = time.monotonic()
                job.progress(min(99, 100 * got // whole))

        for item in missing:
            partial = self._store.partial(item.sha256)
            self._downloader.fetch(item, partial, stop=job.stop, progress=progress)
            self._store.adopt(item)
        self._store.assemble(job.wish.package, files)
        return Event()

    def _verify(self, job: Job) -> Event:
        folder = self._store.package(job.wish.package)
        self._trust.files(folder, package=job.wish.package, variant=job.wish.variant)
        return Event()

    async def _prepare(self, job: Job) -> Event:
        loading = asyncio.ensure_future(asyncio.to_thread(self._load, job))
        done, _ = await asyncio.wait([loading], timeout=self._prepare_seconds)
        if not done:
            loading.add_done_callback(_close_late)
            raise InstallError(
                f"loading took longer than {self._prepare_seconds:.0f} s", code="prepare_timeout"
            )
        self._candidates[job.attempt.slot] = loading.result()
        return Event()

    def _load(self, job: Job) -> Candidate:
        return self._host.prepare(self._store.installed(job.attempt.slot, job.attempt.model))

    async def _probing(self, job: Job) -> Event:
        """Probe, and give up on a model that never answers one."""
        probing = asyncio.ensure_future(asyncio.to_thread(self._probe, job))
        while not (await asyncio.wait([probing], timeout=_LOOK_SECONDS))[0]:
            if self._candidates[job.attempt.slot].longest >= self._hang_seconds:
                probing.add_done_callback(_unheard)
                raise InstallError(
                    f"an inference has not returned for {self._hang_seconds:g} s", code="probe_hang"
                )
        return probing.result()

    def _probe(self, job: Job) -> Event:
        from edgekit_agent.probing import run_package_probes

        slot, model = job.attempt.slot, job.attempt.model
        candidate = self._candidates[slot]
        probe, package = candidate.installed.variant.probe, None
        if probe is not None:
            outcome = run_package_probes(candidate, candidate.installed.folder / probe.file.path)
            self._telemetry.probe(slot, model, outcome)
            package = outcome.passed
        policy = job.wish.truth.policy if job.wish.truth else ProbePolicy.OBSERVE
        truth = None
        if package is not False and job.wish.truth is not None:
            truth = self._truth(job, job.wish.truth, candidate)
        return swap.judge_probes(Probed(package=package, truth=truth, policy=policy))

    def _truth(self, job: Job, wish: TruthProbes, candidate: Candidate) -> bool:
        """Ground-truth probes, on the incumbent too: the pairs are what a gate judges by."""
        from edgekit_agent.probing import run_truth_probes

        if job.evidence is None or job.evidence.truth is None:
            raise InstallError("the ground-truth probes are not here", code="probes_missing", retryable=True)
        outcome = run_truth_probes(candidate, job.evidence.truth, wish.min_accuracy)
        baseline = baseline_digest = None
        incumbent = self._host.active(job.attempt.slot)
        if incumbent is not None:
            try:
                baseline = run_truth_probes(incumbent, job.evidence.truth, wish.min_accuracy).right
                baseline_digest = incumbent.installed.variant.digest
            except EdgekitError as error:
                _LOG.warning("no baseline, the incumbent cannot run the probes: %s", error)
        self._telemetry.probe(
            job.attempt.slot,
            job.attempt.model,
            outcome,
            target=wish.target,
            policy=wish.policy,
            baseline=baseline,
            baseline_digest=baseline_digest,
        )
        return outcome.passed

    def _switch(self, job: Job) -> Event:
        self._host.switch(job.attempt.slot, self._candidates[job.attempt.slot])
        return Event()

    async def _watch(self, job: Job) -> Event:
        pause = min(_LOOK_SECONDS, max(0.02, job.wish.trial_seconds / 5))
        while True:
            if job.stop.is_set():
                return Event(done=Done.SUPERSEDED)
            health = self._host.trial_health(job.attempt.slot)
            verdict = swap.judge_trial(health, seconds=job.wish.trial_seconds, hang=self._hang_seconds)
            if verdict is not None:
                return verdict
            await asyncio.sleep(pause)

    def _commit(self, job: Job) -> Event:
        self._candidates.pop(job.attempt.slot, None)
        self._host.commit(job.attempt.slot)
        return Event()

    def _adopt(self, job: Job) -> Event:
        """The same bytes under a new release's name: link them there, then say so."""
        manifest = self._store.manifest(job.wish.package)
        variant = manifest.variant(job.wish.variant)
        self._store.assemble(job.wish.package, variant.files)
        record = self._journal.slots()[job.attempt.slot]
        self._journal.settle(job.attempt, swap.adopted(record, job.attempt))
        serving = self._host.active(job.attempt.slot)
        if serving is not None:
            serving.installed = self._store.installed(job.attempt.slot, job.attempt.model)
        return Event()

    def _revert(self, job: Job) -> Event:
        """Back to the previous model, if the candidate was switched in at all."""
        slot = job.attempt.slot
        candidate = self._candidates.get(slot)
        if candidate is not None and self._host.active(slot) is candidate and not self._host.revert(slot):
            self._host.remove(slot)
        return Event()

    def _drop(self, job: Job) -> Event:
        candidate = self._candidates.pop(job.attempt.slot, None)
        if candidate is not None:
            candidate.close()
        return Event()


def _unheard(probing: asyncio.Future[Event]) -> None:
    """Whatever came of it in the end, the attempt is over."""
    if not probing.cancelled():
        probing.exception()


def _close_late(loading: asyncio.Future[Candidate]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()


__all__ = ["Installer", "Job"]
