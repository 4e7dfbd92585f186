"""ONNX-ML ops as plain ops: equal to onnxruntime's kernels, op by op, and nothing of ONNX-ML left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from edgekit.errors import SourceError
from edgekit_converters.frontends.ml_ops import has_ml, rewrite_ml

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(50, 3)).astype(np.float32)


def model_of(
    op: str,
    outputs: dict[str, int],
    *,
    rows: Any = ROWS,
    opset: int = 18,
    ml: int = 3,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node over ``x``."""
    kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
    node = helper.make_node(op, ["x"], list(outputs), domain="ai.onnx.ml", name="it", **attributes)
    ports = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", kind, ["N", *rows.shape[1:]])], ports
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def same(model: onnx.ModelProto, rows: Any = ROWS, *, atol: float = 1e-6) -> onnx.ModelProto:
    """Both forms give the same in onnxruntime; gives the plain one."""
    plain = rewrite_ml(model)
    assert not has_ml(plain)
    results = []
    for item in (model, plain):
        session = ort.InferenceSession(item.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_outputs()]
        results.append(dict(zip(names, session.run(None, {"x": rows}), strict=True)))
    for name, expected in results[0].items():
        assert results[1][name].dtype == expected.dtype
        np.testing.assert_allclose(results[1][name], expected, rtol=1e-5, atol=atol)
    return plain


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
_HALF = [0.5, -1.0, 2.0]


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Scaler", {"offset": _HALF, "scale": [2.0, 0.5, 1.0]}),
        ("Scaler", {"offset": [1.0], "scale": [2.0]}),
        ("Normalizer", {"norm": "L1"}),
        ("Normalizer", {"norm": "L2"}),
        ("Normalizer", {"norm": "MAX"}),
        ("Binarizer", {"threshold": 0.25}),
        ("LinearRegressor", {"coefficients": _HALF, "intercepts": [0.5], "targets": 1}),
        ("LinearRegressor", {"coefficients": _HALF * 2, "intercepts": [0.5, 1.0], "targets": 2}),
        ("FeatureVectorizer", {"inputdimensions": [3]}),
        (
            "SVMRegressor",
            {
                "kernel_type": "RBF",
                "kernel_params": [0.3, 0.0, 3.0],
                "n_supports": 2,
                "support_vectors": [*_HALF, 0.1, 0.2, 0.3],
                "coefficients": [1.0, -0.5],
                "rho": [0.2],
            },
        ),
        (
            "SVMRegressor",
            {
                "kernel_type": "POLY",
                "kernel_params": [0.3, 1.0, 3.0],
                "n_supports": 1,
                "support_vectors": _HALF,
                "coefficients": [1.0],
                "rho": [0.2],
            },
        ),
    ],
)
def test_an_op_over_rows_is_equal(op: str, attributes: dict[str, Any]) -> None:
    same(model_of(op, {"y": FLOAT}, **attributes))


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_linear_classifier_is_equal_and_its_label_goes_last(transform: str, classes: int) -> None:
    labels = [7, 3, 5] if classes == 3 else [7, 3]
    plain = same(
        model_of(
            "LinearClassifier",
            {"label": INT64, "scores": FLOAT},
            coefficients=[*_HALF, *(0.3, 0.2, 0.1), *(1.0, 0.0, -1.0)][: 3 * classes],
            intercepts=[0.1, 0.2, 0.3][:classes],
            classlabels_ints=labels,
            post_transform=transform,
            multi_class=0,
        )
    )
    assert [port.name for port in plain.graph.output] == ["scores", "label"]


