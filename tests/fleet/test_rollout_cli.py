"""The rollout commands: exit codes, plain lines, the tree, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from edgekit.errors import EdgekitError, OperationTimeout, UnavailableError
from edgekit_fleet.cli import rollout_calls
from edgekit_fleet.cli.rollout_calls import follow
from edgekit_fleet.cli.rollout_tree import age, rollout_tree
from edgekit_fleet.cli.rollout_watch import wait
from edgekit_fleet.client import FleetClient
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
        OperationTimeout("frozen"),
        {"state": "completed", "pause": None},
    ]
    times = iter([0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    monkeypatch.setattr("edgekit_fleet.cli.rollout_calls.time.sleep", lambda seconds: None)

    def fetch() -> dict[str, object]:
        answer = answers.pop(0)
        if isinstance(answer, EdgekitError):
            raise answer
        assert isinstance(answer, dict)
        return answer

    told: list[float | None] = []
    found = follow(fetch, every=0.1, until=None, clock=lambda: float(next(times)), away=told.append)
    assert [d["state"] for d in found] == ["running", "completed"]
    assert told == [1.0, 2.0, None], "for how long it was away, and that it is back"


def test_a_service_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1000, 20))

    def fetch() -> dict[str, object]:
        raise UnavailableError("down")

    monkeypatch.setattr("edgekit_fleet.cli.rollout_calls.time.sleep", lambda seconds: None)
    with pytest.raises(UnavailableError):
        list(follow(fetch, every=0.1, until=None, clock=lambda: float(next(times))))


def test_a_watcher_is_told_that_the_service_is_away_and_finds_it_on_its_new_port(
    sim: SimFleet, cli: RolloutCli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sim.add_devices(3)
    rollout = sim.start(sim.add_release("1.0.0"), plan(gates=[]))
    opened = rollout_calls.open_client
    dead, times = FleetClient("http://127.0.0.1:9", "x"), iter([True, False])

    def reopened(url: str | None, home: Path) -> FleetClient:
        """The first look finds the port where nobody is any more, the second the service's new one."""
        if next(times, False):
            raise UnavailableError("no service runs on this home", code="service_down")
        return opened(url, home)

    with dead, rollout_calls.looking(dead, None, sim.home.path, rollout) as look:
        monkeypatch.setattr(rollout_calls, "open_client", reopened)
        wait(look, as_json=False, until=None)
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "the service does not answer; waiting for it",
        "the service answers again",
    ]
    assert "completed" in said.out


def test_the_tree_says_that_it_is_old_while_the_service_is_away(sim: SimFleet) -> None:
    sim.add_devices(3)
    rollout = sim.start(sim.add_release("1.0.0"), plan(gates=[]))
    console = Console(record=True, width=200)
    console.print(rollout_tree(sim.state(rollout), now=sim.clock.now(), away=12.0))
    assert "the service does not answer since 12s" in console.export_text()


NAMED = """\
[[ring]]
name = "canary"
select = {select}
soak = "4s"
[[ring]]
name = "rest"
soak = "4s"
"""


def named_plan(folder: Path, select: str) -> str:
    path = folder / "plan.toml"
    path.write_text(NAMED.replace("{select}", select), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ('{ devices = ["d-0000", "d-000x"] }', "there is no device 'd-000x'; did you mean d-000"),
        ('{ labels = { shop = "00" } }', "no device has the label shop=00; did you mean 0?"),
        ('{ labels = { shopp = "0" } }', "no device has a label 'shopp'; did you mean shop?"),
    ],
)
def test_a_name_in_the_plan_that_nobody_has_is_warned_of(
    sim: SimFleet, cli: RolloutCli, tmp_path: Path, select: str, told: str
) -> None:
    sim.add_devices(6)
    release = sim.add_release("1.0.0")
    where = ("--slot", "digits", "--plan", named_plan(tmp_path, select), "--allow-empty")
    for words in (("plan", release, *where), ("start", release, *where)):
        result = cli.run(*words)
        assert result.exception is None
        assert f"warning: ring canary: {told}" in result.output


@pytest.mark.parametrize("verb", ["plan", "start"])
@pytest.mark.parametrize(
    "select", ['{ devices = ["d-000x"] }', '{ labels = { shop = "77" } }', '{ query = "hardware=rpi9*" }']
)
def test_a_ring_that_selects_no_device_at_all_is_refused(
    sim: SimFleet, cli: RolloutCli, tmp_path: Path, select: str, verb: str
) -> None:
    sim.add_devices(6)
    release, place = sim.add_release("1.0.0"), named_plan(tmp_path, select)
    result = cli.run(verb, release, "--slot", "digits", "--plan", place)
    assert isinstance(result.exception, EdgekitError)
    assert (result.exception.exit_code, result.exception.code) == (2, "empty_ring")
    assert result.exception.where == f"{place}: ring[0].select"
    assert "--allow-empty" in (result.exception.remedy or "")
    assert not cli.run("list").output, "nothing was started"


def test_a_share_of_a_fleet_that_is_still_empty_may_be_planned(
    sim: SimFleet, cli: RolloutCli, tmp_path: Path
) -> None:
    release = sim.add_release("1.0.0")
    assert cli.run("plan", release, "--slot", "digits", "--plan", quick_plan(tmp_path)).exception is None


def test_ages_are_short() -> None:
    assert [age(s) for s in (5, 99, 125, 4000, 9000)] == ["5s", "99s", "2m 05s", "66m", "2h 30m"]
