"""The demo finds its example in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import UnavailableError
from edgekit_fleet.demo import examples
from tests.conftest import REPOSITORY


def test_a_checkout_has_it() -> None:
    assert examples.train_script() == REPOSITORY / "examples" / "digits" / "train.py"


def test_a_wheel_has_it_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "edgekit_fleet" / "_examples" / "digits"
    inside.mkdir(parents=True)
    (inside / "train.py").write_text("")
    monkeypatch.setattr(examples, "_PLACES", (tmp_path / "nothing", inside))
    assert examples.train_script() == inside / "train.py"


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "_PLACES", (tmp_path,))
    with pytest.raises(UnavailableError, match="digits example is not part of this installation"):
        examples.train_script()
