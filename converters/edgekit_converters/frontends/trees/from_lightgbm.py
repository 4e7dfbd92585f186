"""LightGBM's text model as an `Ensemble`: numeric and categorical splits, all three kinds of missing.

Specification: LightGBM's model text (`Booster.save_model`) and its decision rule: float64 ``x <= t``;
by the node's kind of missing NaN counts as zero (none), zero and NaN go the default way (zero), or NaN
does (nan); a category outside the set, NaN included, goes right. Leaves are added in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.trees.ensemble import (
    IN,
    LE,
    NAN_IS_ZERO,
    WHOLE,
    ZERO_IS_NAN,
    Ensemble,
    Tree,
)
from edgekit_converters.frontends.trees.from_xgboost import Boosted

_LINKS = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "cross_entropy": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "cross_entropy_lambda": "unsupported",
}


def read_lightgbm(text: str, where: str, *, rounds: int | None = None) -> Boosted:
    """The model in `text`, its first `rounds` rounds if given.

    Raises:
        SourceError: damaged, or of a kind that is not supported.
    """
    try:
        return _boosted(text, where, rounds)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise SourceError(
            f"not a whole LightGBM model: {type(error).__name__} {error}", where=where, code="corrupt_source"
        ) from error


def _boosted(text: str, where: str, rounds: int | None) -> Boosted:
    head, *parts = text.split("\nTree=")
    facts = _pairs(head)
    tail = parts[-1] if parts else ""
    if "end of trees" not in tail or ("\nparameters:" in tail and "end of parameters" not in tail):
        raise ValueError("no trees, or the file is cut off")
    outputs = int(facts["num_tree_per_iteration"])
    features = int(facts["max_feature_idx"]) + 1
    kept = parts if rounds is None else parts[: rounds * outputs]
    trees = [_tree(_pairs(part), features, outputs, i % outputs, where) for i, part in enumerate(kept)]
    for tree in trees:
        tree.paths()  # every child exists, no circles
    link, scale = _link(facts.get("objective", ""), where)
    if "average_output" in head:
        scale /= len(trees) // outputs
    if scale != 1.0:
        trees = [_scaled(tree, scale) for tree in trees]
    targets = [i % outputs for i in range(len(trees))]
    ensemble = Ensemble(trees=trees, features=features, base=np.zeros(outputs), targets=targets)
    return Boosted(ensemble=ensemble, link=link)


def _pairs(part: str) -> dict[str, str]:
    lines = (line.partition("=") for line in part.splitlines())
    return {key: value for key, found, value in lines if found}


def _scaled(tree: Tree, scale: float) -> Tree:
    return replace(tree, value=tree.value * scale)


def _link(objective: str, where: str) -> tuple[str, float]:
    """The link, and what the sum is multiplied by before it."""
    name, *options = objective.split(" ")
    link = _LINKS.get(name, "none")
    if link == "unsupported" or (name == "regression" and "sqrt" in options):
        raise SourceError(f"objective {objective!r} is not supported", where=where, code="unsupported_source")
    given = dict(item.split(":", 1) for item in options if ":" in item)
    steep = float(given.get("sigmoid", "1")) if name in ("binary", "multiclassova") else 1.0
    return link, steep


def _numbers(facts: Mapping[str, str], key: str, kind: type) -> Array:
    return np.array([kind(item) for item in facts.get(key, "").split()])


def _tree(facts: Mapping[str, str], features: int, outputs: int, target: int, where: str) -> Tree:
    if facts.get("is_linear", "0") == "1":
        raise SourceError(
            "trees with linear leaves are not supported",
            where=where,
            remedy="train with linear_tree=false",
            code="unsupported_source",
        )
    leaves = int(facts["num_leaves"])
    inner = leaves - 1
    leaf_value = _numbers(facts, "leaf_value", float)
    column, left, right, kind = (
        _numbers(facts, key, int) for key in ("split_feature", "left_child", "right_child", "decision_type")
    )
    threshold = _numbers(facts, "threshold", float)
    sizes = {len(item) for item in (column, left, right, kind, threshold)}
    if len(leaf_value) != leaves or sizes != {inner}:
        raise ValueError("a tree's lists are of different lengths")
    if inner and (column.max() >= features or column.min() < 0 or min(left.min(), right.min()) < -leaves):
        raise ValueError("a split looks at a column or a leaf that is not there")
    # A child below zero is a leaf, counted from -1; leaves come after the inner nodes here.
    yes, no = (np.where(child < 0, inner - 1 - child, child) for child in (left, right))
    value = np.zeros((inner + leaves, outputs))
    value[inner:, target] = leaf_value
    chosen = (kind & 1).astype(bool)
    view = np.where(chosen, WHOLE, np.choose((kind >> 2) & 3, [NAN_IS_ZERO, ZERO_IS_NAN, 0, 0]))
    pad = np.full(leaves, -1)
    empty = np.zeros(leaves, np.int64)
    return Tree(
        feature=np.concatenate([column + view * features, empty]).astype(np.int64),
        rule=np.concatenate([np.where(chosen, IN, LE), empty]).astype(np.int64),
        threshold=np.concatenate([threshold, empty]).astype(np.float64),
        yes=np.concatenate([yes, pad]).astype(np.int64),
        no=np.concatenate([no, pad]).astype(np.int64),
        nan_yes=np.concatenate([~chosen & ((kind & 2) > 0) & ((kind >> 2 & 3) > 0), empty]).astype(bool),
        value=value,
        members=_members(facts, chosen, threshold),
    )


def _members(facts: Mapping[str, str], chosen: Array, threshold: Array) -> dict[int, tuple[float, ...]]:
    """By categorical node its set: bits of 32-bit words between two boundaries."""
    words, limits = _numbers(facts, "cat_threshold", int), _numbers(facts, "cat_boundaries", int)
    found = {}
    for node in np.flatnonzero(chosen):
        which = int(threshold[node])
        own = words[limits[which] : limits[which + 1]]
        found[int(node)] = tuple(
            float(32 * i + bit) for i, word in enumerate(own) for bit in range(32) if int(word) >> bit & 1
        )
    return found
