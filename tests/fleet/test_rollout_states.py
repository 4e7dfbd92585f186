from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.documents import DeviceStep, Reason
from edgekit.errors import RefusedError
from edgekit_fleet.rollout.counting import count
from edgekit_fleet.rollout.plan import TIMED_STEPS, RingPlan, Timers
from edgekit_fleet.rollout.progress import Need, RingNow, need_of
from edgekit_fleet.rollout.states import (
    Member,
    MemberStep,
    RingState,
    RolloutState,
    came_online,
    check_move,
    expire,
    heard,
    next_attempt,
    notify,
    retry,
)

T0 = 1_790_000_000.0
TIMERS = Timers()


def member(step: MemberStep = MemberStep.TARGETED, **members: object) -> Member:
    base = Member(device="d", hardware="rpi4", ring=0)
    return base if step is MemberStep.TARGETED else replace(_notified(), step=step, **members)  # type: ignore[arg-type]


def _notified(*, online: bool = True) -> Member:
    return notify(Member(device="d", hardware="rpi4", ring=0), gen=4, online=online, now=T0)


def report(m: Member, step: DeviceStep, now: float = T0, attempt: int = 1) -> Member | None:
    return heard(m, attempt=attempt, step=step, reason=None, now=now)


@pytest.mark.parametrize("step", TIMED_STEPS)
def test_a_device_stuck_in_any_step_hits_that_steps_timer(step: str) -> None:
    stuck = member(MemberStep(step), since=T0)
    allowed = TIMERS.steps[step]
    assert expire(stuck, TIMERS, T0 + allowed) is None
    late = expire(stuck, TIMERS, T0 + allowed + 1)
    assert late is not None
    assert late.step is MemberStep.TIMED_OUT
    assert late.reason is not None
    assert late.reason.code == f"timer_{step}"
    assert count([late]).failed == 1


def test_a_device_that_crawls_through_all_steps_hits_the_whole_timer() -> None:
    slow = member(MemberStep.PROBING, since=T0 + TIMERS.whole)
    late = expire(slow, TIMERS, T0 + TIMERS.whole + 1)
    assert late is not None
    assert late.reason is not None
    assert late.reason.code == "timer_whole"


def test_preparing_has_its_own_timer() -> None:
    assert TIMERS.steps["preparing"] > TIMERS.steps["verifying"]


def test_a_device_offline_before_its_turn_is_excluded_until_it_answers() -> None:
    away = _notified(online=False)
    assert not away.counted
    assert expire(away, TIMERS, T0 + 1e6) is None
    assert count([away]).offline == 1
    back = came_online(away, T0 + 500)
    assert back is not None
    assert back.counted
    assert expire(back, TIMERS, T0 + 500 + TIMERS.steps["notified"]) is None


def test_an_offline_device_that_answers_counts_from_then() -> None:
    back = report(_notified(online=False), DeviceStep.ACCEPTED, T0 + 900)
    assert back is not None
    assert back.notified == T0 + 900


def test_a_late_commit_after_the_timer_is_recorded_and_changes_no_count() -> None:
    late = expire(member(MemberStep.TRIAL, since=T0), TIMERS, T0 + 1e4)
    assert late is not None
    after = report(late, DeviceStep.COMMITTED, T0 + 2e4)
    assert after is not None
    assert after.step is MemberStep.TIMED_OUT
    assert after.late_step is MemberStep.COMMITTED
    counts = count([after])
    assert (counts.failed, counts.good, counts.late) == (1, 0, 1)


@pytest.mark.parametrize("end", [s for s in DeviceStep if s.terminal])
def test_a_finished_device_does_not_flip_back_to_in_progress(end: DeviceStep) -> None:
    done = report(_notified(), end)
    assert done is not None
    for step in DeviceStep:
        assert report(done, step, T0 + 5) is None


def test_reports_of_an_earlier_attempt_are_history() -> None:
    second = replace(_notified(), attempt=2)
    assert report(second, DeviceStep.FAILED, attempt=1) is None