@pytest.mark.parametrize(
    "mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ"]
)
@pytest.mark.parametrize("nan_true", [0, 1])
def test_every_mode_of_a_tree_node_is_equal_for_numbers_borders_and_nan(mode: str, nan_true: int) -> None:
    rows = np.array([[0.5], [0.49], [0.51], [np.nan], [-1], [np.inf]], np.float32)
    model = model_of(
        "TreeEnsembleRegressor",
        {"y": FLOAT},
        rows=rows,
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=[mode, "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[nan_true, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[10.0, 20.0],
        base_values=[0.25],
    )
    same(model, rows)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("low", [0.2, -0.2])
def test_two_classes_from_one_score_follow_the_sign_of_the_weights(transform: str, low: float) -> None:
    rows = np.array([[0], [1]], np.float32)
    model = model_of(
        "TreeEnsembleClassifier",
        {"label": INT64, "scores": FLOAT},
        rows=rows,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0],
        class_nodeids=[1, 2],
        class_ids=[0, 0],
        class_weights=[low, 0.9],
        classlabels_int64s=[3, 8],
        post_transform=transform,
    )
    same(model, rows)


def test_numbers_are_looked_up_with_nan_as_a_key() -> None:
    rows = np.array([[1.0, np.nan, 3.0], [2.0, 1.0, 9.0]], np.float32)
    same(
        model_of(
            "LabelEncoder",
            {"y": FLOAT},
            rows=rows,
            ml=4,
            keys_floats=[1.0, np.nan, 2.0],
            values_floats=[10.0, 20.0, 30.0],
            default_float=-5.0,
        ),
        rows,
    )


def test_whole_numbers_become_columns() -> None:
    rows = np.array([[1], [5], [9]], np.int64)
    same(model_of("OneHotEncoder", {"y": FLOAT}, rows=rows, cats_int64s=[5, 1], zeros=1), rows)


def test_missing_values_are_replaced() -> None:
    rows = np.where(RANDOM.random((20, 3)) < 0.3, np.float32(np.nan), RANDOM.random((20, 3), np.float32))
    model = model_of(
        "Imputer", {"y": FLOAT}, imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=float("nan")
    )
    same(model, rows)


def test_strings_are_refused_with_the_node_named() -> None:
    model = model_of("LabelEncoder", {"y": INT64}, ml=2, keys_strings=["a"], values_int64s=[1])
    with pytest.raises(SourceError, match="'it'"):
        rewrite_ml(model)


def test_an_unknown_op_is_refused_with_its_name() -> None:
    model = model_of("Scaler", {"y": FLOAT})
    model.graph.node[0].op_type = "Wizard"
    with pytest.raises(SourceError, match="Wizard"):
        rewrite_ml(model)


def test_a_tree_with_a_broken_link_is_refused() -> None:
    model = model_of(
        "TreeEnsembleRegressor",
        {"y": FLOAT},
        n_targets=1,
        nodes_treeids=[0],
        nodes_nodeids=[0],
        nodes_featureids=[0],
        nodes_modes=["BRANCH_LEQ"],
        nodes_values=[0.5],
        nodes_truenodeids=[7],
        nodes_falsenodeids=[8],
        target_treeids=[0],
        target_nodeids=[0],
        target_ids=[0],
        target_weights=[1.0],
    )
    with pytest.raises(SourceError, match="broken link"):
        rewrite_ml(model)


def test_a_model_without_such_ops_is_left_alone() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", FLOAT, ["N"])],
    )
    model = helper.make_model(graph)
    assert rewrite_ml(model) is model


_WHEEL = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"


@pytest.mark.parametrize(
    "name",
    ["array_feature_extractor", "binarizer", "tree_ensemble_set_membership", "tree_ensemble_single_tree"],
)
def test_the_standard_own_cases_hold(name: str) -> None:
    folder = _WHEEL / f"test_ai_onnx_ml_{name}"
    plain = rewrite_ml(onnx.load(folder / "model.onnx"))
    session = ort.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])

    def stored(path: Path) -> Any:
        tensor = TensorProto()
        tensor.ParseFromString(path.read_bytes())
        return onnx.numpy_helper.to_array(tensor)

    data = folder / "test_data_set_0"
    names = [item.name for item in session.get_inputs()]
    inputs = [stored(path) for path in sorted(data.glob("input_*.pb"))]
    (found,) = session.run(None, dict(zip(names, inputs, strict=True)))
    expected = stored(data / "output_0.pb")
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5)
