"""Trees as tensor ops: the same leaves and the same sums as the library that grew the trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Emitter
from edgekit_converters.frontends.trees import from_sklearn, plain
from edgekit_converters.frontends.trees.ensemble import IN, LT, Ensemble, Tree, bounds
from edgekit_converters.frontends.trees.from_lightgbm import read_lightgbm
from edgekit_converters.frontends.trees.from_xgboost import read_xgboost

Array = NDArray[Any]
FORMS = pytest.mark.parametrize("largest_product", [1 << 19, 0], ids=["product", "walk"])


def run(ensemble: Ensemble, rows: Array, *, batch: int | None = None) -> Array:
    """The ensemble's sums by onnxruntime, through a checked model."""
    e = Emitter()
    e.op("Identity", plain.emit_ensemble(e, "x", ensemble), out="y")
    inputs = [("x", np.float32, ("N", ensemble.features))]
    model = e.model(inputs, [("y", np.float32, ("N", ensemble.outputs))])
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": rows})[0]
    return found


def grown(random: np.random.Generator, depth: int, features: int, outputs: int) -> Tree:
    """A random tree with every rule, and NaN going either way."""
    rows: list[list[float]] = []
    members: dict[int, tuple[float, ...]] = {}

    def node(level: int) -> int:
        here = len(rows)
        feature, rule, nan_yes = (int(random.integers(k)) for k in (features, 3, 2))
        rows.append([feature, rule, random.normal(), -1, -1, nan_yes])
        if level and random.random() < 0.85:
            members[here] = tuple(sorted(random.choice(5, 2, replace=False).astype(float)))
            rows[here][3] = node(level - 1)
            rows[here][4] = node(level - 1)
        return here

    node(depth)
    table = np.array(rows)
    whole = table.astype(np.int64)
    return Tree(
        feature=whole[:, 0],
        rule=whole[:, 1],
        threshold=table[:, 2],
        yes=whole[:, 3],
        no=whole[:, 4],
        nan_yes=table[:, 5].astype(bool),
        value=random.normal(size=(len(rows), outputs)),
        members=members,
    )


def walked(tree: Tree, row: Array) -> Array:
    """What the tree says, by the definition of its rules, in float64."""
    at = 0
    while tree.yes[at] >= 0:
        x = float(row[tree.feature[at]])
        if np.isnan(x):
            yes = bool(tree.nan_yes[at])
        elif tree.rule[at] == IN:
            yes = x in tree.members[at]
        else:
            yes = x < tree.threshold[at] if tree.rule[at] == LT else x <= tree.threshold[at]
        at = int(tree.yes[at] if yes else tree.no[at])
    found: Array = tree.value[at]
    return found


@FORMS
@pytest.mark.parametrize("seed", range(4))
def test_random_trees_with_sets_and_missing_values_give_the_exact_sum(
    monkeypatch: pytest.MonkeyPatch, largest_product: int, seed: int
) -> None:
    monkeypatch.setattr(plain, "_LARGEST_PRODUCT", largest_product)
    random = np.random.default_rng(seed)
    trees = [*(grown(random, 5, 4, 3) for _ in range(7)), grown(random, 0, 4, 3)]
    ensemble = Ensemble(trees=trees, features=4, base=np.array([0.1, 0.0, 3.0]))
    rows = random.normal(size=(200, 4)).astype(np.float32)
    rows[random.random(rows.shape) < 0.2] = np.nan
    whole = random.random(rows.shape) < 0.4
    rows[whole] = random.integers(0, 5, whole.sum())
    expected = [ensemble.base + sum(walked(tree, row) for tree in trees) for row in rows]
    np.testing.assert_array_equal(run(ensemble, rows), np.array(expected).astype(np.float32))


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_subnormal=False),
    st.booleans(),
)
def test_a_threshold_in_float32_decides_every_normal_number_as_in_float64(
    threshold: float, x: float, strict: bool
) -> None:
    (bound,) = bounds(np.array([threshold]), np.array([strict]))
    assert (np.float32(x) <= bound) == (x < threshold if strict else x <= threshold)
    assert bound == 0 or abs(float(bound)) >= np.finfo(np.float32).tiny


