"""Digests, files, topics, sketches, paired statistics and the choice of a variant."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import topics
from edgekit.digest import canonical_json, digest_of_files
from edgekit.documents import DeviceFacts
from edgekit.errors import DocumentError, StorageError
from edgekit.files import atomic_write, read_bytes, safe_relative
from edgekit.package import Requirements
from edgekit.paired import binomial_lower, binomial_tail, paired_drop
from edgekit.select import VariantEntry, choose_variant
from edgekit.sketches import Bins, LatencyHistogram, LatencyRecorder, bin_index, bucket_of, bucket_upper
from edgekit.wire import Fields


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == '{"a":[1.5,"ü"],"b":1}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"x"])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(DocumentError):
        canonical_json(value)


def test_the_digest_of_files_names_content_and_not_order() -> None:
    pairs = [("a", "1"), ("b", "2")]
    assert digest_of_files(pairs) == digest_of_files(reversed(pairs))
    assert digest_of_files(pairs) != digest_of_files([("a", "2"), ("b", "1")])


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f"
    atomic_write(target, b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space") as caught:
        atomic_write(target, b"new")
    assert caught.value.code == "disk_full"
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bytes(tmp_path / "f", limit=5) == b"12345"
    with pytest.raises(StorageError, match="larger"):
        read_bytes(tmp_path / "f", limit=4)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a\\b", "C:x", "a//b", "./a", "a\0b"])
def test_a_path_out_of_the_folder_is_refused(path: str) -> None:
    with pytest.raises(DocumentError):
        safe_relative(path, where="test")


def test_topics_are_taken_apart_as_they_are_built() -> None:
    for leaf, slot in [("presence", None), ("desired", None), ("tm", "digits"), ("out", "digits")]:
        parsed = topics.parse_device_topic(topics.device_topic("acme", "cam-1", leaf, slot))
        assert (parsed.tenant, parsed.device, parsed.leaf, parsed.slot) == ("acme", "cam-1", leaf, slot)


@pytest.mark.parametrize("device", ["", "a/b", "+", "#", "a b", "x" * 65, "-x", "ü"])
def test_a_device_name_cannot_leave_its_level(device: str) -> None:
    with pytest.raises(DocumentError):
        topics.device_topic("acme", device, "desired")


@pytest.mark.parametrize(
    "topic",
    ["ek/1/t/d/x", "ek/2/t/d/x/ack", "ek/1/t/d/x/tm", "ek/1/t/d/x/ack/y", "ek/1/t/d/+/ack", "ek/1/t/d//ack"],
)
def test_a_foreign_topic_is_refused(topic: str) -> None:
    with pytest.raises(DocumentError):
        topics.parse_device_topic(topic)


_durations = st.lists(st.floats(min_value=0.001, max_value=60_000), min_size=1, max_size=40)


def _histogram(values: list[float]) -> LatencyHistogram:
    recorder = LatencyRecorder()
    for value in values:
        recorder.record(value)
    return recorder.snapshot()


@given(_durations, _durations)
def test_merging_is_the_same_as_recording_all_together(left: list[float], right: list[float]) -> None:
    merged, together = _histogram(left).merge(_histogram(right)), _histogram(left + right)
    assert merged.buckets == together.buckets
    assert merged.sum_ms == pytest.approx(together.sum_ms)
    assert merged.max_ms == together.max_ms


@given(_durations, st.floats(min_value=0.01, max_value=1.0))
def test_a_quantile_is_within_its_bucket(values: list[float], share: float) -> None:
    rank = max(1, math.ceil(share * len(values) - 1e-9))
    true = sorted(values)[rank - 1]
    read = _histogram(values).quantile(share)
    assert read is not None
    assert read == pytest.approx(true, rel=0.046)


@given(st.floats(min_value=0.002, max_value=1e6))
def test_a_bucket_holds_what_falls_into_it(value: float) -> None:
    bucket = bucket_of(value)
    assert value <= bucket_upper(bucket) * (1 + 1e-9)
    assert bucket == 0 or value > bucket_upper(bucket - 1) * (1 - 1e-9)


def test_a_histogram_survives_the_wire_and_hostile_ones_do_not() -> None:
    histogram = _histogram([0.5, 3.0, 3.1])
    assert LatencyHistogram.read(Fields(histogram.to_dict(), where="t")) == histogram
    for bad in ([[1]], [[1, -1]], [[999, 1]], [[1, 1], [1, 1]], [["1", 1]], [[True, 1]]):
        with pytest.raises(DocumentError):
            LatencyHistogram.read(Fields({"buckets": bad}, where="t"))


def test_bins_of_different_packages_do_not_merge() -> None:
    assert Bins(counts=(1, 2)).merge(Bins(counts=(3, 4))) == Bins(counts=(4, 6))
    with pytest.raises(ValueError, match="argument"):
        Bins(counts=(1,)).merge(Bins(counts=(1, 2)))
    assert [bin_index((0.0, 1.0), value) for value in (-1.0, 0.0, 0.5, 1.0)] == [0, 1, 1, 2]


@given(k=st.integers(0, 60), extra=st.integers(0, 60), p=st.floats(0.01, 0.99))
def test_the_binomial_tail_is_scipys(k: int, extra: int, p: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    assert binomial_tail(k, k + extra, p) == pytest.approx(
        float(stats.binom.sf(k - 1, k + extra, p)), abs=1e-9
    )


@given(k=st.integers(1, 40), extra=st.integers(0, 40))
def test_the_bound_is_clopper_and_pearsons(k: int, extra: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
    expected = float(stats.beta.ppf(0.05, k, extra + 1))
    assert binomial_lower(k, k + extra, 0.95) == pytest.approx(expected, abs=1e-9)


def test_a_worse_candidate_is_shown_and_an_equal_one_is_not() -> None:
    worse = paired_drop(30, 0, 100)
    assert worse.drop == 0.3
    assert 0.2 < worse.lower < 0.3
    assert worse.p_worse < 1e-8
    equal = paired_drop(5, 5, 100)
    assert equal.lower < 0 < equal.upper
    assert equal.p_worse > 0.5
    same = paired_drop(0, 0, 300)
    assert same.lower == same.drop == 0
    assert same.upper == pytest.approx(0.00993, abs=1e-4)
    assert paired_drop(0, 0, 0).upper == 1.0


@given(lost=st.integers(0, 30), gained=st.integers(0, 30), agree=st.integers(0, 200))
def test_the_bounds_hold_the_drop(lost: int, gained: int, agree: int) -> None:
    result = paired_drop(lost, gained, lost + gained + agree)
    assert result.lower - 1e-9 <= result.drop <= result.upper + 1e-9


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        paired_drop(3, 3, 5)


def _facts(**changes: object) -> DeviceFacts:
    base: dict[str, object] = {
        "machine": "x86_64",
        "agent": "0",
        "python": "3.11",
        "os": "linux",
        "runtimes": {"litert": "2.3.0", "onnxruntime": "1.31.1"},
        "profiles": ("x86-64-litert", "x86-64-onnx"),
    }
    return DeviceFacts(**{**base, **changes})  # type: ignore[arg-type]  # a test's shorthand


def _entry(profile: str, precision: str, runtime: str, **changes: object) -> VariantEntry:
    base: dict[str, object] = {
        "id": f"{profile}-{precision}",
        "digest": "sha256:" + "0" * 64,
        "profile": profile,
        "precision": precision,
        "target": "t",
        "size": 1,
        "verdict": "pass",
        "requires": Requirements(runtime=runtime),
    }
    return VariantEntry(**{**base, **changes})  # type: ignore[arg-type]  # a test's shorthand


_TABLE = (
    _entry("x86-64-onnx", "fp32", "onnxruntime"),
    _entry("x86-64-onnx", "int8", "onnxruntime"),
    _entry("x86-64-litert", "int8", "litert"),
)


def _chosen(
    facts: DeviceFacts, table: tuple[VariantEntry, ...] = _TABLE, unverified: bool = False
) -> str | None:
    entry = choose_variant(table, facts, allow_unverified=unverified).entry
    return entry.id if entry else None


def test_the_most_specific_profile_wins_then_the_packages_order() -> None:
    assert _chosen(_facts()) == "x86-64-litert-int8"
    assert _chosen(_facts(profiles=("x86-64-onnx",))) == "x86-64-onnx-fp32"
    assert _chosen(_facts(profiles=("x86-64-onnx",), precisions=("int8", "fp32"))) == "x86-64-onnx-int8"


def test_a_device_without_the_runtime_gets_nothing_and_is_told_why() -> None:
    choice = choose_variant(_TABLE, _facts(profiles=("x86-64-litert",), runtimes={}))
    assert choice.entry is None
    assert "needs runtime litert" in choice.explanation
    assert "made for x86-64-onnx" in choice.explanation


def test_an_unverified_variant_needs_a_word_and_a_breach_never_ships() -> None:
    unverified = (_entry("x86-64-onnx", "fp32", "onnxruntime", verdict="unverified"),)
    assert _chosen(_facts(), unverified) is None
    assert _chosen(_facts(), unverified, unverified=True) == "x86-64-onnx-fp32"
    breach = (_entry("x86-64-onnx", "fp32", "onnxruntime", verdict="breach"),)
    assert _chosen(_facts(), breach, unverified=True) is None


def test_an_older_runtime_or_another_machine_is_refused() -> None:
    newer = (
        _entry(
            "x86-64-litert", "int8", "litert", requires=Requirements(runtime="litert", min_runtime="2.10.0")
        ),
    )
    assert _chosen(_facts(), newer) is None
    arm = (
        _entry(
            "x86-64-litert", "int8", "litert", requires=Requirements(runtime="litert", machines=("aarch64",))
        ),
    )
    assert _chosen(_facts(), arm) is None


def test_the_variant_table_survives_the_wire() -> None:
    for item in _TABLE:
        assert VariantEntry.read(Fields(item.to_dict(), where="t")) == item
