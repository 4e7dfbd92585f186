"""XGBoost's model, JSON or binary JSON, as an `Ensemble`: gbtree and dart, numeric and categorical splits.

Specification: XGBoost's "Introduction to Model IO" and its JSON schema. A split is ``x < t`` in
float32, NaN goes the default way, a listed category goes right. Margins are float32, one tree's leaf
added after another's, starting from the base score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.trees import ubj
from edgekit_converters.frontends.trees.ensemble import IN, LT, WHOLE, Ensemble, Tree

_TEXT = (b'"', b" ", b"\n", b"\r", b"\t", b"}")
_LOGISTIC = ("binary:logistic", "reg:logistic", "binary:logitraw")
_LOG = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")


@dataclass(frozen=True, kw_only=True)
class Boosted:
    """An ensemble and what is made of its sums: ``none``, ``sigmoid``, ``softmax``, ``exp`` or ``hinge``."""

    ensemble: Ensemble
    link: str


def read_xgboost(text: bytes | bytearray, where: str, *, rounds: int | None = None) -> Boosted:
    """The model in `text`, its first `rounds` rounds if given.

    Raises:
        SourceError: damaged, or of a kind that is not supported.
    """
    try:
        # A key follows the brace in both formats: in text behind a quote, in binary behind its length's type.
        known = json.loads(text) if text[1:2] in _TEXT else ubj.parse(bytes(text))
        return _boosted(known["learner"], where, rounds)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError, AttributeError) as error:
        raise SourceError(
            f"not a whole XGBoost model: {type(error).__name__} {error}", where=where, code="corrupt_source"
        ) from error


def _boosted(learner: Mapping[str, Any], where: str, rounds: int | None) -> Boosted:
    booster, weights = learner["gradient_booster"], None
    if booster["name"] == "dart":
        booster, weights = booster["gbtree"], [float(item) for item in booster["weight_drop"]]
    elif booster["name"] != "gbtree":
        raise SourceError(
            f"booster {booster['name']!r} is not supported, gbtree and dart are",
            where=where,
            code="unsupported_source",
        )
    model, parameters = booster["model"], learner["learner_model_param"]
    objective = learner["objective"]["name"]
    outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", "1")))
    features, targets = int(parameters["num_feature"]), [int(item) for item in model["tree_info"]]
    trees = [_tree(item, features, outputs, target, where) for item, target in _each(model, targets, weights)]
    if rounds is not None:
        parallel = max(1, int(model["gbtree_model_param"]["num_parallel_tree"]))
        trees, targets = trees[: rounds * outputs * parallel], targets[: rounds * outputs * parallel]
    if not trees:
        raise SourceError("the model has no trees", where=where, code="corrupt_source")
    for tree in trees:
        tree.paths()  # every child exists, no circles
    base = _base(parameters["base_score"], objective, outputs)
    ensemble = Ensemble(trees=trees, features=features, base=base, adds="float32", targets=targets)
    return Boosted(ensemble=ensemble, link=_link(objective))


def _each(model: Mapping[str, Any], targets: list[int], weights: list[float] | None) -> Any:
    trees = model["trees"]
    if weights is not None:
        trees = [{**tree, "weight": weight} for tree, weight in zip(trees, weights, strict=True)]
    return zip(trees, targets, strict=True)


def _tree(tree: Mapping[str, Any], features: int, outputs: int, target: int, where: str) -> Tree:
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise SourceError(
            "trees with a vector in each leaf are not supported",
            where=where,
            remedy="train with multi_strategy='one_output_per_tree'",
            code="unsupported_source",
        )
    left, right = (np.array(tree[key], np.int64) for key in ("left_children", "right_children"))
    condition = np.array(tree["split_conditions"], np.float32)
    nan_left = np.array(tree["default_left"], bool)
    column = np.array(tree["split_indices"], np.int64)
    kinds = np.array(tree.get("split_type", ()), np.int64)
    kinds = kinds if len(kinds) else np.zeros(len(left), np.int64)
    members = _categories(tree)
    chosen = (kinds == 1) & (left >= 0)
    if len({len(item) for item in (left, right, condition, column, kinds, nan_left)}) != 1:
        raise ValueError("a tree's lists are of different lengths")
    if min(left.min(), right.min()) < -1 or ((left < 0) != (right < 0)).any():
        raise ValueError("a node with half its children")
    if (column[left >= 0] >= features).any() or (column[left >= 0] < 0).any():
        raise ValueError("a split looks at a column that is not there")
    value = np.zeros((len(left), outputs))
    leaf = left < 0
    value[leaf, target] = condition[leaf] * np.float32(tree.get("weight", 1.0))
    return Tree(
        feature=np.where(chosen, column + WHOLE * features, column),
        rule=np.where(chosen, IN, LT),
        threshold=condition.astype(np.float64),
        yes=np.where(chosen, right, left),
        no=np.where(chosen, left, right),
        nan_yes=np.where(chosen, ~nan_left, nan_left),
        value=value,
        members=members,
    )


def _categories(tree: Mapping[str, Any]) -> dict[int, tuple[float, ...]]:
    every = tree.get("categories", [])
    found = {}
    parts = zip(
        tree.get("categories_nodes", []),
        tree.get("categories_segments", []),
        tree.get("categories_sizes", []),
        strict=True,
    )
    for node, start, size in parts:
        found[int(node)] = tuple(float(item) for item in every[int(start) : int(start) + int(size)])
    return found


def _base(text: str, objective: str, outputs: int) -> Array:
    """The margin that the base score stands for, in float32 as XGBoost computes it."""
    given = json.loads(text) if text.startswith("[") else [float(text)]
    score = np.array(given, np.float32)
    if objective in _LOGISTIC:
        score = -np.log(np.float32(1) / score - np.float32(1))
    elif objective in _LOG:
        score = np.log(score)
    return np.broadcast_to(score, (outputs,)).astype(np.float32)


def _link(objective: str) -> str:
    if objective in ("binary:logistic", "reg:logistic"):
        return "sigmoid"
    if objective in ("multi:softprob", "multi:softmax"):
        return "softmax"
    if objective == "binary:hinge":
        return "hinge"
    return "exp" if objective in _LOG else "none"
