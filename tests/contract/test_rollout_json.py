"""What ``edgekit rollout … --json`` prints is a contract: golden documents, made with a frozen clock.

Set EDGEKIT_UPDATE_GOLDEN=1 to write them anew after a wanted change.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.rollout_cli import RolloutCli
from tests.simulators.sim_device import Behaviour, always
from tests.simulators.sim_fleet import SimFleet

GOLDEN = Path(__file__).parent / "golden" / "rollout"
PLAN = """\
[[ring]]
name = "canary"
select = { percent = 10 }
soak = "6s"
early_stop = false
gates = [{ type = "failures", limit = 0.1 }, { type = "probes", limit = 0.05 }]

[[ring]]
name = "rest"
soak = "6s"
gates = [{ type = "failures", limit = 0.1 }]
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every command's JSON over one story: a good release, then one that is taken back."""
    folder = tmp_path_factory.mktemp("golden")
    plan = folder / "plan.toml"
    plan.write_text(PLAN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        sim = SimFleet(folder)
        sim.add_slot()
        sim.add_devices(6)
        sim.advance(2)
        good, bad = sim.add_release("1.0.0"), sim.add_release("2.0.0")
        cli = RolloutCli(sim, patch)
        told: dict[str, Any] = {}

        def tell(name: str, *words: str) -> None:
            result = cli.run(*words, "--json")
            told[name] = json.loads(result.stdout)

        start = ("--slot", "digits", "--plan", str(plan))
        tell("plan", "plan", good, *start)
        tell("start-dry-run", "start", good, *start, "--dry-run")
        tell("start", "start", good, *start)
        sim.advance(3)
        tell("status-running", "status", "r-0001")
        tell("pause", "pause", "r-0001", "--reason", "lunch")
        tell("resume", "resume", "r-0001")
        tell("watch", "watch", "r-0001")
        sim.behave = always({bad: Behaviour(accuracy=0.2)})
        tell("start-wait-rolled-back", "start", bad, *start, "--wait")
        tell("list", "list")
        tell("explain", "explain", "r-0002")
        tell("gate-replay", "gate-replay", "r-0002")
        sim.fleet.database.close()
    return {name: _without_folder(body, str(folder)) for name, body in told.items()}


def _without_folder(body: Any, folder: str) -> Any:
    return json.loads(json.dumps(body).replace(folder, "<folder>"))


COMMANDS = (
    "plan",
    "start-dry-run",
    "start",
    "status-running",
    "pause",
    "resume",
    "watch",
    "start-wait-rolled-back",
    "list",
    "explain",
    "gate-replay",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_json_of_a_command_is_the_golden_one(story: dict[str, Any], name: str) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(story[name], indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("EDGEKIT_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_no_golden_document_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(COMMANDS)
