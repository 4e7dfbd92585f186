"""skl2onnx converters of ours for tree models, so that pipelines with trees become plain tensor ops.

They replace skl2onnx's own (which write ONNX-ML ops with rounded leaves, and fail on histogram
gradient boosting), and add XGBoost's and LightGBM's scikit-learn classes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Array, Emitter
from edgekit_converters.frontends.tabular import linked
from edgekit_converters.frontends.trees import from_sklearn
from edgekit_converters.frontends.trees.ensemble import Ensemble
from edgekit_converters.frontends.trees.fold import folded
from edgekit_converters.frontends.trees.from_lightgbm import read_lightgbm
from edgekit_converters.frontends.trees.from_xgboost import read_xgboost
from edgekit_converters.frontends.trees.plain import emit_ensemble

FOLDS: dict[int, Callable[[Array], Array]] = {}
"""By the id of an estimator the scaling before it, which is taken into its thresholds."""
Emit = Callable[[Emitter, str, Any], str]
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "raw_scores": [True, False],
    "output_class_labels": [False, True],
}


class Unfoldable(Exception):
    """The scaling before an estimator cannot be taken into its thresholds."""


def _sums(e: Emitter, x: str, ensemble: Ensemble, model: Any) -> str:
    """The ensemble's sums, over what the scaling before it takes if there is one."""
    if id(model) not in FOLDS:
        return emit_ensemble(e, x, ensemble)
    made = folded(ensemble, FOLDS[id(model)])
    if made is None:
        raise Unfoldable
    return emit_ensemble(e, x, made)


def _forest(e: Emitter, x: str, model: Any) -> str:
    trees = getattr(model, "estimators_", [model])
    sums = _sums(e, x, from_sklearn.forest(trees, model.n_features_in_), model)
    return e.op("Div", sums, e.constant(len(trees), np.float32)) if len(trees) > 1 else sums


def _boosting(e: Emitter, x: str, model: Any) -> str:
    ensemble = from_sklearn.gradient_boosting(model)
    sums = _sums(e, x, ensemble, model)
    if not hasattr(model, "classes_"):
        return sums
    if model.loss == "exponential":
        sums = e.op("Mul", sums, e.constant(2, np.float32))
    return _shares(e, sums, "sigmoid" if ensemble.outputs == 1 else "softmax")


def _histogram(e: Emitter, x: str, model: Any) -> str:
    ensemble = from_sklearn.histogram_boosting(model)
    sums = _sums(e, x, ensemble, model)
    if hasattr(model, "classes_"):
        return _shares(e, sums, "sigmoid" if ensemble.outputs == 1 else "softmax")
    return e.op("Exp", sums) if model.loss in ("poisson", "gamma") else sums


def _xgboost(e: Emitter, x: str, model: Any) -> str:
    rounds = model._get_iteration_range(None)[1] or None
    boosted = read_xgboost(bytes(model.get_booster().save_raw("json")), "XGBoost model", rounds=rounds)
    sums = _sums(e, x, boosted.ensemble, model)
    if boosted.link in ("sigmoid", "softmax") and hasattr(model, "classes_"):
        return _shares(e, sums, boosted.link)
    return linked(e, sums, boosted.link)


def _lightgbm(e: Emitter, x: str, model: Any) -> str:
    boosted = read_lightgbm(model.booster_.model_to_string(), "LightGBM model")
    sums = _sums(e, x, boosted.ensemble, model)
    if boosted.link in ("sigmoid", "softmax") and hasattr(model, "classes_"):
        return _shares(e, sums, boosted.link)
    return linked(e, sums, boosted.link)


def _shares(e: Emitter, sums: str, link: str) -> str:
    """Probabilities of all classes from one column (two classes) or from one a class."""
    if link == "softmax":
        return e.op("Softmax", sums, axis=1)
    second = e.op("Sigmoid", sums)
    return e.op("Concat", e.op("Sub", e.constant(1, np.float32), second), second, axis=1)


def _libraries() -> list[tuple[Any, Emit]]:
    from sklearn import ensemble, tree

    kinds: list[tuple[Any, Emit]] = []
    for name in ("DecisionTree", "ExtraTree"):
        kinds += [(getattr(tree, f"{name}{end}"), _forest) for end in ("Classifier", "Regressor")]
    for name, emit in (
        ("RandomForest", _forest),
        ("ExtraTrees", _forest),
        ("GradientBoosting", _boosting),
        ("HistGradientBoosting", _histogram),
    ):
        kinds += [(getattr(ensemble, f"{name}{end}"), emit) for end in ("Classifier", "Regressor")]
    return kinds


def register() -> None:
    """Make skl2onnx use these converters, in this process."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    for model, emit in (*_libraries(), *_others()):
        classifies = model.__name__.endswith("Classifier")
        update_registered_converter(
            model,
            f"Edgekit{model.__module__.partition('.')[0]}{model.__name__}",
            shapes.calculate_linear_classifier_output_shapes
            if classifies
            else shapes.calculate_linear_regressor_output_shapes,
            _converter(emit),
            overwrite=True,
            options=_OPTIONS if classifies else None,
        )


def _others() -> list[tuple[Any, Emit]]:
    """The classes of libraries that are installed and imported already: a pickle that holds one did that."""
    found: list[tuple[Any, Emit]] = []
    for library, prefix, emit in (("xgboost", "XGB", _xgboost), ("lightgbm", "LGBM", _lightgbm)):
        module = sys.modules.get(library)
        if module is not None:
            found += [(getattr(module, f"{prefix}{end}"), emit) for end in ("Classifier", "Regressor")]
    return found


def _converter(emit: Emit) -> Callable[[Any, Any, Any], None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        model = operator.raw_operator
        if getattr(model, "n_outputs_", 1) != 1:
            raise SourceError(
                f"{type(model).__name__} with several outputs is not supported",
                remedy="train one model an output",
                code="unsupported_source",
            )
        e = Emitter(scope.get_unique_variable_name("edgekit") + "_", opset=container.target_opset)
        x = operator.inputs[0].full_name
        if type(operator.inputs[0].type).__name__ != "FloatTensorType":
            x = e.cast(x, np.float32)
        scores = emit(e, x, model)
        outputs = [item.full_name for item in operator.outputs]
        if len(outputs) == 2:
            e.op("Identity", _label(e, scores, model, container, operator), out=outputs[0])
        e.op("Identity", scores, out=outputs[-1])
        _append(container, e)

    return convert


def _label(e: Emitter, scores: str, model: Any, container: Any, operator: Any) -> str:
    """The class with the largest share; its place where classes are not numbers."""
    place = e.op("ArgMax", scores, axis=1, keepdims=0)
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "iub":
        return e.op("Gather", e.constant(classes, np.int64), place, axis=0)
    if container.get_options(model, {"nocl": False}).get("nocl"):
        return place
    return e.op("Gather", e.constant(classes.astype(object)), place, axis=0)


def _append(container: Any, e: Emitter) -> None:
    for tensor in e.weights:
        container.initializers.append(tensor)
    for node in e.nodes:
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        container.add_node(node.op_type, list(node.input), list(node.output), name=node.name, **given)


def is_tree_model(model: Any) -> bool:
    """Whether one of these converters writes `model`."""
    return any(type(model) is kind for kind, _ in (*_libraries(), *_others()))
