"""`TreeEnsemble` of ai.onnx.ml 5: nodes and leaves in lists of their own, sets of members, any sum type."""

from __future__ import annotations

import numpy as np

from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.ml_ops.base import MlNode, transform
from edgekit_converters.frontends.ml_ops.tree_ensemble import MODES, emitted
from edgekit_converters.frontends.trees.ensemble import IN, Tree

_KINDS = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
_SUM, _AVERAGE = 1, 0
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def tree_ensemble(n: MlNode) -> list[str]:
    """TreeEnsemble → (N, targets)."""
    function = int(n.attribute("aggregate_function", _SUM))
    if function not in (_SUM, _AVERAGE):
        raise n.refusal("takes the smallest or largest of its trees", code="unsupported_attribute")
    outputs = int(n.attribute("n_targets", 1))
    try:
        trees = [_tree(n, int(root), outputs) for root in n.numbers("tree_roots")]
    except (IndexError, ValueError, KeyError) as error:
        raise n.refusal(f"has a tree with a broken link ({error})", code="corrupt_source") from error
    total = np.float64 if n.dtype(n.inputs[0]) == np.float64 else np.float32
    sums = emitted(n, trees, np.zeros(outputs), mean=function == _AVERAGE, total=total)
    kind = _TRANSFORMS[int(n.attribute("post_transform", 0))]
    return [transform(n, sums, kind)]


def _members(n: MlNode) -> dict[int, tuple[float, ...]]:
    """By member node its set: runs of values that end with NaN, in the order of the member nodes."""
    values = n.attribute("membership_values")
    modes = n.attribute("nodes_modes")
    nodes = [i for i, mode in enumerate(modes) if _KINDS[int(mode)] == "BRANCH_MEMBER"]
    found: dict[int, tuple[float, ...]] = {}
    run: list[float] = []
    for value in np.asarray(values if values is not None else [], np.float64):
        if np.isnan(value):
            found[nodes[len(found)]] = tuple(run)
            run = []
        else:
            run.append(float(value))
    return found


def _tree(n: MlNode, root: int, outputs: int) -> Tree:
    """The tree that starts at node `root`, leaves appended as they are met."""
    modes, splits = n.attribute("nodes_modes"), np.asarray(n.attribute("nodes_splits"), np.float64)
    features = n.numbers("nodes_featureids")
    nan_true = n.numbers("nodes_missing_value_tracks_true")
    weights, targets = np.asarray(n.attribute("leaf_weights"), np.float64), n.numbers("leaf_targetids")
    sets = _members(n)
    rows: list[list[float]] = []
    values: list[Array] = []
    members: dict[int, tuple[float, ...]] = {}

    def leaf(index: int) -> int:
        value = np.zeros(outputs)
        value[int(targets[index])] = weights[index]
        rows.append([0, 0, 0.0, -1, -1, 0])
        values.append(value)
        return len(rows) - 1

    def child(side: str, node: int) -> tuple[bool, int]:
        return bool(n.numbers(f"nodes_{side}leafs")[node]), int(n.numbers(f"nodes_{side}nodeids")[node])

    def visit(node: int, level: int) -> int:
        if level > 512:
            raise ValueError("a circle")
        kind = _KINDS[int(modes[node])]
        rule, swapped = MODES.get(kind, (IN, False))
        here = len(rows)
        true_for_nan = (bool(nan_true[node]) if len(nan_true) else False) or kind == "BRANCH_NEQ"
        rows.append([int(features[node]), rule, splits[node], -1, -1, true_for_nan != swapped])
        values.append(np.zeros(outputs))
        if rule == IN:
            members[here] = sets[node] if kind == "BRANCH_MEMBER" else (float(splits[node]),)
        for place, side in ((3, "true"), (4, "false")):
            is_leaf, index = child(side, node)
            found = leaf(index) if is_leaf else visit(index, level + 1)
            rows[here][7 - place if swapped else place] = found
        return here

    # A tree that is one leaf: both ways of the root lead to the same leaf.
    visit(root, 0)
    table = np.array(rows)
    whole = table[:, [0, 1, 3, 4]].astype(np.int64)
    return Tree(
        feature=whole[:, 0],
        rule=whole[:, 1],
        threshold=table[:, 2],
        yes=whole[:, 2],
        no=whole[:, 3],
        nan_yes=table[:, 5].astype(bool),
        value=np.array(values),
        members=members,
    )


REWRITES = {"TreeEnsemble": tree_ensemble}
