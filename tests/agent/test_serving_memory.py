"""Memory given back: only code that can be read from its file again, and everything works afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.memory import code_ranges, give_back
from tests.agent.models import classes_of, installed, samples
from tests.conftest import FrozenClock

SMAPS = """\
1000-9000 r-xp 00001000 08:01 12   /usr/lib/libgood.so
Rss:                 512 kB
Anonymous:             0 kB
a000-b000 r-xp 00001000 08:01 13   /usr/lib/libpatched.so
Rss:                 512 kB
Anonymous:             4 kB
c000-d000 r--p 00001000 08:01 14   /usr/lib/librelro.so
Rss:                 512 kB
Anonymous:             0 kB
e000-f000 rwxp 00001000 08:01 15   /usr/lib/libjit.so
Rss:                 512 kB
Anonymous:             0 kB
10000-11000 r-xp 00000000 00:00 0   [vdso]
Rss:                 512 kB
Anonymous:             0 kB
12000-13000 r-xp 00000000 00:00 0
Rss:                 512 kB
Anonymous:             0 kB
14000-15000 r-xp 00001000 08:01 16   /usr/lib/libsmall name.so
Rss:                   8 kB
Anonymous:             0 kB
"""


def test_only_clean_code_from_files_is_given_back() -> None:
    assert list(code_ranges(SMAPS.splitlines())) == [(0x1000, 0x9000)]


def test_models_compute_the_same_afterwards(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    host.switch("animals", host.prepare(installed(tmp_path)))
    for _ in range(5):
        give_back()
        assert list(host.infer("animals", {"x": samples(3)}).decisions["y"].classes) == classes_of(samples(3))
    host.close()


def test_a_system_without_proc_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgekit_agent.serving.memory._SMAPS", tmp_path / "none")
    give_back()
