"""scikit-learn's trees as an `Ensemble`, from fitted estimators.

Forests and single trees look at float32 (``x <= t`` with a float64 t) and average in float64; gradient
boosting adds its trees times the learning rate; the histogram kind looks at float64 and has sets of
categories. What scikit-learn computes in float64 is added exactly here and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.trees.ensemble import LE, Ensemble, Tree


def forest(estimators: Sequence[Any], features: int) -> Ensemble:
    """Trees whose (mean) values are added; the caller divides by their number."""
    trees = [_tree(item.tree_, item.tree_.value[:, 0, :]) for item in estimators]
    return Ensemble(trees=trees, features=features, base=np.zeros(trees[0].value.shape[1]))


def gradient_boosting(model: Any) -> Ensemble:
    """`GradientBoostingClassifier` and `GradientBoostingRegressor` with a constant start."""
    if model.init is not None and not isinstance(model.init, str):
        raise SourceError(
            "gradient boosting that starts from another model is not supported",
            remedy="train with init=None or init='zero'",
            code="unsupported_source",
        )
    stages = model.estimators_
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))[0]
    trees = [
        _tree(item.tree_, _placed(item.tree_.value[:, 0, 0] * model.learning_rate, place, stages.shape[1]))
        for stage in stages
        for place, item in enumerate(stage)
    ]
    targets = list(range(stages.shape[1])) * len(stages)
    start = np.asarray(base, np.float64)
    return Ensemble(trees=trees, features=model.n_features_in_, base=start, targets=targets)


def histogram_boosting(model: Any) -> Ensemble:
    """`HistGradientBoostingClassifier` and `HistGradientBoostingRegressor` without categories."""
    if getattr(model, "is_categorical_", None) is not None and np.any(model.is_categorical_):
        raise SourceError(
            "histogram gradient boosting with categorical features is not supported",
            remedy="encode the categories with an OrdinalEncoder and train on numbers, or use LightGBM",
            code="unsupported_source",
        )
    base = np.asarray(model._baseline_prediction, np.float64).reshape(-1)
    trees = [
        _histogram_tree(item.nodes, place, len(stage))
        for stage in model._predictors
        for place, item in enumerate(stage)
    ]
    targets = list(range(len(base))) * len(model._predictors)
    return Ensemble(trees=trees, features=model.n_features_in_, base=base, targets=targets)


def _placed(value: Array, place: int, outputs: int) -> Array:
    found = np.zeros((len(value), outputs))
    found[:, place] = value
    return found


def _tree(tree: Any, value: Array) -> Tree:
    leaf = tree.children_left < 0
    return Tree(
        feature=np.where(leaf, 0, tree.feature).astype(np.int64),
        rule=np.full(tree.node_count, LE),
        threshold=np.asarray(tree.threshold, np.float64),
        yes=np.where(leaf, -1, tree.children_left).astype(np.int64),
        no=np.where(leaf, -1, tree.children_right).astype(np.int64),
        nan_yes=np.asarray(tree.missing_go_to_left, bool),
        value=np.where(leaf[:, None], value, 0.0),
    )


def _histogram_tree(nodes: Any, place: int, outputs: int) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        rule=np.full(len(nodes), LE),
        threshold=nodes["num_threshold"].astype(np.float64),
        yes=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        no=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        nan_yes=nodes["missing_go_to_left"].astype(bool),
        value=np.where(leaf[:, None], _placed(nodes["value"], place, outputs), 0.0),
    )
