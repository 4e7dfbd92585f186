"""Quality figures by task: hand-computed cases, independent implementations, and what must be refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from edgekit.contract import OutputSpec
from edgekit.errors import DataError
from edgekit_converters.verify.compare import output_error
from edgekit_converters.verify.tasks import Judged, figures_of, judged
from edgekit_converters.verify.tasks.classification import auc, confusion, gain, worse_than_chance
from edgekit_converters.verify.verdict import judge

RANDOM = np.random.default_rng(3)


def compare(
    task: str,
    source: dict[str, Any],
    variant: dict[str, Any],
    labels: Any,
    *,
    inputs: dict[str, Any] | None = None,
    slices: Any = None,
    tolerance: float | None = None,
) -> dict[str, Judged]:
    spec = OutputSpec(name=next(iter(source)), task=task, activation="softmax")
    found = figures_of(spec, source, inputs or {}, labels, "labels")
    return {item.name: judged(item, source, variant, slices, tolerance) for item in found}


def test_auc_is_that_of_scikit_learn_with_ties() -> None:
    scores = RANDOM.integers(0, 20, 500) / 20
    labels = (RANDOM.random(500) < scores).astype(int)
    assert auc(np.stack([scores, labels], axis=1)) == pytest.approx(metrics.roc_auc_score(labels, scores))


def test_top5_counts_what_top1_misses() -> None:
    y = RANDOM.random((300, 12)).astype(np.float32)
    labels = np.argsort(-y, axis=1)[np.arange(300), RANDOM.integers(0, 5, 300)]
    found = compare("classification", {"y": y}, {"y": y}, labels)
    assert found["top5"].source == 1.0
    assert 0.1 < found["top1"].source < 0.4


def test_miou_is_the_jaccard_score_of_scikit_learn() -> None:
    labels = RANDOM.integers(0, 3, (6, 8, 8))
    logits = np.eye(3)[labels] + 0.7 * RANDOM.standard_normal((6, 8, 8, 3))
    found = compare("segmentation", {"y": logits}, {"y": logits}, labels)
    wanted = metrics.jaccard_score(labels.ravel(), logits.argmax(-1).ravel(), average="macro")
    assert found["miou"].source == pytest.approx(wanted)
    first = compare(
        "segmentation", {"y": logits.transpose(0, 3, 1, 2)}, {"y": logits.transpose(0, 3, 1, 2)}, labels
    )
    assert first["miou"].source == pytest.approx(wanted)


def test_pixels_that_nobody_labelled_count_for_nothing() -> None:
    labels = np.zeros((2, 4, 4), int)
    labels[:, 2:] = 255
    good = np.zeros((2, 4, 4, 2))
    good[..., 0] = 1
    bad = good.copy()
    bad[:, 2:] = good[:, 2:, :, ::-1]
    found = compare("segmentation", {"y": good}, {"y": bad}, labels)
    assert (found["miou"].drop, found["pixel_accuracy"].drop) == (0.0, 0.0)


def test_a_regression_that_got_worse_is_a_breach_and_says_by_how_much() -> None:
    truth = RANDOM.standard_normal((400, 1))
    source = {"y": truth + 0.1 * RANDOM.standard_normal((400, 1))}
    variant = {"y": source["y"] + 0.3}
    found = compare("regression", source, variant, truth[:, 0])
    assert found["rmse"].source == pytest.approx(np.sqrt(((source["y"] - truth) ** 2).mean()))
    errors = {"y": output_error(source["y"], variant["y"], activation=None)}
    verdict = judge(precision="int8", errors=errors, figures=(found["rmse"],), origin="validation", n=400)
    assert verdict.verdict == "breach"
    assert "rmse rises by" in verdict.why
    same = compare("regression", source, source, truth[:, 0])
    assert (same["rmse"].lower, same["rmse"].drop, same["rmse"].upper) == (0.0, 0.0, 0.0)


def test_an_anomaly_model_is_judged_by_its_reconstruction() -> None:
    normal, odd = RANDOM.standard_normal((100, 8)), 3 * RANDOM.standard_normal((100, 8))
    x = np.concatenate([normal, odd])
    labels = np.repeat([0, 1], 100)
    found = compare("anomaly", {"y": np.zeros_like(x)}, {"y": x}, labels, inputs={"x": x})
    assert found["auc"].source > 0.95
    assert found["auc"].variant == 0.5
    assert found["auc"].lower > 0.3


def test_an_embedding_that_lost_identities_is_seen() -> None:
    centres = RANDOM.standard_normal((20, 16))
    labels = np.repeat(np.arange(20), 5)
    source = centres[labels] + 0.05 * RANDOM.standard_normal((100, 16))
    found = compare("embedding", {"y": source}, {"y": RANDOM.standard_normal((100, 16))}, labels)
    assert found["recall1"].source == 1.0
    assert found["recall1"].lower > 0.5


def boxes(shift: float) -> dict[str, Any]:
    one = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    return {
        "boxes": np.repeat((one + shift)[None], 4, axis=0),
        "scores": np.tile([0.9, 0.8], (4, 1)),
        "classes": np.tile([0.0, 1.0], (4, 1)),
    }


def test_detection_finds_what_overlaps_enough() -> None:
    truth = np.repeat(
        np.array([[[0, 0, 0, 10, 10], [1, 20, 20, 30, 30], [-1, 0, 0, 0, 0]]], float), 4, axis=0
    )
    found = compare("detection", boxes(0), boxes(1.0), truth)
    assert found["map"].source == found["map50"].source == 1.0
    # 9 x 9 of 119 overlap: 0.68, enough for 0.50, 0.55, 0.60 and 0.65.
    assert found["map50"].variant == 1.0
    assert found["map"].variant == pytest.approx(0.4)


def test_a_box_of_the_truth_is_found_once() -> None:
    truth = np.array([[[0, 0, 0, 10, 10]]], float)
    twice = {
        "boxes": np.array([[[0, 0, 10, 10], [0, 0, 10, 10]]], float),
        "scores": np.array([[0.8, 0.9]]),
        "classes": np.zeros((1, 2)),
    }
    missed = {**twice, "classes": np.ones((1, 2))}
    found = compare("detection", twice, missed, truth)
    assert (found["map"].source, found["map"].variant) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("segmentation", np.zeros((4, 3), int)),
        ("regression", np.zeros(7)),
        ("embedding", np.zeros((4, 2))),
        ("anomaly", np.zeros(4)),
        ("detection", np.zeros((4, 5))),
    ],
)
def test_labels_of_another_kind_are_refused_by_name(task: str, labels: Any) -> None:
    y = {"y": np.zeros((4, 2, 2, 3))}
    with pytest.raises(DataError) as caught:
        compare(task, y, y, labels)
    assert "labels" in str(caught.value)


def test_one_slice_that_surely_loses_is_a_breach_though_the_whole_does_not() -> None:
    y = np.eye(10, dtype=np.float32)[RANDOM.integers(0, 10, 900)]
    worse = y.copy()
    worse[:12] = np.roll(worse[:12], 1, axis=1)
    slices = np.array(["dark"] * 12 + ["light"] * 888)
    found = compare("classification", {"y": y}, {"y": worse}, y.argmax(1), slices=slices, tolerance=0.05)[
        "top1"
    ]
    assert found.lower < 0.05
    errors = {"y": output_error(y, worse, activation="softmax")}
    verdict = judge(precision="int8", errors=errors, figures=(found,), origin="validation", n=900)
    assert (verdict.verdict, "slice dark" in verdict.why) == ("breach", True)


def test_confusion_counts_label_by_answer_and_gain_reaches_one() -> None:
    y = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 0])
    assert confusion(y, labels, "softmax") == [[1, 1], [1, 1]]
    assert gain(y, labels, "softmax", positive=1, steps=4) == [0.5, 0.5, 1.0, 1.0]


def test_labels_that_are_off_by_one_are_told_from_a_weak_model() -> None:
    truth = np.arange(64) % 4
    assert worse_than_chance(truth == (truth + 1) % 4, 4)
    assert not worse_than_chance(np.arange(64) % 4 == 0, 4)
    assert not worse_than_chance(truth[:4] == truth[:4] + 1, 4), "too few to tell"
