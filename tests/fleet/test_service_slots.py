"""Slots and ground-truth probes by threat: what does not fit is named, what fits is signed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.contract import Contract, OutputSpec
from edgekit.documents import ProbePolicy
from edgekit.errors import DataError, StorageError, UsageError
from edgekit_fleet.context import Fleet
from edgekit_fleet.errors import ConflictError, HomeError, UnknownNameError
from edgekit_fleet.slots import add_probes, create_slot, current_probes, list_slots
from edgekit_fleet.trust.keys import key_path
from tests.fleet.homes import CONTRACT, probe_bytes


@pytest.fixture
def fleet(base_fleet: Fleet) -> Fleet:
    create_slot(base_fleet, "digits", CONTRACT, actor="test")
    return base_fleet


def add(fleet: Fleet, file: Path, slot: str = "digits", **options: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {"min_accuracy": 0.9, "policy": ProbePolicy.ENFORCE, "actor": "test", **options}
    return add_probes(fleet, slot, file, **chosen)


def written(tmp_path: Path, data: bytes) -> Path:
    place = tmp_path / "probes.npz"
    place.write_bytes(data)
    return place


def test_probes_are_signed_with_their_limit_and_policy(fleet: Fleet, tmp_path: Path) -> None:
    data = probe_bytes()
    done = add(fleet, written(tmp_path, data), policy=ProbePolicy.OBSERVE)
    assert (done["target"], done["items"]) == ("probes/digits/1.npz", 6)
    target = fleet.repository.target("probes/digits/1.npz")
    assert target is not None
    assert target.custom["edgekit"] == {"min_accuracy": "0.9", "policy": "observe", "n": 6, "slot": "digits"}
    assert fleet.repository.read_target("probes/digits/1.npz") == data


def test_a_new_set_counts_and_the_old_one_stays_signed(fleet: Fleet, tmp_path: Path) -> None:
    add(fleet, written(tmp_path, probe_bytes(4)))
    add(fleet, written(tmp_path, probe_bytes(8)), min_accuracy=0.5)
    with fleet.database.read() as session:
        newest = current_probes(session, "digits")
        assert newest is not None
        assert (newest.n, newest.items, newest.min_accuracy) == (2, 8, 0.5)
    assert {"probes/digits/1.npz", "probes/digits/2.npz"} <= set(fleet.repository.targets())


def test_a_single_input_of_another_name_is_published_under_the_contracts(
    fleet: Fleet, tmp_path: Path
) -> None:
    data = probe_bytes(change=lambda a: {"x": a["image"], "labels": a["labels"]})
    add(fleet, written(tmp_path, data))
    with np.load(io.BytesIO(fleet.repository.read_target("probes/digits/1.npz"))) as archive:
        assert set(archive.files) == {"image", "labels"}


def _with(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(arrays: dict[str, Any]) -> dict[str, Any]:
        merged = {**arrays, **{k: v(arrays) if callable(v) else v for k, v in changes.items()}}
        return {name: array for name, array in merged.items() if array is not None}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with(labels=None), "no array 'labels'"),
        (_with(image=None), "contract's inputs"),
        (_with(extra=np.zeros(6)), "contract's inputs"),
        (_with(labels=np.arange(5)), "as many as labels"),
        (_with(labels=np.arange(0), image=np.zeros((0, 8, 8, 1), np.float32)), "no items"),
        (_with(labels=np.int64(3)), "no items"),
        (_with(image=lambda a: a["image"].astype(np.float64)), "dtype float64"),
        (_with(image=lambda a: a["image"].reshape(6, 64)), "shape"),
        (_with(image=lambda a: a["image"] * np.nan), "NaN"),
        (_with(image=lambda a: a["image"] + np.inf), "NaN"),
        (_with(labels=np.full(6, 10)), "class numbers"),
        (_with(labels=np.full(6, -1)), "class numbers"),
        (_with(labels=np.zeros(6)), "whole class numbers"),
        (_with(labels=np.array(list("abcdef"))), "whole class numbers"),
        (_with(labels=np.array([{}] * 6, dtype=object)), "not a readable npz"),
    ],
)
def test_probes_that_do_not_fit_the_contract_are_named(
    fleet: Fleet, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        add(fleet, written(tmp_path, probe_bytes(change=change)))
    assert "probes.npz" in (caught.value.where or "")
    with fleet.database.read() as session:
        assert current_probes(session, "digits") is None
    assert set(fleet.repository.targets()) == {"director.json"}


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00v\x00"])
def test_a_file_that_is_no_npz_is_named(fleet: Fleet, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError):
        add(fleet, written(tmp_path, data))


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 1.1, float("nan")])
def test_a_limit_that_is_none_is_refused(fleet: Fleet, tmp_path: Path, accuracy: float) -> None:
    with pytest.raises(UsageError, match="not within"):
        add(fleet, written(tmp_path, probe_bytes()), min_accuracy=accuracy)


def test_an_unknown_slot_is_answered_with_the_nearest(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="digits"):
        add(fleet, written(tmp_path, probe_bytes()), slot="digit")


def test_without_the_targets_key_no_set_is_recorded(fleet: Fleet, tmp_path: Path) -> None:
    key_path(fleet.home.keys, "targets").unlink()
    with pytest.raises(HomeError):
        add(fleet, written(tmp_path, probe_bytes()))
    with fleet.database.read() as session:
        assert current_probes(session, "digits") is None


def test_a_missing_file_is_named(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        add(fleet, tmp_path / "nothing.npz")


def test_a_slots_contract_never_changes_under_its_clients(fleet: Fleet) -> None:
    assert create_slot(fleet, "digits", CONTRACT, actor="test")["created_now"] is False
    other = Contract(outputs=(OutputSpec(name="digit", task="regression"),))
    with pytest.raises(ConflictError, match="another contract"):
        create_slot(fleet, "digits", other, actor="test")


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "../x", "a b", "x" * 65])
def test_a_slot_name_must_fit_topics_and_paths(base_fleet: Fleet, name: str) -> None:
    with pytest.raises(UsageError):
        create_slot(base_fleet, name, CONTRACT, actor="test")


def test_dry_runs_change_nothing(base_fleet: Fleet, tmp_path: Path) -> None:
    create_slot(base_fleet, "digits", CONTRACT, actor="test", dry_run=True)
    with base_fleet.database.read() as session:
        assert list(list_slots(session)) == []
    create_slot(base_fleet, "digits", CONTRACT, actor="test")
    add(base_fleet, written(tmp_path, probe_bytes()), dry_run=True)
    assert set(base_fleet.repository.targets()) == {"director.json"}


def test_a_single_array_for_probes_is_named_and_no_traceback(fleet: Fleet, tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="npz file was expected"):
        add(fleet, tmp_path / "single.npy")
