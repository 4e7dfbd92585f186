"""scikit-learn, XGBoost and LightGBM models from their files to plain ONNX, each against its library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tomllib
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

from edgekit.errors import SourceError
from edgekit_converters import frontends
from edgekit_converters.source import recognise
from tests.converters.conftest import edgekit

Array = NDArray[Any]
pytest.importorskip("skl2onnx", reason="scikit-learn pipelines need the extra [ml]")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def _iris() -> tuple[Array, Array]:
    rows, labels = load_iris(return_X_y=True)
    return rows.astype(np.float32), labels


ROWS, LABELS = _iris()
TWO = (LABELS > 0).astype(int)


def both(path: Path, rows: Array, tmp_path: Path, *, trust: bool = False) -> tuple[Any, dict[str, Array]]:
    """The library's answers and those of the ONNX form, by output; types and shapes are compared."""
    loaded = frontends.load(recognise(path, trust=trust))
    loaded.export(tmp_path / "made.onnx")
    model = onnx.load(tmp_path / "made.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = loaded.run({"X": rows})
    found = dict(zip(expected, session.run(None, {"X": rows}), strict=True))
    for port in loaded.signature.outputs:
        assert found[port.name].dtype == expected[port.name].dtype == np.dtype(port.dtype)
        assert found[port.name].shape == expected[port.name].shape
    return expected, found


def saved(model: Any, tmp_path: Path) -> Path:
    joblib.dump(model, tmp_path / "model.joblib")
    return tmp_path / "model.joblib"


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (RandomForestClassifier(5, random_state=0), LABELS),
        (RandomForestClassifier(5, random_state=0), np.array(["a", "b", "c"])[LABELS]),
        (RandomForestRegressor(5, random_state=0), LABELS),
        (HistGradientBoostingRegressor(max_iter=3), LABELS),
        (RidgeClassifier(), LABELS),
    ],
    ids=lambda item: type(item).__name__ if not isinstance(item, np.ndarray) else item.dtype.kind,
)
def test_what_is_said_to_be_equal_is_equal_bit_by_bit(model: Any, labels: Array, tmp_path: Path) -> None:
    expected, found = both(saved(model.fit(ROWS, labels), tmp_path), ROWS, tmp_path, trust=True)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    "scalers", [(StandardScaler(),), (MinMaxScaler(), RobustScaler())], ids=["standard", "two"]
)
def test_scaling_before_trees_moves_no_sample_to_another_leaf(scalers: Any, tmp_path: Path) -> None:
    """Scaled in float32, every hundredth sample would fall on the other side of a threshold."""
    rows = np.repeat(ROWS, 4, axis=0) + np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    model = make_pipeline(*scalers, RandomForestClassifier(30, random_state=0))
    model.fit(rows, np.repeat(LABELS, 4))
    expected, found = both(saved(model, tmp_path), rows, tmp_path, trust=True)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), LABELS),
        (make_pipeline(MinMaxScaler(), Normalizer(), LogisticRegression()), TWO),
        (HistGradientBoostingClassifier(max_iter=3), LABELS),
        (AdaBoostClassifier(n_estimators=3, random_state=0), TWO),
        (SVC(), LABELS),
        (SVC(), np.array(["a", "b", "c"])[LABELS]),
        (SVR(), LABELS),
        (LinearSVC(), TWO),
        (RidgeClassifier(), TWO),
        (KNeighborsClassifier(), LABELS),
        (MLPClassifier(max_iter=5), np.array(["a", "b", "c"])[LABELS]),
        (GaussianNB(), LABELS),
        (Ridge(), LABELS),
    ],
    ids=lambda item: type(item).__name__ if not isinstance(item, np.ndarray) else "",
)
def test_a_pipeline_without_ml_ops_computes_what_scikit_learn_does(
    model: Any, labels: Array, tmp_path: Path
) -> None:
    expected, found = both(saved(model.fit(ROWS, labels), tmp_path), ROWS, tmp_path, trust=True)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    if "label" in expected:
        np.testing.assert_array_equal(found["label"], expected["label"])
        assert next(iter(expected)) != "label"  # the first output is the one that is judged


