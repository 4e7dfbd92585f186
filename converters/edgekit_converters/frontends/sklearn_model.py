"""scikit-learn estimators and pipelines, from a pickle that the user trusts; scikit-learn computes.

skl2onnx writes the pipeline, our own converters the trees in it, and ONNX-ML ops become plain ones.
A pickle runs code when it is loaded: `source.recognise` lets one pass only with ``--trust``.
"""

from __future__ import annotations

import pickle  # noqa: TID251  # for the name of its error; joblib loads, and only what the user trusts
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.errors import SourceError
from edgekit_converters.frontends.emit import Emitter, pruned
from edgekit_converters.frontends.ml_ops import rewrite_ml
from edgekit_converters.frontends.tabular import (
    INPUT,
    LABEL,
    PREDICTION,
    PROBABILITIES,
    SCORES,
    TabularModel,
    signature,
)

OPSET = 18
_BROKEN = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError, ImportError),
    *(RuntimeError, OverflowError, MemoryError, struct.error),
)
_SCALERS = ("MaxAbsScaler", "MinMaxScaler", "RobustScaler", "StandardScaler")
_NEIGHBOURS = ("KNeighborsClassifier", "KNeighborsRegressor", "LocalOutlierFactor")


def load(path: Path) -> TabularModel:
    """Unpickle and wrap an estimator. Only for files that the user trusts.

    Raises:
        SourceError: damaged, not an estimator, not fitted, or of a kind that is not supported.
    """
    model = _unpickled(path)
    if type(model).__module__.startswith("xgboost") and type(model).__name__ == "Booster":
        from edgekit_converters.frontends.xgboost_model import from_booster

        return from_booster(model, str(path))
    return from_estimator(model, str(path))


def _unpickled(path: Path) -> Any:
    import joblib

    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise SourceError(
            f"the pickle needs the package {error.name!r}, which is not installed",
            where=str(path),
            remedy=f"pip install {(error.name or '').partition('.')[0]}, in the version it was saved with",
            code="tool_not_installed",
        ) from error
    except (*_BROKEN, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())[:200]
        raise SourceError(
            f"cannot be unpickled: {type(error).__name__}: {text}",
            where=str(path),
            remedy="the file is damaged, or made by other versions of its packages",
            code="corrupt_source",
        ) from error


def from_estimator(model: Any, where: str) -> TabularModel:
    """A fitted estimator or pipeline as a source.

    Raises:
        SourceError: not an estimator, not fitted, or of a kind that is not supported.
    """
    import sklearn
    from sklearn.base import BaseEstimator

    if not isinstance(model, BaseEstimator) or not (hasattr(model, "predict") or hasattr(model, "transform")):
        raise SourceError(
            f"a pickled {type(model).__name__}, which is no scikit-learn estimator",
            where=where,
            remedy="pickle the fitted estimator or pipeline itself, or export the model to ONNX",
            code="unsupported_source",
        )
    features = getattr(model, "n_features_in_", None)
    if features is None:
        raise SourceError(
            "the estimator is not fitted, or does not take rows of numbers",
            where=where,
            remedy="fit it before it is saved; text and mixed columns: encode them before the model",
            code="unsupported_source",
        )
    kind = _Kind(model, int(features), where)
    found = signature(
        int(features),
        kind.outputs,
        framework=f"scikit-learn {sklearn.__version__} {kind.name}",
        activation="softmax" if PROBABILITIES in kind.outputs else "none",
        labels=kind.labels,
    )
    return TabularModel(found, lambda: _exported(kind, where), kind.compute, _versions())


