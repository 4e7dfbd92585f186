"""What the Keras and SavedModel frontends share: a TensorFlow function with named ports, to ONNX.

Imported in TensorFlow workers only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit.package import Tensor
from edgekit_converters.frontends.keras_recurrent import (
    DOMAIN,
    STAND_IN,
    standing_in,
    write_recurrent,
)
from edgekit_converters.frontends.tf_mends import mend
from edgekit_converters.values import Signature

OPSET = 18
_BATCH = 64


class TensorFlowModel:
    """A model as a function from a list of tensors to a list of tensors.

    Args:
        call: the function; positional as the signature says.
        signature: its ports.
        keep: what must stay alive as long as the function (variables).
        recurrent: layers that `keras_recurrent` writes.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Any]], Sequence[Any]],
        signature: Signature,
        keep: Any,
        recurrent: Sequence[Any] = (),
    ) -> None:
        self._recurrent = recurrent
        self.signature = signature
        self._call = call
        self._keep = keep

    def _specs(self, shapes: Sequence[Sequence[int]]) -> list[Any]:
        import tensorflow as tf

        ports = zip(self.signature.inputs, shapes, strict=True)
        return [
            tf.TensorSpec([None, *(None if d < 0 else d for d in shape[1:])], item.dtype, name=f"in{i}")
            for i, (item, shape) in enumerate(ports)
        ]

    def concrete(self, shapes: Sequence[Sequence[int]]) -> Any:
        """A concrete function with a free batch and these input shapes; ports are positional."""
        import tensorflow as tf

        def body(*tensors: Any) -> Sequence[Any]:
            return self._call(tensors)

        return tf.function(body, input_signature=self._specs(shapes), autograph=False).get_concrete_function()

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        import tensorflow as tf
        import tf2onnx

        def body(*tensors: Any) -> Sequence[Any]:
            return self._call(tensors)

        specs = self._specs([item.shape for item in self.signature.inputs])
        with standing_in(self._recurrent):
            model, _ = tf2onnx.convert.from_function(
                tf.function(body, autograph=False),
                input_signature=specs,
                opset=OPSET,
                custom_ops={STAND_IN: DOMAIN},
            )
        if self._recurrent:
            write_recurrent(model, self._recurrent, OPSET)
        mend(model, where=str(path.name))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        import tensorflow as tf

        names = [item.name for item in self.signature.inputs]
        n = len(inputs[names[0]])
        parts = []
        for start in range(0, n, _BATCH):
            batch = [tf.constant(inputs[name][start : start + _BATCH]) for name in names]
            parts.append([np.asarray(item) for item in self._call(batch)])
        outputs = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {port.name: value for port, value in zip(self.signature.outputs, outputs, strict=True)}


def port(name: str, dtype: Any, shape: Sequence[int | None], where: str) -> Tensor:
    """A Tensor from TensorFlow's notions; the first axis becomes the batch.

    Raises:
        SourceError: no batch axis.
    """
    if len(shape) == 0:
        raise SourceError(f"{name!r} is a scalar; a batch axis is needed", where=where)
    rest = tuple(-1 if size is None else int(size) for size in shape[1:])
    return Tensor(name=name, dtype=str(np.dtype(dtype)), shape=(-1, *rest))
