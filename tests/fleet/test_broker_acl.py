"""Who may read and write what: the pure rules, and their text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DocumentError
from edgekit.topics import READ_BY_DEVICE, WRITTEN_BY_DEVICE
from edgekit_fleet.broker.acl import AccessList, covers, fleet_access
from edgekit_fleet.broker.credentials import (
    check_password,
    derive_password,
    hash_password,
)

ACCESS = fleet_access(tenant="acme", service="edgekit-service-acme", producers=("plc",))
_word = st.text(alphabet="abcd+#/$%u", min_size=0, max_size=6)


def own(leaf: str, device: str = "cam-1") -> str:
    return f"ek/1/acme/d/{device}/{leaf}".replace("+", "digits")


@pytest.mark.parametrize("leaf", WRITTEN_BY_DEVICE)
def test_a_device_writes_its_own_branch_and_nobody_elses(leaf: str) -> None:
    assert ACCESS.may_write("cam-1", own(leaf))
    assert not ACCESS.may_write("cam-1", own(leaf, "cam-2"))
    assert not ACCESS.may_read("cam-1", own(leaf))


@pytest.mark.parametrize("leaf", READ_BY_DEVICE)
def test_a_device_reads_its_own_branch_and_nobody_elses(leaf: str) -> None:
    assert ACCESS.may_read("cam-1", own(leaf))
    assert not ACCESS.may_read("cam-1", own(leaf, "cam-2"))
    assert not ACCESS.may_write("cam-1", own(leaf))


@pytest.mark.parametrize(
    "wide",
    ["#", "ek/#", "ek/1/acme/d/+/desired", "ek/1/acme/d/cam-1/#", "ek/1/+/d/cam-1/desired", "$SYS/#", "+/#"],
)
def test_a_filter_that_reaches_further_than_the_device_is_refused(wide: str) -> None:
    assert not ACCESS.may_subscribe("cam-1", wide)


@pytest.mark.parametrize("user", ["", "+", "#", "a/b", "cam-1/+"])
def test_a_user_name_with_wildcards_opens_nothing(user: str) -> None:
    for leaf in (*READ_BY_DEVICE, *WRITTEN_BY_DEVICE):
        assert not ACCESS.may_read(user, own(leaf))
        assert not ACCESS.may_write(user, own(leaf))
        assert not ACCESS.may_subscribe(user, f"ek/1/acme/d/{user}/{leaf}")


def test_a_device_of_another_tenant_sees_nothing() -> None:
    assert not ACCESS.may_read("cam-1", "ek/1/other/d/cam-1/desired")


def test_a_producer_feeds_samples_and_cannot_touch_desired_state() -> None:
    assert ACCESS.may_write("plc", "ek/1/acme/d/cam-1/in/digits")
    assert ACCESS.may_read("plc", "ek/1/acme/d/cam-1/out/digits")
    assert not ACCESS.may_write("plc", "ek/1/acme/d/cam-1/desired")
    assert not ACCESS.may_read("plc", "ek/1/acme/d/cam-1/desired")


def test_the_service_reads_and_writes_its_tenant_only() -> None:
    assert ACCESS.may_write("edgekit-service-acme", "ek/1/acme/d/cam-1/desired")
    assert ACCESS.may_subscribe("edgekit-service-acme", "ek/1/acme/d/+/tm/+")
    assert not ACCESS.may_subscribe("edgekit-service-acme", "#")


def test_the_text_is_read_back_as_it_was() -> None:
    again = AccessList.parse(ACCESS.to_text())
    assert sorted(again.rules, key=str) == sorted(ACCESS.rules, key=str)


def test_a_line_that_is_not_understood_is_refused_not_skipped() -> None:
    with pytest.raises(DocumentError, match="not understood"):
        AccessList.parse("topic read a/b\n")


@given(pattern=_word, narrow=_word, topic=_word)
def test_what_covers_says_holds_for_every_topic(pattern: str, narrow: str, topic: str) -> None:
    plain = topic.replace("+", "x").replace("#", "y")
    if covers(pattern, narrow) and covers(narrow, plain):
        assert covers(pattern, plain)


def test_a_password_fits_its_hash_and_no_other() -> None:
    hashed = hash_password("geheim")
    assert hashed.startswith("$7$101$")
    assert check_password("geheim", hashed)
    assert not check_password("Geheim", hashed)
    assert not check_password("geheim", None)
    assert hash_password("geheim") != hashed


@pytest.mark.parametrize(
    "hashed", ["", "$", "$7$x$y$z", "$6$101$AAAA$AAAA", "$7$101$A$A", "$7$9999999999$AAAA$AA=="]
)
def test_a_damaged_hash_lets_nobody_in(hashed: str) -> None:
    assert not check_password("x", hashed)


def test_derived_passwords_differ_by_purpose_name_and_secret() -> None:
    made = {
        derive_password(bytes(32), "device", "a", "b"),
        derive_password(bytes(32), "device", "ab", ""),
        derive_password(bytes(32), "service", "a", "b"),
        derive_password(b"1" * 32, "device", "a", "b"),
    }
    assert len(made) == 4
