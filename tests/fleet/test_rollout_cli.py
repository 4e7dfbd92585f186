"""The rollout commands: exit codes, plain lines, the tree, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from edgekit.errors import UnavailableError
from edgekit_fleet.cli.rollout_calls import follow
from edgekit_fleet.cli.rollout_tree import age, rollout_tree
from tests.fleet.rollout_cli import RolloutCli
from tests.fleet.rollout_sim import installed, plan, sim
from tests.simulators.sim_device import Behaviour, always
from tests.simulators.sim_fleet import SimFleet

__all__ = ["sim"]

QUICK = """\
[[ring]]
name = "canary"
select = { percent = 10 }
soak = "4s"
{more}
[[ring]]
name = "rest"
soak = "4s"
"""


@pytest.fixture
def cli(sim: SimFleet, monkeypatch: pytest.MonkeyPatch) -> RolloutCli:
    return RolloutCli(sim, monkeypatch)


def quick_plan(folder: Path, more: str = "") -> str:
    path = folder / "plan.toml"
    path.write_text(QUICK.replace("{more}", more), encoding="utf-8")
    return str(path)


def test_a_good_release_ends_with_0_and_is_told_line_by_line(
    sim: SimFleet, cli: RolloutCli, tmp_path: Path
) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    result = cli.run("start", release, "--slot", "digits", "--plan", quick_plan(tmp_path), "--wait")
    assert result.exception is None
    assert "ring canary: inconclusive" in result.output
    assert "gate failures: not proven (n=3" in result.output
    assert "rollout r-0001 digits@1.0.0 completed" in result.output


def test_a_release_that_is_taken_back_ends_with_3(sim: SimFleet, cli: RolloutCli, tmp_path: Path) -> None:
    installed(sim)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    assert cli.exit_code("start", bad, "--slot", "digits", "--plan", quick_plan(tmp_path), "--wait") == 3
    assert cli.exit_code("status", "r-0002", "--exit-code") == 3
    explained = cli.run("explain", "r-0002").output
    assert "probes: failed (n=200 items" in explained
    assert "limit 0.05, p 0" in explained


def test_a_ring_that_is_not_proven_and_pauses_ends_with_5(
    sim: SimFleet, cli: RolloutCli, tmp_path: Path
) -> None:
    sim.add_devices(6)
    file = quick_plan(tmp_path, 'on_inconclusive = "pause"')
    assert cli.exit_code("start", sim.add_release("1.0.0"), "--slot", "digits", "--plan", file, "--wait") == 5


def test_waiting_no_longer_than_asked_ends_with_4(sim: SimFleet, cli: RolloutCli, tmp_path: Path) -> None:
    sim.add_devices(3)
    words = ("start", sim.add_release("1.0.0"), "--slot", "digits", "--plan", quick_plan(tmp_path))
    assert cli.exit_code(*words, "--wait", "--timeout", "0") == 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("start", "digits@9.9.9", "--slot", "digits"), 2),
        (("start", "digits@1.0.0", "--slot", "faces"), 2),
        (("start", "digits@1.0.0"), 2),
        (("start", "digits@1.0.0", "--slot", "digits", "--timeout", "3"), 2),
        (("start", "digits@1.0.0", "--slot", "digits", "--plan", "/nowhere/plan.toml"), 2),
        (("status", "r-0042"), 2),
        (("promote", "r-0042"), 2),
    ],
)
def test_a_wrong_call_ends_with_2(sim: SimFleet, cli: RolloutCli, words: tuple[str, ...], code: int) -> None:
    sim.add_release("1.0.0")
    assert cli.exit_code(*words) == code


def test_a_wrong_plan_is_named_by_file_and_key(sim: SimFleet, cli: RolloutCli, tmp_path: Path) -> None:
    release = sim.add_release("1.0.0")
    file = quick_plan(tmp_path, 'on_fail = "explode"')
    result = cli.run("start", release, "--slot", "digits", "--plan", file)
    assert f"{file}: ring[0].on_fail" in str(result.exception)
    assert "rollback_all" in str(result.exception)


def test_a_dry_run_changes_nothing(sim: SimFleet, cli: RolloutCli) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    result = cli.run("start", release, "--slot", "digits", "--dry-run")
    assert "# ring 0 canary: 3 devices" in result.output
    assert cli.run("list").output == ""
    sim.start(release, plan(soak="1h"))
    assert cli.exit_code("pause", "r-0001", "--dry-run") == 0
    assert sim.state("r-0001")["state"] == "running"
    assert cli.exit_code("resume", "r-0001", "--dry-run") == 3


def test_without_the_operator_token_nothing_is_told(sim: SimFleet, cli: RolloutCli) -> None:
    for path in ("/v1/rollouts", "/v1/rollouts/r-0001"):
        answer = cli.http.get(path)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthorized"


def test_the_tree_shows_rings_gates_and_broken_devices(sim: SimFleet) -> None:
    installed(sim, devices=6)
    bad = sim.add_release("2.0.0")
    sim.behave = always({bad: Behaviour(accuracy=0.2)})
    rollout = sim.start(bad, plan(early_stop=False))
    sim.until_state(rollout, "rolled_back", limit=200)
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(rollout_tree(sim.state(rollout), now=sim.clock.now()))
    text = capture.get()
    assert "rollout r-0002  digits@1.0.0 → digits@2.0.0  ROLLED_BACK" in text
    assert "# ring 0 canary" in text
    assert "α ✖ probes" in text
    assert "back: 3/3 devices" in text


def test_status_in_a_file_cuts_no_line(sim: SimFleet, cli: RolloutCli) -> None:
    sim.add_devices(6)
    rollout = sim.start(sim.add_release("1.0.0"), plan(on_inconclusive="pause"))
    state = sim.until_state(rollout, "paused", limit=100)
    assert len(state["reason"]) > 100
    assert state["reason"] in cli.run("status", rollout).output


def test_a_waiting_command_survives_a_service_that_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [
        {"state": "running", "pause": None},
        UnavailableError("down"),
        UnavailableError("down"),
        {"state": "completed", "pause": None},
    ]
    monkeypatch.setattr("edgekit_fleet.cli.rollout_calls.time.sleep", lambda seconds: None)

    def fetch() -> dict[str, object]:
        answer = answers.pop(0)
        if isinstance(answer, UnavailableError):
            raise answer
        assert isinstance(answer, dict)
        return answer

    assert [d["state"] for d in follow(fetch, every=0.1, until=None)] == ["running", "completed"]


def test_a_service_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1000, 20))

    def fetch() -> dict[str, object]:
        raise UnavailableError("down")

    monkeypatch.setattr("edgekit_fleet.cli.rollout_calls.time.sleep", lambda seconds: None)
    with pytest.raises(UnavailableError):
        list(follow(fetch, every=0.1, until=None, clock=lambda: float(next(times))))


def test_ages_are_short() -> None:
    assert [age(s) for s in (5, 99, 125, 4000, 9000)] == ["5s", "99s", "2m 05s", "66m", "2h 30m"]