def test_a_tree_with_a_circle_is_refused_and_not_walked_for_ever() -> None:
    tree = grown(np.random.default_rng(0), 2, 2, 1)
    tree.yes[0] = 0
    with pytest.raises(ValueError, match="circle"):
        tree.paths()


def _digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return rows[:600].astype(np.float32), labels[:600]


def _with_gaps(rows: Array) -> Array:
    gaps = np.random.default_rng(1).random(rows.shape) < 0.1
    return np.where(gaps, np.float32(np.nan), rows)


@FORMS
@pytest.mark.parametrize(
    ("objective", "booster"),
    [("multi:softprob", "gbtree"), ("binary:logistic", "gbtree"), ("count:poisson", "dart")],
)
def test_xgboost_margins_are_equal_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, largest_product: int, objective: str, booster: str
) -> None:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost models need the extra [ml]")
    monkeypatch.setattr(plain, "_LARGEST_PRODUCT", largest_product)
    rows, labels = _digits()
    rows = _with_gaps(rows)
    classes = {"num_class": 10} if objective == "multi:softprob" else {}
    options = {"objective": objective, "booster": booster, "max_depth": 4, "nthread": 1}
    options |= {"rate_drop": 0.2} if booster == "dart" else {}
    data = xgboost.DMatrix(rows, labels > 4 if objective == "binary:logistic" else labels)
    model = xgboost.train({**options, **classes}, data, 8)
    found = run(read_xgboost(bytes(model.save_raw("json")), "m").ensemble, rows)
    np.testing.assert_array_equal(found.reshape(-1), model.predict(data, output_margin=True).reshape(-1))


@FORMS
@pytest.mark.parametrize("objective", ["multiclass", "binary", "regression"])
@pytest.mark.parametrize("zero_is_missing", [False, True])
def test_lightgbm_sums_are_equal_to_the_last_bit_of_float32(
    monkeypatch: pytest.MonkeyPatch, largest_product: int, objective: str, zero_is_missing: bool
) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM models need the extra [ml]")
    monkeypatch.setattr(plain, "_LARGEST_PRODUCT", largest_product)
    rows, labels = _digits()
    rows = _with_gaps(rows)
    classes = {"num_class": 10} if objective == "multiclass" else {}
    options = {"objective": objective, "verbose": -1, "num_threads": 1, "zero_as_missing": zero_is_missing}
    target = labels > 4 if objective == "binary" else labels
    model = lightgbm.train({**options, **classes}, lightgbm.Dataset(rows, target), 5)
    found = run(read_lightgbm(model.model_to_string(), "m").ensemble, rows)
    expected = model.predict(rows, raw_score=True).reshape(found.shape)
    # The library's own float64 sum is rounded at every step: the last bit may fall otherwise, rarely.
    np.testing.assert_array_max_ulp(found, expected.astype(np.float32), maxulp=1)
    assert (found == expected.astype(np.float32)).mean() > 0.999


