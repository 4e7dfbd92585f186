"""`TreeEnsembleClassifier` and `TreeEnsembleRegressor` of ai.onnx.ml 1 to 4 → `trees`.

Sums are exact where the runtime's are float32 sums in an order of its own: the same leaves, the true sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.ml_ops.base import MlNode, arg_max, label_count, labels, transformed
from edgekit_converters.frontends.ml_ops.linear import binary
from edgekit_converters.frontends.trees.ensemble import IN, LE, LT, Ensemble, Tree
from edgekit_converters.frontends.trees.plain import emit_ensemble

# rule, and whether yes and no change places
MODES: Mapping[str, tuple[int, bool]] = {
    "BRANCH_LEQ": (LE, False),
    "BRANCH_LT": (LT, False),
    "BRANCH_GT": (LE, True),
    "BRANCH_GTE": (LT, True),
    "BRANCH_EQ": (IN, False),
    "BRANCH_NEQ": (IN, True),
}


def regressor(n: MlNode) -> list[str]:
    """TreeEnsembleRegressor → (N, targets)."""
    return [transformed(n, _sums(n, "target", int(n.attribute("n_targets", 1))))]


def classifier(n: MlNode) -> list[str]:
    """TreeEnsembleClassifier → labels (N,), scores (N, classes)."""
    count = label_count(n)
    ids = {int(item) for item in n.numbers("class_ids")}
    if count == 2 and len(ids) == 1:
        share = bool((_numbers(n, "class_weights") >= 0).all())
        return binary(n, _sums(n, "class", 1), share=share, border=0.5 if share else 0.0)
    scores = _sums(n, "class", count)
    return [labels(n, arg_max(n.e, scores)), transformed(n, scores)]


def _sums(n: MlNode, kind: str, outputs: int) -> str:
    if n.attribute("aggregate_function", "SUM") not in ("SUM", "AVERAGE"):
        raise n.refusal("takes the smallest or largest of its trees", code="unsupported_attribute")
    trees = _trees(n, kind, outputs)
    base = _numbers(n, "base_values")
    if len(base) not in (0, 1, outputs):
        raise n.refusal("has base values that do not fit its outputs", code="corrupt_source")
    start = np.broadcast_to(base, (outputs,)) if len(base) else np.zeros(outputs)
    return emitted(n, trees, start, mean=n.attribute("aggregate_function", "SUM") == "AVERAGE")


def emitted(n: MlNode, trees: Sequence[Tree], base: Array, *, mean: bool, total: Any = np.float32) -> str:
    """The sums or means (N, outputs) of type `total`."""
    ensemble = Ensemble(trees=trees, features=_features(n, trees), base=np.zeros_like(base) if mean else base)
    dtype = n.dtype(n.inputs[0])
    x, wide = (n.inputs[0], np.float64) if dtype == np.float64 else (n.floats(), np.float32)
    sums = emit_ensemble(n.e, x, ensemble, wide, total)
    if mean:
        sums = n.e.op("Div", sums, n.e.constant(len(trees), total))
        sums = n.e.op("Add", sums, n.e.constant(base[None], total)) if base.any() else sums
    return sums


def _features(n: MlNode, trees: Sequence[Tree]) -> int:
    shape = n.shape(n.inputs[0])
    if shape is not None and len(shape) == 2 and shape[1] > 0:
        return shape[1]
    return 1 + max((int(tree.feature.max()) for tree in trees), default=0)


def _numbers(n: MlNode, name: str) -> Array:
    """A list of numbers, from ``name_as_tensor`` if that is given (float64)."""
    tensor = n.attribute(f"{name}_as_tensor")
    return np.asarray(tensor if tensor is not None else n.numbers(name), np.float64).reshape(-1)


def _trees(n: MlNode, kind: str, outputs: int) -> list[Tree]:
    tree_ids, node_ids = (n.numbers(f"nodes_{name}").astype(np.int64) for name in ("treeids", "nodeids"))
    place = {(int(t), int(i)): k for k, (t, i) in enumerate(zip(tree_ids, node_ids, strict=True))}
    value = np.zeros((len(tree_ids), outputs))
    ids = n.numbers(f"{kind}_ids") if outputs > 1 else np.zeros(len(n.numbers(f"{kind}_ids")), int)
    owners = zip(
        n.numbers(f"{kind}_treeids"),
        n.numbers(f"{kind}_nodeids"),
        ids,
        _numbers(n, f"{kind}_weights"),
        strict=True,
    )
    try:
        for tree, node, output, weight in owners:
            value[place[int(tree), int(node)], int(output)] += weight
        return [
            _tree(n, np.flatnonzero(tree_ids == t), place, int(t), value) for t in dict.fromkeys(tree_ids)
        ]
    except (KeyError, IndexError, ValueError) as error:
        raise n.refusal(f"has a tree with a broken link ({error})", code="corrupt_source") from error


def _tree(n: MlNode, own: Array, place: Mapping[tuple[int, int], int], tree: int, value: Array) -> Tree:
    """The tree whose nodes are `own`, places in the attributes' lists; the first is the root."""
    modes = [item.decode() for item in n.attribute("nodes_modes")]
    limits = _numbers(n, "nodes_values")
    nan_true = n.numbers("nodes_missing_value_tracks_true")
    local = {int(k): i for i, k in enumerate(own)}
    size = len(own)
    columns: dict[str, Any] = {key: np.zeros(size, np.int64) for key in ("feature", "rule")}
    threshold, nan_yes = np.zeros(size), np.zeros(size, bool)
    yes, no = np.full(size, -1), np.full(size, -1)
    members: dict[int, tuple[float, ...]] = {}
    for i, k in enumerate(own):
        if modes[k] == "LEAF":
            continue
        rule, swapped = MODES[modes[k]]
        ways = [local[place[tree, int(n.numbers(f"nodes_{name}nodeids")[k])]] for name in ("true", "false")]
        yes[i], no[i] = reversed(ways) if swapped else ways
        # NaN makes every comparison false but "not equal".
        true_for_nan = bool(nan_true[k]) if len(nan_true) else False
        true_for_nan = true_for_nan or modes[k] == "BRANCH_NEQ"
        columns["feature"][i], columns["rule"][i] = int(n.numbers("nodes_featureids")[k]), rule
        threshold[i], nan_yes[i] = limits[k], true_for_nan != swapped
        if rule == IN:
            members[i] = (float(limits[k]),)
    return Tree(
        **columns, threshold=threshold, yes=yes, no=no, nan_yes=nan_yes, value=value[own], members=members
    )


REWRITES = {"TreeEnsembleClassifier": classifier, "TreeEnsembleRegressor": regressor}