def test_a_retryable_failure_gets_another_attempt_with_growing_delay() -> None:
    flaky = Reason(code="download", text="connection reset", retryable=True)
    broken = heard(_notified(), attempt=1, step=DeviceStep.FAILED, reason=flaky, now=T0)
    assert broken is not None
    waiting = retry(broken, retries=2, delay=10, now=T0)
    assert waiting is not None
    assert count([waiting]).pending == 1
    assert next_attempt(waiting, T0 + 9) is None
    again = next_attempt(waiting, T0 + 10)
    assert again is not None
    assert (again.step, again.attempt) == (MemberStep.TARGETED, 2)


@pytest.mark.parametrize("step", [DeviceStep.REJECTED, DeviceStep.REVERTED])
def test_what_would_fail_again_is_not_retried(step: DeviceStep) -> None:
    done = report(_notified(), step)
    assert done is not None
    assert retry(done, retries=5, delay=1, now=T0) is None


def test_a_finished_rollout_cannot_be_paused() -> None:
    with pytest.raises(RefusedError) as caught:
        check_move(RolloutState.ROLLED_BACK, RolloutState.PAUSED, rollout="r-0001")
    assert caught.value.code == "bad_state"
    assert caught.value.exit_code == 3


RING = RingPlan(name="canary", soak=60)


def need(members: list[Member], ring: RingNow, now: float) -> Need:
    return need_of(ring, RING, members, TIMERS, now)


def test_a_ring_soaks_from_the_moment_its_last_device_finished() -> None:
    deploying = RingNow(state=RingState.DEPLOYING, opened=T0)
    good = member(MemberStep.COMMITTED)
    assert need([good, member(MemberStep.TRIAL)], deploying, T0) is Need.DEPLOY
    assert need([good], deploying, T0) is Need.SOAK
    soaking = RingNow(state=RingState.SOAKING, opened=T0, soaking_since=T0)
    assert need([good], soaking, T0 + 59) is Need.WATCH
    assert need([good], soaking, T0 + 60) is Need.JUDGE


def test_offline_devices_do_not_hold_a_ring_up() -> None:
    away = _notified(online=False)
    assert (
        need([member(MemberStep.COMMITTED), away], RingNow(state=RingState.DEPLOYING, opened=T0), T0)
        is Need.SOAK
    )


def test_a_ring_without_any_device_online_does_not_let_the_next_one_go() -> None:
    deploying = RingNow(state=RingState.DEPLOYING, opened=T0)
    away = [_notified(online=False)]
    assert need(away, deploying, T0 + 10) is Need.DEPLOY
    assert need(away, deploying, T0 + TIMERS.whole + 1) is Need.STALLED


def test_a_ring_on_which_everything_reverted_is_judged_without_the_whole_soak() -> None:
    soaking = RingNow(state=RingState.SOAKING, opened=T0, soaking_since=T0)
    assert need([member(MemberStep.REVERTED)], soaking, T0 + 1) is Need.WATCH
    assert need([member(MemberStep.REVERTED)], soaking, T0 + 5) is Need.JUDGE


def test_a_ring_that_wants_approval_waits_for_it() -> None:
    plan = replace(RING, approval=True)
    pending = RingNow(state=RingState.PENDING)
    assert need_of(pending, plan, [], TIMERS, T0) is Need.ASK
    assert need_of(replace(pending, approved=True), plan, [], TIMERS, T0) is Need.OPEN


@given(st.lists(st.tuples(st.sampled_from(list(DeviceStep)), st.integers(1, 2)), max_size=30))
def test_whatever_arrives_a_member_stays_in_exactly_one_count(reports: list[tuple[DeviceStep, int]]) -> None:
    m = _notified()
    for index, (step, attempt) in enumerate(reports):
        m = heard(m, attempt=attempt, step=step, reason=None, now=T0 + index) or m
        counts = count([m])
        left = m.step is MemberStep.SUPERSEDED
        assert counts.good + counts.failed + counts.pending + left == 1
