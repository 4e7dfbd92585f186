from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgekit_fleet.rollout.plan import Disruption, Select
from edgekit_fleet.rollout.rings import Candidate, choose_members, position, within_budget
from tests.fleet.rollout_makers import facts, fleet

SALTS = st.text("abcdef0123456789", min_size=1, max_size=8)


@given(st.integers(1, 60), st.floats(0.5, 100), st.floats(0.5, 100), SALTS)
def test_a_raised_percentage_keeps_its_members(count: int, first: float, second: float, salt: str) -> None:
    low, high = sorted((first, second))
    devices = fleet(count) + fleet(3, "orin", "o")
    few = set(choose_members(Select(percent=low), devices, salt=salt))
    many = set(choose_members(Select(percent=high), devices, salt=salt))
    assert few <= many


@given(st.integers(1, 30), SALTS)
def test_every_hardware_has_a_canary_and_it_is_the_lowest(count: int, salt: str) -> None:
    devices = fleet(count) + fleet(2, "orin", "o")
    chosen = choose_members(Select(percent=0.001), devices, salt=salt)
    assert len(chosen) == 2
    lowest = min((d.device for d in devices if d.hardware == "rpi4"), key=lambda d: position(salt, d))
    assert lowest in chosen


@given(st.permutations([c.device for c in fleet(12)]), SALTS)
def test_membership_does_not_depend_on_the_order_of_enrolment(order: list[str], salt: str) -> None:
    by_name = {c.device: c for c in fleet(12)}
    shuffled = [by_name[name] for name in order]
    assert choose_members(Select(percent=40), shuffled, salt=salt) == choose_members(
        Select(percent=40), fleet(12), salt=salt
    )


def test_a_new_device_moves_nobody() -> None:
    before = set(choose_members(Select(percent=30), fleet(50), salt="s"))
    after = set(choose_members(Select(percent=30), fleet(51), salt="s"))
    assert before <= after


def test_rings_are_disjoint_and_cover_the_fleet() -> None:
    devices, taken = fleet(100), set[str]()
    for percent in (10.0, 50.0, 100.0):
        members = choose_members(Select(percent=percent), devices, salt="s", taken=taken)
        assert not taken & set(members)
        taken |= set(members)
    assert len(taken) == 100


def test_the_share_is_about_what_was_asked_for() -> None:
    assert 70 <= len(choose_members(Select(percent=10), fleet(1000), salt="s")) <= 130


def test_another_rollout_has_other_canaries() -> None:
    one = choose_members(Select(percent=10), fleet(100), salt="r-0001")
    two = choose_members(Select(percent=10), fleet(100), salt="r-0002")
    assert set(one) != set(two)


def test_labels_query_and_names_must_all_hold() -> None:
    lab = Candidate(device="cam-1", facts=facts("rpi4", site="lab"))
    shop = Candidate(device="cam-2", facts=facts("rpi4", site="shop"))
    orin = Candidate(device="cam-3", facts=facts("orin", site="lab"))
    everyone = [lab, shop, orin]

    def chosen(select: Select) -> set[str]:
        return set(choose_members(select, everyone, salt="s"))

    assert chosen(Select(labels={"site": "lab"})) == {"cam-1", "cam-3"}
    assert chosen(Select(labels={"site": "lab"}, query="hardware=rpi*")) == {"cam-1"}
    assert chosen(Select(query="label.site!=lab")) == {"cam-2"}
    assert chosen(Select(query="runtime=coreml")) == set()
    assert chosen(Select(devices=("cam-2", "nobody"))) == {"cam-2"}


def test_never_two_cameras_of_a_shop_at_once() -> None:
    shops = [Candidate(device=f"cam-{i}", facts=facts("rpi4", shop=str(i // 3))) for i in range(9)]
    budget = Disruption(max_unavailable=1, group_by="shop")
    assert within_budget(shops, [], budget, None) == ("cam-0", "cam-3", "cam-6")
    assert within_budget(shops[1:], shops[:1], budget, None) == ("cam-3", "cam-6")


def test_the_rate_limit_is_kept() -> None:
    assert len(within_budget(fleet(50), [], Disruption(), 7)) == 7
    assert within_budget(fleet(50), [], Disruption(), 0) == ()
