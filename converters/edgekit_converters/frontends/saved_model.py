"""TensorFlow SavedModel folders: the signature ``serving_default``, else ``serve``, else the only one.

Specification: TensorFlow's SavedModel guide. What `tf.saved_model.load` refuses is left to
`saved_model_v1`. Imported in TensorFlow workers only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit_converters.frontends import saved_model_v1
from edgekit_converters.frontends.saved_model_v1 import GraphModel
from edgekit_converters.frontends.tensorflow_common import TensorFlowModel, port
from edgekit_converters.values import Signature


def load(path: Path) -> TensorFlowModel | GraphModel:
    """Load a SavedModel's serving signature.

    Raises:
        SourceError: damaged, or without a signature to serve.
    """
    import tensorflow as tf

    where = str(path)
    try:
        model = tf.saved_model.load(where)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, tf.errors.OpError):
        return saved_model_v1.load(path)
    if hasattr(model, "graph"):  # written by TensorFlow 1: its variables live in a session
        return saved_model_v1.load(path)
    function = _signature(model, where)
    _, named = function.structured_input_signature
    inputs = tuple(port(name, spec.dtype.as_numpy_dtype, spec.shape, where) for name, spec in named.items())
    given = function.structured_outputs
    outputs = tuple(port(name, spec.dtype.as_numpy_dtype, spec.shape, where) for name, spec in given.items())

    def call(tensors: Any) -> list[Any]:
        answer = function(**dict(zip(named, tensors, strict=True)))
        return [answer[name] for name in given]

    signature = Signature(
        inputs=inputs,
        outputs=outputs,
        framework=f"tensorflow {getattr(model, 'tensorflow_version', '')}".strip(),
        activation=_activation(function),
    )
    return TensorFlowModel(call, signature, keep=model)


def _signature(model: Any, where: str) -> Any:
    known = dict(model.signatures)
    for name in ("serving_default", "serve"):
        if name in known:
            return known[name]
    if len(known) == 1:
        return next(iter(known.values()))
    raise SourceError(
        f"no signature to serve among {sorted(known)}",
        where=where,
        remedy="export with a signature called serving_default",
        code="no_signature",
    )


def _activation(function: Any) -> str:
    kinds = [op.type for op in function.graph.get_operations()]
    for kind in reversed(kinds):
        if kind in ("Softmax", "Sigmoid"):
            return str(kind).lower()
        if kind not in ("Identity", "NoOp", "StatefulPartitionedCall", "PartitionedCall"):
            break
    return "none"