def _xgboost(path: Path) -> Path:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost models need the extra [ml]")
    data = xgboost.DMatrix(ROWS, LABELS)
    xgboost.train({"objective": "multi:softmax", "num_class": 3, "nthread": 1}, data, 5).save_model(path)
    return path


def _lightgbm(path: Path) -> Path:
    lightgbm = pytest.importorskip("lightgbm", reason="LightGBM models need the extra [ml]")
    options = {"objective": "binary", "verbose": -1, "num_threads": 1}
    lightgbm.train(options, lightgbm.Dataset(ROWS, TWO), 5).save_model(path)
    return path


@pytest.mark.parametrize(("make", "name"), [(_xgboost, "m.json"), (_xgboost, "m.ubj"), (_lightgbm, "m.txt")])
def test_boosted_models_load_from_their_own_files(
    make: Callable[[Path], Path], name: str, tmp_path: Path
) -> None:
    expected, found = both(make(tmp_path / name), ROWS, tmp_path)
    # The sums are equal; sigmoid and softmax are each library's own.
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("make", "name"), [(_xgboost, "m.json"), (_xgboost, "m.ubj"), (_lightgbm, "m.txt")])
def test_a_damaged_boosted_model_is_refused_with_its_name(
    make: Callable[[Path], Path], name: str, tmp_path: Path
) -> None:
    path = make(tmp_path / name)
    data = path.read_bytes()
    for size in (len(data) // 3, len(data) // 2, len(data) - 40):
        path.write_bytes(data[:size])
        with pytest.raises(SourceError) as caught:
            frontends.load(recognise(path))
        assert str(caught.value.where) == str(path)


def test_a_truncated_pickle_is_refused_with_its_name(tmp_path: Path) -> None:
    path = saved(Ridge().fit(ROWS, LABELS), tmp_path)
    data = path.read_bytes()
    for size in (3, len(data) // 2, len(data) - 2):
        path.write_bytes(data[:size])
        with pytest.raises(SourceError, match="unpickled"):
            frontends.load(recognise(path, trust=True))


@pytest.mark.parametrize(("thing", "said"), [([1, 2], "no scikit-learn estimator"), (Ridge(), "not fitted")])
def test_what_is_no_fitted_estimator_is_refused(thing: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        frontends.load(recognise(saved(thing, tmp_path), trust=True))


def test_probabilities_that_an_iteration_finds_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = SVC(probability=True, random_state=0).fit(ROWS, LABELS)
    loaded = frontends.load(recognise(saved(model, tmp_path), trust=True))
    with pytest.raises(SourceError, match="CalibratedClassifierCV"):
        loaded.export(tmp_path / "made.onnx")


def test_names_of_classes_reach_the_contract(cache: Path, tmp_path: Path) -> None:
    names = np.array(["setosa", "versicolor", "virginica"])[LABELS]
    path = saved(RandomForestClassifier(3, random_state=0).fit(ROWS, names), tmp_path)
    loaded = frontends.load(recognise(path, trust=True))
    assert loaded.signature.labels == ("setosa", "versicolor", "virginica")
    edgekit("init", path, "--trust", cache=cache)
    outputs = tomllib.loads((tmp_path / "model.toml").read_text())["outputs"]
    assert [item["name"] for item in outputs] == ["probabilities", "label"]
    assert outputs[0]["labels"] == ["setosa", "versicolor", "virginica"]


def test_a_pickle_without_trust_ends_the_command_before_it_is_opened(cache: Path, tmp_path: Path) -> None:
    path = saved(Ridge().fit(ROWS, LABELS), tmp_path)
    options = ("--profile", "x86-64-onnx", "--out", tmp_path / "out")
    done = edgekit("convert", path, *options, cache=cache, check=(2,))
    assert "--trust" in done.err
    assert "--trust" in edgekit("init", path, cache=cache, check=(2,)).err
    assert not (tmp_path / "out").exists()