class _Kind:
    """What an estimator gives: outputs by name (shape after the batch), and how to compute them."""

    def __init__(self, model: Any, features: int, where: str) -> None:
        from sklearn.base import is_classifier

        self.model, self.features = model, features
        self.last = _last(model)
        self.name = type(self.last).__name__
        self.classes = np.asarray(model.classes_) if is_classifier(model) else None
        if isinstance(getattr(model, "classes_", None), list):
            raise SourceError(
                "a classifier with several outputs is not supported",
                where=where,
                remedy="train one model an output",
                code="unsupported_source",
            )
        zero = np.zeros((2, features), np.float32)
        try:
            probe = self.compute(zero)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise SourceError(
                f"scikit-learn cannot run it on rows of {features} numbers: {str(error)[:200]}",
                where=where,
                remedy="columns with names or text: encode them before the model",
                code="unsupported_source",
            ) from error
        self.outputs = {name: np.shape(value)[1:] for name, value in probe.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, where they are text and the first output has a column for each."""
        if self.classes is None or self.classes.dtype.kind in "iubf":
            return ()
        width = next(iter(self.outputs.values()))
        return tuple(str(item) for item in self.classes) if width == (len(self.classes),) else ()

    def compute(self, rows: Any) -> Mapping[str, Any]:
        """The estimator's own answers."""
        model = self.model
        if self.classes is not None:
            proba = getattr(model, "predict_proba", None)
            scores = {} if proba is None else {PROBABILITIES: proba(rows)}
            if proba is None and hasattr(model, "decision_function"):
                scores = {SCORES: self._decision(rows)}
            return {**scores, LABEL: self._places(model.predict(rows))}
        if hasattr(model, "decision_function"):
            return {SCORES: model.decision_function(rows).reshape(-1, 1), LABEL: model.predict(rows)}
        if hasattr(model, "transform") and hasattr(model, "predict"):
            return {SCORES: model.transform(rows), LABEL: model.predict(rows)}
        if hasattr(model, "predict"):
            values = np.asarray(model.predict(rows))
            return {PREDICTION: values.reshape(len(values), -1)}
        return {PREDICTION: np.asarray(model.transform(rows))}

    def _decision(self, rows: Any) -> Any:
        values = self.model.decision_function(rows)
        return np.stack([-values, values], axis=1) if values.ndim == 1 else values

    def _places(self, labels: Any) -> Any:
        assert self.classes is not None
        if self.classes.dtype.kind in "iub":
            return np.asarray(labels).astype(np.int64)
        return np.searchsorted(self.classes, labels)


def _last(model: Any) -> Any:
    return _last(model.steps[-1][1]) if hasattr(model, "steps") else model


def _exported(kind: _Kind, where: str) -> onnx.ModelProto:
    """The ONNX form; scaling right before trees is taken into their thresholds."""
    from edgekit_converters.frontends import sklearn_trees

    sklearn_trees.register()
    steps = _steps(kind.model)
    scales = len(steps) > 1 and all(_keeps_order(step) for step in steps[:-1])
    if scales and sklearn_trees.is_tree_model(kind.last):

        def scaled(rows: Any) -> Any:
            for step in steps[:-1]:
                rows = step.transform(rows)
            return rows

        sklearn_trees.FOLDS[id(kind.last)] = scaled
        try:
            return _written(kind, kind.last, where)
        except sklearn_trees.Unfoldable:
            pass
        finally:
            del sklearn_trees.FOLDS[id(kind.last)]
    return _written(kind, kind.model, where)


def _keeps_order(step: Any) -> bool:
    """Whether a fitted scaler works column by column, with positive factors."""
    name = type(step).__name__
    if not type(step).__module__.startswith("sklearn.") or name not in _SCALERS:
        return False
    return not getattr(step, "clip", False)


def _written(kind: _Kind, model: Any, where: str) -> onnx.ModelProto:
    import skl2onnx
    from skl2onnx.common import exceptions
    from skl2onnx.common.data_types import FloatTensorType

    try:
        made = skl2onnx.convert_sklearn(
            model,
            initial_types=[(INPUT, FloatTensorType([None, kind.features]))],
            options=_options(kind),
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        NotImplementedError,
        NameError,
        exceptions.MissingShapeCalculator,
        exceptions.MissingConverter,
    ) as error:
        raise SourceError(
            f"{kind.name} cannot be written as ONNX: {' '.join(str(error).split())[:200]}",
            where=where,
            remedy="use an estimator that skl2onnx knows",
            code="unsupported_source",
        ) from error
    return _named(rewrite_ml(made), kind, where)


def _options(kind: _Kind) -> dict[int, dict[str, Any]]:
    """Tensors instead of maps, places instead of text, and no loops for distances."""
    found: dict[int, dict[str, Any]] = {}
    for step in _steps(kind.model):
        if type(step).__name__ in _NEIGHBOURS:
            found[id(step)] = {"optim": "cdist"}
    if kind.classes is not None:
        given = found.setdefault(id(kind.last), {})
        if kind.name != "LinearSVC":
            given["zipmap"] = False
        if kind.classes.dtype.kind not in "iub":
            given["nocl"] = True
    return found


def _steps(model: Any) -> list[Any]:
    inner = [part for _, step in getattr(model, "steps", []) for part in _steps(step)]
    return inner or [model]


def _named(model: onnx.ModelProto, kind: _Kind, where: str) -> onnx.ModelProto:
    """`model` with the outputs that the signature says, in its order, names and shapes."""
    e = Emitter("edgekit__", opset=OPSET)
    made = []
    for name, shape in kind.outputs.items():
        given = _given(model, e, kind, name, shape, where)
        dtype = np.int64 if name == LABEL else np.float32
        e.op("Identity", e.reshape(e.cast(given, dtype), [-1, *shape]), out=f"edgekit_{name}")
        kept = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        made.append(onnx.helper.make_tensor_value_info(f"edgekit_{name}", kept, ["N", *shape]))
    model.graph.node.extend(e.nodes)
    model.graph.initializer.extend(e.weights)
    del model.graph.output[:]
    model.graph.output.extend(made)
    pruned(model.graph)
    return model


def _given(
    model: onnx.ModelProto, e: Emitter, kind: _Kind, name: str, shape: tuple[int, ...], where: str
) -> str:
    """The value in the graph that is the output `name`."""
    types = onnx.TensorProto
    scores = [p for p in model.graph.output if p.type.tensor_type.elem_type == types.FLOAT]
    whole = [
        p
        for p in model.graph.output
        if p.type.tensor_type.elem_type in (types.INT64, types.INT32, types.BOOL)
    ]
    found = whole if name == LABEL else scores
    # The graph's own label may be text, whatever it declares; only SVC does not take the largest score.
    text = kind.classes is not None and kind.classes.dtype.kind not in "iub" and "SVC" not in kind.name
    if name == LABEL and scores and text:
        return e.op("ArgMax", scores[0].name, axis=1, keepdims=0)
    if not found:
        raise SourceError(f"the ONNX form has no {name}", where=where, code="unsupported_source")
    if name == SCORES and shape == (2,) and _width(model, found[0]) == 1:
        return e.op("Concat", e.op("Neg", found[0].name), found[0].name, axis=1)
    return str(found[0].name)


def _width(model: onnx.ModelProto, port: onnx.ValueInfoProto) -> int:
    """Columns of an output by inference, whatever the exporter declared; 0 if unknown."""
    open_ended = onnx.ModelProto()
    open_ended.CopyFrom(model)
    for item in open_ended.graph.output:
        item.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(open_ended, data_prop=True)
    dims = next(i.type.tensor_type.shape.dim for i in inferred.graph.output if i.name == port.name)
    return dims[-1].dim_value if dims else 0


def _versions() -> Mapping[str, str]:
    from importlib.metadata import version

    return {"scikit-learn": version("scikit-learn"), "skl2onnx": version("skl2onnx")}
