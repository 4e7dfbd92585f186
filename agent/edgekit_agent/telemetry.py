"""From counters and probe outcomes to the telemetry documents that go into the outbox."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from edgekit.documents import ProbePolicy, ProbeReport, Window
from edgekit.errors import StorageError
from edgekit.ports import Clock
from edgekit_agent.journal import Model, SlotRecord
from edgekit_agent.outbox import Outbox
from edgekit_agent.probing import ProbeOutcome
from edgekit_agent.windows import WindowCounters

_LOG = logging.getLogger("edgekit.agent")
_IDLE_EVERY = 6


class Telemetry:
    """Puts windows and probe reports into the outbox.

    A window without requests is stored only every sixth time: it says no more than that the slot lives.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox, self._clock = outbox, clock
        self._idle: dict[str, int] = {}
        self.lost = 0

    def windows(self, counters: list[WindowCounters], slots: Mapping[str, SlotRecord]) -> int:
        """Store what was counted since the last time; returns how many records."""
        stored = 0
        for item in counters:
            slot = item.installed.slot
            if not item.requests and not item.trial:
                self._idle[slot] = self._idle.get(slot, _IDLE_EVERY - 1) + 1
                if self._idle[slot] % _IDLE_EVERY:
                    continue
            stored += self._store(slot, self._window(item, slots.get(slot)))
        return stored

    def probe(
        self,
        slot: str,
        model: Model,
        outcome: ProbeOutcome,
        *,
        target: str = "",
        policy: ProbePolicy = ProbePolicy.ENFORCE,
        baseline: str | None = None,
        baseline_digest: str | None = None,
    ) -> None:
        """Store what probes said; `baseline` is the incumbent's result on the same items."""
        report = ProbeReport(
            slot=slot,
            boot_id="",
            seq=0,
            oldest=0,
            release=model.release,
            variant=model.variant,
            digest=model.digest,
            deployment=model.deployment,
            at=self._clock.now(),
            probe=outcome.kind,
            target=target,
            n=outcome.n,
            right=outcome.right,
            baseline=baseline,
            baseline_digest=baseline_digest,
            limit=outcome.limit,
            passed=outcome.passed,
            policy=policy,
            detail=dict(outcome.detail),
        )
        self._store(slot, report)

    def _store(self, slot: str, document: Window | ProbeReport) -> int:
        try:
            self._outbox.add(slot, document.to_dict())
        except StorageError as error:
            self.lost += 1
            _LOG.error("a telemetry record is lost: %s", error)
            return 0
        return 1

    def _window(self, item: WindowCounters, record: SlotRecord | None) -> Window:
        installed = item.installed
        digest = installed.variant.digest
        known = record.active if record and record.active.digest == digest else None
        return Window(
            slot=installed.slot,
            boot_id="",
            seq=0,
            oldest=0,
            release=known.release if known else installed.ref,
            variant=known.variant if known else installed.variant.id,
            digest=digest,
            deployment=known.deployment if known else installed.deployment,
            at=self._clock.now(),
            seconds=item.seconds,
            requests=item.requests,
            errors=dict(item.errors),
            latency=dict(item.latency),
            predictions=dict(item.predictions),
            confidence=dict(item.confidence),
            inputs=dict(item.inputs),
            resources=dict(item.resources),
            runtime=item.runtime,
            backend=item.backend,
            trial=item.trial,
        )


__all__ = ["Telemetry"]
