"""The swap as pure decisions: step × event → next step and work; and what a boot does with what it finds.

No IO, no time: `edgekit_agent.lifecycle` writes the journal, reports the step and then does the work
named here, in this order::

    accepted → downloading → verifying → preparing → probing → (switch) trial → committed
                    └───────────┴────────────┴─────────┴──────────────┴→ failed, rejected, reverted
                                                                         or superseded by a newer gen

The rules:

1. Nothing is loaded that was not verified, nothing serves that did not pass the package probes.
2. A miss of ground-truth probes reverts before serving under `enforce`, is only reported under `observe`.
3. Before the switch the incumbent is not touched; in the trial it is one pointer away; after the
   commit it is the *previous* model, still on disk.
4. A newer gen ends a running attempt at any step before the commit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from edgekit.documents import DeviceStep, ProbePolicy, Reason
from edgekit_agent.journal import Attempt, SlotRecord
from edgekit_agent.windows import TrialHealth

MAX_TRIES = 2
"""Starts of the risky part (loading, probing) before a model that takes the process down is given up."""

CRASHES_BEFORE_REVERT = 5
"""Starts in a row that did not live long before a slot goes back to its previous model."""

_TRIAL_ERRORS = 3
_TRIAL_ERROR_SHARE = 0.05


class Work(str, Enum):
    """Something the lifecycle does between two steps."""

    DOWNLOAD = "download"
    VERIFY = "verify"
    PREPARE = "prepare"
    PROBE = "probe"
    SWITCH = "switch"
    WATCH = "watch"
    COMMIT = "commit"
    ADOPT = "adopt"
    REVERT = "revert"
    DROP = "drop"


class Done(str, Enum):
    """How the last piece of work ended."""

    OK = "ok"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened; `reason` says why for anything but OK."""

    done: Done = Done.OK
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The next step and the work to do in it; the last piece of work yields the next event."""

    step: DeviceStep
    work: tuple[Work, ...] = ()
    reason: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Outcome of the probes: None where there were none."""

    package: bool | None
    truth: bool | None
    policy: ProbePolicy


_NEXT: dict[DeviceStep, Decision] = {
    DeviceStep.ACCEPTED: Decision(step=DeviceStep.DOWNLOADING, work=(Work.DOWNLOAD,)),
    DeviceStep.DOWNLOADING: Decision(step=DeviceStep.VERIFYING, work=(Work.VERIFY,)),
    DeviceStep.VERIFYING: Decision(step=DeviceStep.PREPARING, work=(Work.PREPARE,)),
    DeviceStep.PREPARING: Decision(step=DeviceStep.PROBING, work=(Work.PROBE,)),
    DeviceStep.PROBING: Decision(step=DeviceStep.TRIAL, work=(Work.SWITCH, Work.WATCH)),
    DeviceStep.TRIAL: Decision(step=DeviceStep.COMMITTED, work=(Work.COMMIT,)),
}

_UNDO: dict[DeviceStep, tuple[Work, ...]] = {
    DeviceStep.PREPARING: (Work.DROP,),
    DeviceStep.PROBING: (Work.DROP,),
    DeviceStep.TRIAL: (Work.REVERT, Work.DROP),
}


def decide(step: DeviceStep, event: Event) -> Decision:
    """What follows when the work of `step` ended with `event`.

    Raises:
        ValueError: the attempt is over already.
    """
    if step.terminal or step is DeviceStep.IDLE:
        raise ValueError(f"nothing follows {step.value}")
    if event.done is Done.OK:
        return _NEXT[step]
    undo = _UNDO.get(step, ())
    if event.done is Done.SUPERSEDED:
        return Decision(step=DeviceStep.SUPERSEDED, work=undo, reason=event.reason)
    if event.done is Done.REFUSED and step in (
        DeviceStep.ACCEPTED,
        DeviceStep.DOWNLOADING,
        DeviceStep.VERIFYING,
    ):
        return Decision(step=DeviceStep.REJECTED, work=undo, reason=event.reason)
    if step is DeviceStep.TRIAL or (step is DeviceStep.PROBING and event.done is Done.REFUSED):
        return Decision(step=DeviceStep.REVERTED, work=undo, reason=event.reason)
    return Decision(step=DeviceStep.FAILED, work=undo, reason=event.reason)


def already_current() -> Decision:
    """The variant asked for is the one that runs: only its name changes."""
    return Decision(step=DeviceStep.CURRENT, work=(Work.ADOPT,))


def not_on_record(step: DeviceStep, event: Event) -> Decision:
    """What follows when a good end could not be written down: it did not happen."""
    if step is DeviceStep.COMMITTED:
        return decide(DeviceStep.TRIAL, event)
    return Decision(step=DeviceStep.FAILED, reason=event.reason)


