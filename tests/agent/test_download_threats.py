"""Bad networks, bad servers, bad disks: what a download does about them."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from edgekit.package import File
from edgekit_agent.download import Downloader, Patience
from edgekit_agent.errors import InstallError
from edgekit_agent.web import Service
from tests.simulators.service import FakeService

DATA = bytes(range(256)) * 4096
ITEM = File(path="variants/v/model", sha256=hashlib.sha256(DATA).hexdigest(), bytes=len(DATA))
QUICK = Patience(tries=3, first=0.001, longest=0.002, stall=2.0)


class Case:
    """A downloader, the file it writes, and the pauses it made."""

    def __init__(self, service: FakeService, folder: Path, **options: int) -> None:
        self.service, self.partial = service, folder / "partial" / ITEM.sha256
        self.pauses: list[float] = []
        service.blobs[ITEM.sha256] = DATA
        given = {"limit": 1 << 30, **options}
        self.downloader = Downloader(
            Service(url=service.url), patience=QUICK, sleep=self.pauses.append, **given
        )
        self.stop = threading.Event()

    def fetch(self, item: File = ITEM) -> Path:
        return self.downloader.fetch(item, self.partial, stop=self.stop)

    def refusal(self, item: File = ITEM) -> InstallError:
        with pytest.raises(InstallError) as caught:
            self.fetch(item)
        return caught.value

    def ranges(self) -> list[str]:
        return [asked for path, asked in self.service.log if path.startswith("/blobs/")]


@pytest.fixture
def case(service: FakeService, tmp_path: Path) -> Case:
    return Case(service, tmp_path)


def test_a_whole_download(case: Case) -> None:
    assert case.fetch().read_bytes() == DATA


def test_a_connection_that_breaks_again_and_again_is_resumed_where_it_broke(case: Case) -> None:
    case.service.broken_after = 300_000
    assert case.fetch().read_bytes() == DATA
    starts = [int(text.removeprefix("bytes=").rstrip("-") or 0) for text in case.ranges()]
    assert starts[0] == 0
    assert starts == sorted(set(starts)), "each connection went on where the last one ended"
    assert len(starts) == 4


def test_a_partial_file_of_an_earlier_life_is_used(case: Case) -> None:
    case.partial.parent.mkdir(parents=True)
    case.partial.write_bytes(DATA[:500_000])
    assert case.fetch().read_bytes() == DATA
    assert case.ranges() == ["bytes=500000-"]


def test_a_partial_file_with_other_bytes_is_found_out_and_fetched_anew(case: Case) -> None:
    case.partial.parent.mkdir(parents=True)
    case.partial.write_bytes(b"x" * 500_000)
    assert case.refusal().code == "hash_mismatch"
    assert not case.partial.exists()
    assert case.fetch().read_bytes() == DATA


def test_a_partial_file_that_is_too_long_is_thrown_away(case: Case) -> None:
    case.partial.parent.mkdir(parents=True)
    case.partial.write_bytes(DATA + b"more")
    assert case.fetch().read_bytes() == DATA


def test_a_flipped_byte_is_refused_and_nothing_is_kept(case: Case) -> None:
    case.service.blobs[ITEM.sha256] = DATA[:-1] + b"\0"
    assert case.refusal().code == "hash_mismatch"
    assert not case.partial.exists()


def test_a_server_that_sends_more_than_signed_is_cut_off(case: Case) -> None:
    case.service.blobs[ITEM.sha256] = DATA + b"x" * 1_000_000
    assert case.refusal().code == "too_large"
    assert case.partial.stat().st_size <= ITEM.bytes


def test_a_server_that_sends_less_than_signed_is_given_up(case: Case) -> None:
    case.service.blobs[ITEM.sha256] = DATA[:-1000]
    error = case.refusal()
    assert error.retryable
    assert error.code in ("unreachable", "blob_missing")


def test_a_file_above_the_devices_own_limit_is_not_begun(service: FakeService, tmp_path: Path) -> None:
    case = Case(service, tmp_path, limit=1000)
    assert case.refusal().code == "too_large"
    assert case.ranges() == []


def test_a_disk_that_is_too_full_is_told_before_the_first_byte(service: FakeService, tmp_path: Path) -> None:
    case = Case(service, tmp_path, free=1 << 60)
    error = case.refusal()
    assert (error.code, error.retryable) == ("disk_full", True)
    assert case.ranges() == []


def test_a_missing_blob_is_not_asked_for_again(case: Case) -> None:
    del case.service.blobs[ITEM.sha256]
    assert case.refusal().code == "blob_missing"
    assert len(case.ranges()) == 1


def test_retry_after_is_obeyed(case: Case) -> None:
    case.service.refuse["/blobs/"] = (503, {"Retry-After": "7"})
    error = case.refusal()
    assert (error.code, error.retryable) == ("unreachable", True)
    assert case.pauses == [7.0, 7.0]


def test_a_redirect_to_another_host_is_refused(case: Case) -> None:
    case.service.refuse["/blobs/"] = (302, {"Location": "http://127.0.0.2:9/blob"})
    assert case.refusal().code == "unreachable"
    assert len(case.ranges()) == 3


def test_a_newer_document_stops_a_download(case: Case) -> None:
    case.stop.set()
    assert case.refusal().code == "cancelled"


def test_pauses_double_up_to_the_longest_and_are_spread() -> None:
    patience = Patience(first=1.0, longest=10.0)
    assert [patience.pause(n, None, 1.0) for n in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert patience.pause(3, None, 0.0) == 4.0
    assert patience.pause(0, 30.0, 1.0) == 30.0