@FORMS
def test_categories_go_the_way_they_went_in_training(
    monkeypatch: pytest.MonkeyPatch, largest_product: int
) -> None:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost models need the extra [ml]")
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM models need the extra [ml]")
    monkeypatch.setattr(plain, "_LARGEST_PRODUCT", largest_product)
    random = np.random.default_rng(0)
    rows = random.integers(0, 12, (400, 3)).astype(np.float32)
    labels = (rows[:, 0] % 3 == 1) ^ (rows[:, 1] > 4)
    rows = _with_gaps(rows)
    data = xgboost.DMatrix(rows, labels, feature_types=["c"] * 3, enable_categorical=True)
    options = {"objective": "binary:logistic", "max_depth": 4, "max_cat_to_onehot": 1, "nthread": 1}
    first = xgboost.train(options, data, 5)
    found = run(read_xgboost(bytes(first.save_raw("json")), "m").ensemble, rows)
    np.testing.assert_array_equal(found[:, 0], first.predict(data, output_margin=True))
    plain_options = {"objective": "binary", "verbose": -1, "min_data_per_group": 5, "num_threads": 1}
    second = lightgbm.train(plain_options, lightgbm.Dataset(rows, labels, categorical_feature=[0, 1]), 5)
    found = run(read_lightgbm(second.model_to_string(), "m").ensemble, rows)
    np.testing.assert_array_max_ulp(
        found[:, 0], second.predict(rows, raw_score=True).astype(np.float32), maxulp=1
    )


@FORMS
def test_scikit_learn_forests_and_boosting_are_equal(
    monkeypatch: pytest.MonkeyPatch, largest_product: int
) -> None:
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )

    monkeypatch.setattr(plain, "_LARGEST_PRODUCT", largest_product)
    rows, labels = _digits()
    forest = RandomForestClassifier(20, random_state=0).fit(rows, labels)
    sums = run(from_sklearn.forest(forest.estimators_, 64), rows)
    np.testing.assert_array_equal(sums / np.float32(20), forest.predict_proba(rows).astype(np.float32))
    boosting = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(rows, labels)
    found = run(from_sklearn.gradient_boosting(boosting), rows)
    np.testing.assert_array_max_ulp(found, boosting._raw_predict(rows).astype(np.float32), maxulp=1)
    gaps = _with_gaps(rows)
    histogram = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(gaps, labels)
    found = run(from_sklearn.histogram_boosting(histogram), gaps)
    expected = histogram._raw_predict(gaps.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(found, expected, maxulp=1)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_boosted_model(data: bytes) -> None:
    with pytest.raises(SourceError):
        read_xgboost(data, "m.json")
    with pytest.raises(SourceError):
        read_lightgbm(data.decode("latin-1"), "m.txt")


def _small_xgboost() -> tuple[bytes, bytes]:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost models need the extra [ml]")
    rows, labels = _digits()
    options = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
    model = xgboost.train(options, xgboost.DMatrix(rows, labels > 4), 3)
    return bytes(model.save_raw("json")), bytes(model.save_raw("ubj"))


def test_both_formats_of_xgboost_are_the_same_model() -> None:
    text, binary = (read_xgboost(data, "m").ensemble for data in _small_xgboost())
    assert len(text.trees) == 3
    for one, other in zip(text.trees, binary.trees, strict=True):
        for name in ("feature", "rule", "threshold", "yes", "no", "nan_yes", "value"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_damaged_model_is_refused_before_xgboost_sees_it() -> None:
    """A child that does not exist ends XGBoost's process."""
    binary = _small_xgboost()[1]
    start = binary.index(b"left_children[$l#L") + 26
    for bad in (b"\xff\xff\xff\x37", b"\x00\x00\x7f\x00", b"\x00\x00\x00\x00"):
        with pytest.raises(SourceError):
            read_xgboost(binary[:start] + bad + binary[start + 4 :], "m.ubj")
    for size in range(0, len(binary) - 1, 499):
        with pytest.raises(SourceError):
            read_xgboost(binary[:size], "m.ubj")


def test_a_model_that_was_cut_off_is_refused_with_its_name() -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM models need the extra [ml]")
    rows, labels = _digits()
    options = {"objective": "binary", "verbose": -1, "num_threads": 1}
    text = lightgbm.train(options, lightgbm.Dataset(rows, labels > 4), 3).model_to_string()
    whole = text.index("end of trees") + len("end of trees")
    for size in range(10, whole, 997):
        with pytest.raises(SourceError) as caught:
            read_lightgbm(text[:size], "cut.txt")
        assert caught.value.where == "cut.txt"