def judge_probes(probed: Probed) -> Event:
    """Whether the candidate may serve."""
    if probed.package is False:
        return Event(
            done=Done.REFUSED,
            reason=Reason(
                code="package_probe_failed",
                text="this device does not compute what the converter computed",
            ),
        )
    if probed.truth is False and probed.policy is ProbePolicy.ENFORCE:
        return Event(
            done=Done.REFUSED,
            reason=Reason(
                code="truth_probe_failed",
                text="the model gets the slot's ground-truth probes wrong; it never served",
            ),
        )
    return Event()


def judge_trial(health: TrialHealth, *, seconds: float, hang: float) -> Event | None:
    """The watchdog's verdict on a model in its trial of `seconds`, None while it is too early.

    It fails at once on a clear case (three errors of the model and 5 % of its requests, an inference
    that has not returned for `hang` seconds), and at the end on any share above 5 %. The end waits for
    every inference that began before it.
    """
    if health.longest >= hang:
        text = f"an inference has not returned for {health.longest:.0f} s"
        return Event(done=Done.FAILED, reason=Reason(code="trial_hang", text=text))
    share = health.model_errors / health.requests if health.requests else 0.0
    over = health.seconds >= seconds
    if share > _TRIAL_ERROR_SHARE and (over or health.model_errors >= _TRIAL_ERRORS):
        return Event(
            done=Done.FAILED,
            reason=Reason(
                code="trial_errors",
                text=f"{health.model_errors} of {health.requests} requests failed in the trial",
            ),
        )
    return Event() if over and health.longest <= health.seconds - seconds else None


class Recovery(str, Enum):
    """What a boot does with an attempt that was not over when the process ended."""

    NOTHING = "nothing"
    RESUME = "resume"
    GIVE_UP = "give_up"
    REVERTED = "reverted"


def recover(attempt: Attempt) -> Recovery:
    """The boot recovery table.

    ============================ ==========================================================
    found in the journal         what the boot does
    ============================ ==========================================================
    accepted, downloading        go on: partial downloads are kept, nothing else happened
    verifying                    go on: verifying has no effect
    preparing, probing           drop the candidate; once more, then give the model up
    trial                        the previous model runs again (the commit was not written)
    committed and other ends     go on with what the slots say
    ============================ ==========================================================
    """
    if attempt.step.terminal or attempt.step is DeviceStep.IDLE:
        return Recovery.NOTHING
    if attempt.step in (DeviceStep.ACCEPTED, DeviceStep.DOWNLOADING, DeviceStep.VERIFYING):
        return Recovery.RESUME
    if attempt.step is DeviceStep.TRIAL:
        return Recovery.REVERTED
    return Recovery.RESUME if attempt.tries < MAX_TRIES else Recovery.GIVE_UP


def interrupted(attempt: Attempt, recovery: Recovery) -> Attempt:
    """The attempt as it ends when its recovery is GIVE_UP or REVERTED."""
    if recovery is Recovery.REVERTED:
        reason = Reason(code="restarted_in_trial", text="the agent restarted while the model was on trial")
        return attempt.to(DeviceStep.REVERTED, reason)
    text = f"the agent ended {attempt.tries} times while {attempt.step.value}"
    return attempt.to(DeviceStep.FAILED, Reason(code="crashed_while_loading", text=text))


def crash_loop(record: SlotRecord, crashes: int) -> SlotRecord | None:
    """The slot after too many crashes in a row: its previous model, or None to leave it as it is."""
    if crashes < CRASHES_BEFORE_REVERT or record.previous is None:
        return None
    return replace(record, active=record.previous, previous=None)


def committed(record: SlotRecord | None, attempt: Attempt, at: float) -> SlotRecord:
    """What the slot runs once the attempt is committed at time `at`.

    A model that was left for the one before it is nothing to fall back to: it was taken back.
    """
    before = record.previous if record else None
    way_back = before is not None and before.digest == attempt.model.digest
    return SlotRecord(
        slot=attempt.slot,
        active=replace(attempt.model, deployment=attempt.deployment, since=at),
        previous=record.active if record and not way_back else None,
    )


def adopted(record: SlotRecord, attempt: Attempt) -> SlotRecord:
    """The slot when the variant it runs goes by a new release's name."""
    model = replace(attempt.model, deployment=attempt.deployment, since=record.active.since)
    return replace(record, active=model)


__all__ = [
    "CRASHES_BEFORE_REVERT",
    "MAX_TRIES",
    "Decision",
    "Done",
    "Event",
    "Probed",
    "Recovery",
    "Work",
    "adopted",
    "already_current",
    "committed",
    "crash_loop",
    "decide",
    "interrupted",
    "judge_probes",
    "judge_trial",
    "not_on_record",
    "recover",
]
