from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgekit.documents import Presence
from edgekit.topics import device_topic
from edgekit_fleet.rollout.reducers import (
    Arrived,
    Received,
    advance,
    newer_message,
    newer_presence,
    read_message,
)
from tests.contract.samples import SAMPLES

SEQS = st.lists(st.integers(0, 12), max_size=20)


def test_documents_are_read_by_their_topic() -> None:
    found = read_message("acme", device_topic("acme", "d1", "tm", "digits"), SAMPLES["window"].to_bytes())
    assert isinstance(found, Arrived)
    assert (found.device, found.slot) == ("d1", "digits")


def test_another_tenants_documents_are_foreign() -> None:
    topic = device_topic("other", "d1", "presence")
    assert read_message("acme", topic, SAMPLES["presence"].to_bytes()) == "foreign"


def test_telemetry_for_another_slot_than_its_topic_is_foreign() -> None:
    topic = device_topic("acme", "d1", "tm", "faces")
    assert read_message("acme", topic, SAMPLES["window"].to_bytes()) == "foreign"


def test_a_desired_document_from_a_device_is_foreign() -> None:
    topic = device_topic("acme", "d1", "desired")
    assert read_message("acme", topic, SAMPLES["envelope"].to_bytes()) == "foreign"


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed_and_never_raise(payload: bytes) -> None:
    assert read_message("acme", device_topic("acme", "d1", "reported"), payload) == "malformed"


def test_an_old_will_after_a_quick_reconnect_is_dropped() -> None:
    def presence(state: str, session: int) -> Presence:
        return Presence(state=state, session=session, boot_id="00000001-a", agent="0", at=0.0)

    assert newer_presence(None, presence("online", 1))
    assert not newer_presence((2, "online"), presence("lost", 1))
    assert newer_presence((2, "online"), presence("lost", 2))
    assert not newer_presence((2, "lost"), presence("online", 2))
    assert newer_presence((2, "lost"), presence("online", 3))


def test_a_later_boot_is_newer_whatever_its_seq() -> None:
    assert newer_message(("00000001-f", 900), "00000002-a", 0)
    assert not newer_message(("00000002-a", 0), "00000001-f", 901)
    assert not newer_message(("00000002-a", 5), "00000002-a", 5)


@given(SEQS, st.randoms())
def test_acknowledgement_depends_on_the_set_not_the_order(seqs: list[int], random: object) -> None:
    shuffled = list(seqs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    start = Received(boot_id="b")
    one = advance(start, [(s, 0) for s in seqs])
    two = start
    for seq in [*shuffled, *seqs]:
        two = advance(two, [(seq, 0)])
    assert one == two


@given(SEQS)
def test_nothing_is_acknowledged_that_is_not_stored(seqs: list[int]) -> None:
    ack = advance(Received(boot_id="b"), [(s, 0) for s in seqs]).ack()
    covered = set(range(ack.seq + 1)) | set(ack.also)
    assert covered == set(seqs)


def test_what_the_device_gave_up_does_not_hold_the_acknowledgement_back() -> None:
    found = advance(Received(boot_id="b"), [(7, 6)])
    assert found.ack().seq == 5
    assert found.ack().also == (7,)
    assert advance(found, [(6, 6)]).ack().seq == 7
