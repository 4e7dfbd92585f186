"""No window is lost: not by a kill, not by a broker that took it, not by several boots; the loss that a
full outbox means is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgekit.documents import Ack
from edgekit.errors import StorageError
from edgekit_agent.outbox import Outbox
from edgekit_agent.sender import WINDOW, Sender
from tests.conftest import REPOSITORY, FrozenClock

DOCUMENT = {"record": "window", "slot": "toy"}


def keys(outbox: Outbox) -> list[tuple[str, int]]:
    return [(item.boot_id, item.seq) for item in outbox.pending(10_000)]


def fill(outbox: Outbox) -> None:
    for _ in range(100):
        outbox.add("toy", {**DOCUMENT, "padding": "x" * 4000})


def test_a_record_travels_with_its_name_and_what_is_oldest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", boot_id="00000001-a")
    assert [outbox.add("toy", DOCUMENT) for _ in range(3)] == [0, 1, 2]
    outbox.acknowledge(Ack(boot_id="00000001-a", seq=0))
    first = json.loads(outbox.pending(1)[0].payload)
    assert (first["boot_id"], first["seq"], first["oldest"], first["dropped"]) == ("00000001-a", 1, 1, 0)


def test_records_of_earlier_boots_survive_and_go_first(tmp_path: Path) -> None:
    for boot in (1, 2, 3):
        outbox = Outbox(tmp_path / "o.db", boot_id=f"0000000{boot}-a")
        outbox.add("toy", DOCUMENT)
        outbox.add("toy", DOCUMENT)
        outbox.close()
    outbox = Outbox(tmp_path / "o.db", boot_id="00000004-a")
    assert keys(outbox) == [(f"0000000{boot}-a", seq) for boot in (1, 2, 3) for seq in (0, 1)]
    outbox.acknowledge(Ack(boot_id="00000003-a", seq=1))
    assert len(keys(outbox)) == 4, "an acknowledgement of a later boot says nothing about earlier ones"


def test_a_full_outbox_drops_the_oldest_and_counts_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", boot_id="00000001-a", records=3)
    for _ in range(5):
        outbox.add("toy", DOCUMENT)
    assert [seq for _, seq in keys(outbox)] == [2, 3, 4]
    assert (outbox.depth, outbox.dropped) == (3, 2)
    assert json.loads(outbox.pending(1)[0].payload)["oldest"] == 2


def test_a_full_outbox_by_bytes_drops_the_oldest(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", boot_id="00000001-a", size=1000)
    for _ in range(10):
        outbox.add("toy", {**DOCUMENT, "padding": "x" * 300})
    assert outbox.depth == 2
    assert outbox.dropped == 8


def test_a_full_disk_stores_nothing_and_uses_up_no_number(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", boot_id="00000001-a")
    outbox.add("toy", DOCUMENT)
    pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
    outbox._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError) as caught:
        fill(outbox)
    assert caught.value.code == "disk_full"
    outbox._db.execute("PRAGMA max_page_count=100000")
    depth = outbox.depth
    seq = outbox.add("toy", DOCUMENT)
    assert seq == depth, "numbers have no hole"


_WRITER = """
import os, sys
from pathlib import Path
from edgekit_agent.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]), boot_id="00000001-a")
while True:
    print(outbox.add("toy", {"record": "window"}), flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_kill_minus_nine_loses_nothing_that_was_stored(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "o.db"
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(lines)]
    os.kill(child.pid, signal.SIGKILL)
    seen += [int(line) for line in child.stdout.read().splitlines() if line]
    child.wait()
    child.stdout.close()
    stored = [seq for _, seq in keys(Outbox(path, boot_id="00000002-b"))]
    assert stored[: len(seen)] == seen
    assert stored == list(range(len(stored)))


class Service:
    """What a service may do: store what it gets, acknowledge all, some, twice, or an old state."""

    def __init__(self) -> None:
        self.stored: set[tuple[str, int]] = set()
        self.acks: list[Ack] = []

    def take(self, slot: str, payload: bytes) -> bool:
        body = json.loads(payload)
        boot, seq = body["boot_id"], body["seq"]
        self.stored.add((boot, seq))
        have = {number for name, number in self.stored if name == boot}
        floor = body["oldest"] - 1
        while floor + 1 in have:
            floor += 1
        self.acks.append(Ack(boot_id=boot, seq=floor, also=tuple(n for n in sorted(have) if n > floor)))
        return True


class OutboxMachine(RuleBasedStateMachine):
    """Whatever order of adding, sending, losing, acknowledging and restarting: nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.service = FrozenClock(), Service()
        self.boot, self.up = 0, True
        self.added: set[tuple[str, int]] = set()
        self.begin()

    @rule()
    def restart(self) -> None:
        self.outbox.close()
        self.begin()

    def begin(self) -> None:
        self.boot += 1
        self.name = f"{self.boot:08d}-x"
        self.outbox = Outbox(Path(self.folder.name) / "o.db", boot_id=self.name)
        self.sender = Sender(self.outbox, self.publish, clock=self.clock, resend=10.0)

    def publish(self, slot: str, payload: bytes) -> bool:
        return self.service.take(slot, payload) if self.up else False

    @rule(count=st.integers(1, 5))
    def add(self, count: int) -> None:
        for _ in range(count):
            self.added.add((self.name, self.outbox.add("toy", DOCUMENT)))

    @rule(up=st.booleans())
    def connection(self, up: bool) -> None:
        self.up = up
        if up:
            self.sender.restart()

    @rule(seconds=st.floats(0, 30))
    def tick(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sender.pump()

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        if self.service.acks:
            self.sender.acknowledge(data.draw(st.sampled_from(self.service.acks)))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.added <= self.service.stored | set(keys(self.outbox))
        assert self.outbox.depth == len(keys(self.outbox))

    def teardown(self) -> None:
        self.up = True
        for _ in range(200):
            self.clock.advance(11.0)
            self.sender.pump()
            for ack in self.service.acks[-WINDOW:]:
                self.sender.acknowledge(ack)
        assert self.outbox.depth == 0, "in the end everything is acknowledged"
        assert self.service.stored == self.added
        self.outbox.close()
        self.folder.cleanup()


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_no_more_than_the_window_travels_unacknowledged(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", boot_id="00000001-a")
    for _ in range(100):
        outbox.add("toy", DOCUMENT)
    sent: list[bytes] = []
    clock = FrozenClock()

    def publish(slot: str, payload: bytes) -> bool:
        sent.append(payload)
        return True

    sender = Sender(outbox, publish, clock=clock, resend=10.0)
    assert sender.pump() == WINDOW
    assert sender.pump() == 0
    sender.acknowledge(Ack(boot_id="00000001-a", seq=9))
    assert sender.pump() == 10
    clock.advance(11.0)
    assert sender.pump() == WINDOW, "silence: from the oldest again"
    assert json.loads(sent[-WINDOW])["seq"] == 10


@given(seqs=st.lists(st.integers(0, 60), max_size=5), upto=st.integers(-1, 60))
@settings(max_examples=20, deadline=None)
def test_an_acknowledgement_deletes_exactly_what_it_names(seqs: list[int], upto: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "o.db", boot_id="00000001-a")
        for _ in range(12):
            outbox.add("toy", DOCUMENT)
        removed = outbox.acknowledge(Ack(boot_id="00000001-a", seq=upto, also=tuple(seqs)))
        left = [n for n in range(12) if n > upto and n not in seqs]
        assert [seq for _, seq in keys(outbox)] == left
        assert removed == 12 - len(left)
        outbox.close()
