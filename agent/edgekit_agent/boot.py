"""What happens between the start of the process and its first request: recovery, then the models.

The table that decides is `edgekit_agent.swap.recover`; here its verdicts are carried out on the
journal, and the slots' models are loaded: a damaged or refused one gives way to its previous.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit.documents import DeviceStep, Reason
from edgekit.errors import EdgekitError
from edgekit_agent import swap
from edgekit_agent.journal import Attempt, Journal, SlotRecord
from edgekit_agent.reporter import Course, Reporter
from edgekit_agent.store import Store
from edgekit_agent.swap import Recovery

if TYPE_CHECKING:
    from edgekit_agent.serving.host import ModelHost

_LOG = logging.getLogger("edgekit.agent")
_CRASHES = "crashes"


def count_start(journal: Journal) -> int:
    """Note that a process started; returns how many did in a row without living long."""
    return journal.count(_CRASHES) - 1


def lived(journal: Journal) -> None:
    """Note that this process lived long enough, or ended as it should."""
    journal.put(**{_CRASHES: "0"})


def recover(journal: Journal, reporter: Reporter, crashes: int) -> None:
    """End what the last process left unfinished, and leave a crash loop."""
    for attempt in journal.attempts().values():
        verdict = swap.recover(attempt)
        if verdict in (Recovery.GIVE_UP, Recovery.REVERTED):
            _LOG.warning("slot %s: %s while %s", attempt.slot, verdict.value, attempt.step.value)
            _end(journal, reporter, swap.interrupted(attempt, verdict))
    for record in journal.slots().values():
        healthy = swap.crash_loop(record, crashes)
        if healthy is not None:
            text = f"{crashes} starts in a row ended early with {record.active.release}"
            _fall_back(journal, reporter, record, healthy, Reason(code="crash_loop", text=text))
            lived(journal)


def load(journal: Journal, reporter: Reporter, store: Store, host: ModelHost) -> None:
    """Load every slot's model; one that cannot be loaded gives way to its previous."""
    for record in journal.slots().values():
        try:
            _serve(store, host, record)
        except EdgekitError as error:
            _LOG.error("slot %s cannot load %s: %s", record.slot, record.active.release, error)
            _load_previous(journal, reporter, store, host, record, error)


def _load_previous(
    journal: Journal,
    reporter: Reporter,
    store: Store,
    host: ModelHost,
    record: SlotRecord,
    error: EdgekitError,
) -> None:
    reason = Reason(code=error.code, text=f"{record.active.release} cannot be loaded: {error}")
    if record.previous is None:
        _fetch_anew(journal, reporter, record, reason)
        return
    healthy = replace(record, active=record.previous, previous=None)
    try:
        _serve(store, host, healthy)
    except EdgekitError as second:
        _LOG.error("slot %s cannot load %s either: %s", record.slot, healthy.active.release, second)
        _fetch_anew(journal, reporter, record, reason)
        return
    _fall_back(journal, reporter, record, healthy, reason)


def _fetch_anew(journal: Journal, reporter: Reporter, record: SlotRecord, reason: Reason) -> None:
    """The slot runs nothing, and says so; the desired state is then worked through once more."""
    _tell(reporter, journal, record, DeviceStep.FAILED, replace(reason, retryable=True))
    journal.remove_slot(record.slot)
    journal.put(handled="")


def _serve(store: Store, host: ModelHost, record: SlotRecord) -> None:
    host.switch(record.slot, host.prepare(store.installed(record.slot, record.active)))
    host.commit(record.slot)


def _fall_back(
    journal: Journal, reporter: Reporter, record: SlotRecord, healthy: SlotRecord, reason: Reason
) -> None:
    journal.set_slot(healthy)
    _tell(reporter, journal, record, DeviceStep.REVERTED, reason)


def _tell(reporter: Reporter, journal: Journal, record: SlotRecord, step: DeviceStep, reason: Reason) -> None:
    """Put the end on record under the attempt that brought the model, if it is known."""
    attempt = journal.attempts().get(record.slot)
    if attempt is not None:
        _end(journal, reporter, attempt.to(step, reason))


def _end(journal: Journal, reporter: Reporter, attempt: Attempt) -> None:
    journal.write(attempt)
    course = Course(gen=attempt.gen, deployment=attempt.deployment, attempt=attempt.attempt)
    reporter.step(course, attempt.step, slot=attempt.slot, percent=100, reason=attempt.reason)


__all__ = ["count_start", "lived", "load", "recover"]
