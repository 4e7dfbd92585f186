"""Keras models: the Keras 3 archive (``.keras``) and HDF5 (``.h5``), files of Keras 2 included.

Specification: Keras' serialization guide. Lambda layers are refused (safe mode): they are code.
Imported in TensorFlow workers only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit_converters.frontends.keras_recurrent import recurrent_layers
from edgekit_converters.frontends.tensorflow_common import TensorFlowModel, port
from edgekit_converters.values import Signature


def load(path: Path) -> TensorFlowModel:
    """Load a Keras model without its optimizer.

    Raises:
        SourceError: damaged, with custom layers, or with code in it.
    """
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True, custom_objects=_keras2_objects())
    except (
        ValueError,
        TypeError,
        KeyError,
        OSError,
        AttributeError,
        IndexError,
        UnicodeDecodeError,
    ) as error:
        raise _not_loadable(path, error) from error
    where = str(path)
    inputs = tuple(port(_plain(item.name), item.dtype, item.shape, where) for item in model.inputs)
    outputs = tuple(
        port(name, item.dtype, item.shape, where)
        for name, item in zip(_output_names(model), model.outputs, strict=True)
    )
    signature = Signature(
        inputs=inputs,
        outputs=outputs,
        framework=f"keras {keras.__version__}",
        activation=_activation(model),
    )

    # `model.input` has the structure that the model was made with: one tensor, a list or a dict. A
    # Sequential takes one tensor, and has no `input` before its first call.
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input

    def call(tensors: Any) -> list[Any]:
        answer = model(keras.tree.pack_sequence_as(structure, list(tensors)), training=False)
        return list(keras.tree.flatten(answer))

    return TensorFlowModel(call, signature, keep=model, recurrent=recurrent_layers(model))


def _keras2_objects() -> dict[str, Any]:
    """Layers whose Keras 2 configuration carries keys that Keras 3 does not know."""
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]  # keras has no types
        """Keras 2 wrote ``groups: 1``."""

        def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    return {"DepthwiseConv2D": DepthwiseConv2D}


def _output_names(model: Any) -> list[str]:
    layers = [getattr(item, "_keras_history", (None,))[0] for item in model.outputs]
    names = [_plain(layer.name) if layer is not None else f"output_{i}" for i, layer in enumerate(layers)]
    return names if len(set(names)) == len(names) else [f"output_{i}" for i in range(len(names))]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name.partition(":")[0])


def _activation(model: Any) -> str:
    layer = getattr(model.outputs[0], "_keras_history", (None,))[0]
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", "") if function is not None else type(layer).__name__.lower()
    return name if name in ("softmax", "sigmoid") else "none"


def _not_loadable(path: Path, error: Exception) -> SourceError:
    text = " ".join(str(error).split())[:300]
    if "ambda" in text:
        return SourceError(
            "a Lambda layer holds code, which is never run from a file",
            where=str(path),
            remedy="replace it by a layer class or export a SavedModel",
            code="code_in_source",
        )
    return SourceError(
        f"Keras cannot load it: {text}",
        where=str(path),
        remedy="custom layers: export a SavedModel with model.export(folder); otherwise the file is damaged",
        code="corrupt_source",
    )
