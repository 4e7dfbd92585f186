"""The pure core: every step with every event, the recovery table, the watchdog."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.documents import DeviceStep, ProbePolicy, Reason
from edgekit.sketches import LatencyHistogram
from edgekit_agent import swap
from edgekit_agent.journal import Attempt, Model, SlotRecord
from edgekit_agent.swap import Done, Event, Probed, Recovery, Work
from edgekit_agent.windows import TrialHealth

RUNNING = [step for step in DeviceStep if not step.terminal and step is not DeviceStep.IDLE]
ORDER = [
    DeviceStep.ACCEPTED,
    DeviceStep.DOWNLOADING,
    DeviceStep.VERIFYING,
    DeviceStep.PREPARING,
    DeviceStep.PROBING,
    DeviceStep.TRIAL,
    DeviceStep.COMMITTED,
]
OLD = Model(release="toy@1", package="sha256:a", variant="v", digest="sha256:1")
NEW = Model(release="toy@2", package="sha256:b", variant="v", digest="sha256:2")
ATTEMPT = Attempt(slot="toy", gen=2, deployment="r-2", attempt=1, model=NEW)
WHY = Reason(code="x", text="y")


def test_the_way_to_a_commit_is_the_designs_order() -> None:
    steps = [DeviceStep.ACCEPTED]
    while not steps[-1].terminal:
        steps.append(swap.decide(steps[-1], Event()).step)
    assert steps == ORDER


def test_nothing_serves_before_the_probes_and_nothing_is_loaded_before_it_is_verified() -> None:
    done: list[Work] = []
    step = DeviceStep.ACCEPTED
    while not step.terminal:
        decision = swap.decide(step, Event())
        done += decision.work
        step = decision.step
    assert done == [
        Work.DOWNLOAD,
        Work.VERIFY,
        Work.PREPARE,
        Work.PROBE,
        Work.SWITCH,
        Work.WATCH,
        Work.COMMIT,
    ]


@given(st.sampled_from(RUNNING), st.sampled_from([done for done in Done if done is not Done.OK]))
def test_whatever_fails_the_end_is_terminal_and_undoes_what_was_done(step: DeviceStep, done: Done) -> None:
    decision = swap.decide(step, Event(done=done, reason=WHY))
    assert decision.step.terminal
    assert not decision.step.good
    assert decision.reason == WHY
    assert (Work.REVERT in decision.work) == (step is DeviceStep.TRIAL)
    loaded = step in (DeviceStep.PREPARING, DeviceStep.PROBING, DeviceStep.TRIAL)
    assert (Work.DROP in decision.work) == loaded


@pytest.mark.parametrize("step", [step for step in DeviceStep if step not in RUNNING])
def test_nothing_follows_an_attempt_that_is_over(step: DeviceStep) -> None:
    with pytest.raises(ValueError, match="nothing follows"):
        swap.decide(step, Event())


@pytest.mark.parametrize(
    ("step", "done", "end"),
    [
        (DeviceStep.VERIFYING, Done.REFUSED, DeviceStep.REJECTED),
        (DeviceStep.ACCEPTED, Done.REFUSED, DeviceStep.REJECTED),
        (DeviceStep.DOWNLOADING, Done.FAILED, DeviceStep.FAILED),
        (DeviceStep.PREPARING, Done.FAILED, DeviceStep.FAILED),
        (DeviceStep.PROBING, Done.REFUSED, DeviceStep.REVERTED),
        (DeviceStep.TRIAL, Done.FAILED, DeviceStep.REVERTED),
        (DeviceStep.TRIAL, Done.SUPERSEDED, DeviceStep.SUPERSEDED),
    ],
)
def test_how_an_attempt_ends(step: DeviceStep, done: Done, end: DeviceStep) -> None:
    assert swap.decide(step, Event(done=done, reason=WHY)).step is end


def probes(package: bool | None, truth: bool | None, policy: ProbePolicy) -> Done:
    return swap.judge_probes(Probed(package=package, truth=truth, policy=policy)).done


def test_a_miss_of_the_truth_reverts_under_enforce_and_is_only_reported_under_observe() -> None:
    assert probes(True, False, ProbePolicy.ENFORCE) is Done.REFUSED
    assert probes(True, False, ProbePolicy.OBSERVE) is Done.OK
    assert probes(True, True, ProbePolicy.ENFORCE) is Done.OK
    assert probes(None, None, ProbePolicy.ENFORCE) is Done.OK


def test_failed_package_probes_never_serve_whatever_the_policy() -> None:
    for policy in ProbePolicy:
        assert probes(False, True, policy) is Done.REFUSED


def health(requests: int, errors: int, seconds: float) -> TrialHealth:
    return TrialHealth(
        requests=requests,
        client_errors=0,
        model_errors=errors,
        latency=LatencyHistogram(),
        seconds=seconds,
    )


def test_the_watchdog_waits_for_the_end_of_a_good_trial() -> None:
    assert swap.judge_trial(health(100, 0, 1.0), seconds=5.0, hang=30.0) is None
    verdict = swap.judge_trial(health(0, 0, 5.0), seconds=5.0, hang=30.0)
    assert verdict is not None
    assert verdict.done is Done.OK


def test_the_watchdog_ends_a_clearly_bad_trial_at_once() -> None:
    verdict = swap.judge_trial(health(3, 3, 0.1), seconds=5.0, hang=30.0)
    assert verdict is not None
    assert verdict.done is Done.FAILED
    assert swap.judge_trial(health(1, 1, 0.1), seconds=5.0, hang=30.0) is None
    late = swap.judge_trial(health(1, 1, 5.0), seconds=5.0, hang=30.0)
    assert late is not None
    assert late.done is Done.FAILED


def test_a_trial_never_ends_well_over_an_inference_that_has_not_returned() -> None:
    def hanging(longest: float, seconds: float) -> TrialHealth:
        return replace(health(100, 0, seconds), longest=longest)

    assert swap.judge_trial(hanging(1.0, 5.5), seconds=5.0, hang=30.0) is None, "it began before the end"
    later = swap.judge_trial(hanging(0.2, 5.5), seconds=5.0, hang=30.0)
    assert later is not None
    assert later.done is Done.OK, "what began after the end is nobody's business"
    hung = swap.judge_trial(hanging(30.0, 31.0), seconds=60.0, hang=30.0)
    assert hung is not None
    assert hung.reason is not None
    assert (hung.done, hung.reason.code) == (Done.FAILED, "trial_hang")


@pytest.mark.parametrize(
    ("step", "tries", "verdict"),
    [
        (DeviceStep.ACCEPTED, 0, Recovery.RESUME),
        (DeviceStep.DOWNLOADING, 0, Recovery.RESUME),
        (DeviceStep.VERIFYING, 0, Recovery.RESUME),
        (DeviceStep.PREPARING, 1, Recovery.RESUME),
        (DeviceStep.PREPARING, 2, Recovery.GIVE_UP),
        (DeviceStep.PROBING, 1, Recovery.RESUME),
        (DeviceStep.PROBING, 2, Recovery.GIVE_UP),
        (DeviceStep.TRIAL, 1, Recovery.REVERTED),
        *[(step, 1, Recovery.NOTHING) for step in DeviceStep if step.terminal],
    ],
)
def test_the_boot_recovery_table(step: DeviceStep, tries: int, verdict: Recovery) -> None:
    assert swap.recover(replace(ATTEMPT, step=step, tries=tries)) is verdict


def test_a_crash_loop_goes_back_once_and_only_where_there_is_something_to_go_back_to() -> None:
    record = SlotRecord(slot="toy", active=NEW, previous=OLD)
    assert swap.crash_loop(record, swap.CRASHES_BEFORE_REVERT - 1) is None
    healthy = swap.crash_loop(record, swap.CRASHES_BEFORE_REVERT)
    assert healthy == SlotRecord(slot="toy", active=OLD)
    assert swap.crash_loop(healthy, 99) is None


def test_a_commit_keeps_what_ran_before_as_previous() -> None:
    first = swap.committed(None, ATTEMPT, 7.0)
    assert first.previous is None
    assert first.active.deployment == "r-2"
    second = swap.committed(SlotRecord(slot="toy", active=OLD), ATTEMPT, 8.0)
    assert second.previous == OLD
