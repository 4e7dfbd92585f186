"""The public face: a saved package, loaded once, run many times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit_converters.targets.coreml.evaluate.kernels import Array
from edgekit_converters.targets.coreml.evaluate.load import load
from edgekit_converters.targets.coreml.evaluate.program import Image, Value
from edgekit_converters.targets.coreml.evaluate.run import PRECISIONS, Runner, stored


class Evaluator:
    """Executes the program of a saved ``.mlpackage``.

    It checks what the program means, in float32 or in float16; Apple's own kernels may differ in the last
    digits. Nothing of it is called an execution: the result is *emulated*.
    """

    def __init__(self, path: Path | str, precision: str = "float32") -> None:
        """Load the package at `path`.

        Args:
            path: the ``.mlpackage`` folder.
            precision: ``float32`` computes all floats in float32; ``float16`` rounds as the program says.

        Raises:
            Refusal: ``package_unreadable``, or ``no_evaluator_kernel`` with the op named.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.program = load(Path(path))
        self.precision = precision
        self._runner = Runner(self.program, precision)

    @property
    def inputs(self) -> dict[str, Value]:
        """Input name → its type and shape."""
        return {value.name: value for value in self.program.main.inputs}

    @property
    def labels(self) -> tuple[Any, ...]:
        """Class labels of a classifier, in the order of its probabilities; else empty."""
        return self.program.labels

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs for one set of inputs of the described shapes.

        An image may be given as ``uint8`` (height, width, 3), or (height, width) if it is grey, or as the
        program's own tensor of 0 to 255 values in its colour order. A classifier's probabilities come
        back as one array in the order of `labels`, its label as an array of one.

        Raises:
            DataError: inputs that do not fit the description.
            Refusal: ``undefined_behaviour``, when a result depends on what the op's definition leaves open.
        """
        feed = {value.number: self._fed(value, arrays) for value in self.program.main.inputs}
        unknown = sorted(set(arrays) - set(self.inputs))
        if unknown:
            raise DataError(f"the package has no input {', '.join(unknown)}")
        found = self._runner.run(feed)
        return {name: np.asarray(item) for name, item in zip(self.program.output_names, found, strict=True)}

    def _fed(self, value: Value, arrays: Mapping[str, Array]) -> Array:
        if value.name not in arrays:
            raise DataError(f"input {value.name!r} is missing")
        array = np.asarray(arrays[value.name])
        if value.name in self.program.images and array.ndim < 4:
            array = _channels_first(array, self.program.images[value.name])
        wanted = value.shape
        if array.ndim != len(wanted) or any(
            w is not None and n != w for n, w in zip(array.shape, wanted, strict=True)
        ):
            raise DataError(f"input {value.name!r} has shape {array.shape}, not {wanted}")
        kept = stored(value.dtype, self.precision)
        if kept.kind in "iu" and array.dtype.kind in "iub" and array.size:
            limits = np.iinfo(kept)
            if array.min() < limits.min or array.max() > limits.max:
                raise DataError(f"input {value.name!r} has values outside {kept.name}")
        elif kept.kind != "f" and array.dtype.kind != kept.kind:
            raise DataError(f"input {value.name!r} is {array.dtype}, not {kept.name}")
        return array.astype(kept)


def _channels_first(array: Array, image: Image) -> Array:
    """(height, width[, 3]) in red, green, blue as Core ML hands it to the program."""
    if array.ndim == 2:
        return array[None, None]
    turned = array[..., ::-1] if image.colour == "BGR" else array
    return np.ascontiguousarray(turned.transpose(2, 0, 1))[None]
