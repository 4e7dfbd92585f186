from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import PlanError
from edgekit_fleet.rollout.plan import OnFail, default_plan, plan_from_dict, read_plan

EXAMPLE = """
retries = 2
trial_seconds = "2s"
[timers]
preparing = "20m"
whole = "2h"
[[ring]]
name = "lab"
select = { labels = { site = "lab" }, query = "runtime=litert hardware!=orin*" }
soak = "10m"
approval = true
gates = [{ type = "failures", limit = 0.05 },
         { type = "latency", limit = 1.3, quantile = 0.9, dry_run = true }]
[[ring]]
name = "canary"
select = { percent = 10 }
min_n = 5
on_inconclusive = "pause"
on_fail = "rollback_ring"
rate_limit = { per_minute = 60 }
disruption = { max_unavailable = 1, group_by = "shop" }
[[ring]]
name = "rest"
"""


def plan_file(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_file_is_read_as_written(tmp_path: Path) -> None:
    plan = read_plan(plan_file(tmp_path, EXAMPLE), truth_probes=True)
    lab, canary, rest = plan.rings
    assert lab.soak == 600
    assert lab.approval
    assert lab.gates[1].dry_run
    assert lab.gates[1].options == {"quantile": 0.9}
    assert canary.on_fail is OnFail.ROLLBACK_RING
    assert [g.type for g in rest.gates] == ["failures", "latency", "probes", "predictions"]
    assert plan.timers.steps["preparing"] == 1200
    assert plan.timers.whole == 7200


def test_a_plan_survives_the_database(tmp_path: Path) -> None:
    plan = read_plan(plan_file(tmp_path, EXAMPLE), truth_probes=True)
    assert plan_from_dict(plan.to_dict()) == plan


def test_the_default_plan_is_canary_half_rest_and_takes_back_on_fail() -> None:
    plan = default_plan(truth_probes=False)
    assert [(r.name, r.select.percent) for r in plan.rings] == [("canary", 10), ("half", 50), ("rest", 100)]
    assert all(r.on_fail is OnFail.ROLLBACK_ALL for r in plan.rings)
    assert plan_from_dict(plan.to_dict(), truth_probes=False) == plan


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "ring"),
        ('[[ring]]\nname = "a b"', "ring[0].name"),
        ('[[ring]]\nname = "a"\nsoak = "ten"', "ring[0].soak"),
        ('[[ring]]\nname = "a"\nsoaks = 1', "ring[0].soaks"),
        ('[[ring]]\nname = "a"\non_fail = "rollback"', "ring[0].on_fail"),
        ('[[ring]]\nname = "a"\nselect = { percent = 0 }', "ring[0].select.percent"),
        ('[[ring]]\nname = "a"\nselect = { percents = 5 }', "ring[0].select.percents"),
        ('[[ring]]\nname = "a"\nselect = { query = "colour=red" }', "ring[0].select.query"),
        ('[[ring]]\nname = "a"\ngates = [{ type = "vibes" }]', "ring[0].gates[0].type"),
        ('[[ring]]\nname = "a"\ngates = [{ type = "failures", limit = 5 }]', "ring[0].gates[0].limit"),
        ('[[ring]]\nname = "a"\ngates = [{ type = "latency", limit = 1.01 }]', "ring[0].gates[0].limit"),
        (
            '[[ring]]\nname = "a"\ngates = [{ type = "failures", quantile = 0.9 }]',
            "ring[0].gates[0].quantile",
        ),
        ('[[ring]]\nname = "late"', "ring"),
        ('[[ring]]\nname = "a"\n[[ring]]\nname = "a"', "ring"),
        ('[[ring]]\nname = "a"\ngates = [{ type = "latency" }, { type = "latency" }]', "ring[0].gates"),
        (
            '[[ring]]\nname = "a"\nselect.percent = 50\n[[ring]]\nname = "b"\nselect.percent = 20',
            "ring[1].select.percent",
        ),
        ('[timers]\ntrial = "3s"\n[[ring]]\nname = "a"', "timers.trial"),
        ('[timers]\nwhole = "1m"\n[[ring]]\nname = "a"', "timers"),
        ('[[ring]]\nname = "a"\ndisruption = { group_by = "shop" }', "ring[0].disruption.max_unavailable"),
        ("[[ring", ""),
    ],
)
def test_a_wrong_plan_names_file_and_key(tmp_path: Path, text: str, where: str) -> None:
    path = plan_file(tmp_path, text)
    with pytest.raises(PlanError) as caught:
        read_plan(path, truth_probes=True)
    assert caught.value.where is not None
    assert caught.value.where.startswith(str(path))
    assert where in caught.value.where


def test_a_probes_gate_without_probes_says_how_to_add_them(tmp_path: Path) -> None:
    path = plan_file(tmp_path, '[[ring]]\nname = "a"\ngates = [{ type = "probes" }]')
    with pytest.raises(PlanError) as caught:
        read_plan(path, truth_probes=False)
    assert caught.value.remedy is not None
    assert "slot probes add" in caught.value.remedy


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["ring", "name", "select", "gates", "soak", "type"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_plan_or_a_plan_error(value: object) -> None:
    with contextlib.suppress(PlanError):
        plan_from_dict({"ring": value})
