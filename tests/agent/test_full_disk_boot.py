"""A reboot on a full disk: what was installed serves all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_agent import reserve
from tests.agent.harness import running
from tests.agent.test_lifecycle import answers
from tests.simulators import toy_model
from tests.simulators.service import FakeService


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can really be full."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here (root is needed)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path) -> None:
    """Write until not a byte is left."""
    for size in (1 << 16, 4096):
        with (folder / f"filler-{size}").open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue


async def test_a_reboot_on_a_full_disk_still_serves(small_disk: Path, service: FakeService) -> None:
    good = toy_model.make()
    service.add(good)
    async with running(small_disk, service) as agent:
        await agent.install(service.envelope(service.wish(good)), 1)
        assert answers(agent) == [0, 1, 2]
    fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "one-more").write_bytes(b"x" * 5000)
    async with running(small_disk, service) as agent:
        assert answers(agent) == [0, 1, 2]


def test_the_reserve_is_given_up_only_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = tmp_path / "reserve"
    reserve.keep(spare)
    assert spare.stat().st_size == reserve.SIZE
    reserve.make_room(spare)
    assert spare.exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=reserve.NEEDED - 1))
    reserve.make_room(spare)
    reserve.keep(spare)
    assert not spare.exists()
