"""What is fed to a program: arrays checked against the description, images turned as Core ML turns them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.errors import DataError
from edgekit_converters.targets.coreml.evaluate.half import rounded
from edgekit_converters.targets.coreml.evaluate.kernels import Array
from edgekit_converters.targets.coreml.evaluate.program import Image, Program, Value
from edgekit_converters.targets.coreml.evaluate.run import stored


def fed(
    program: Program, arrays: Mapping[str, Array], precision: str, samples: int | None = None
) -> dict[int, Array]:
    """Value number → array for every input of `program`.

    Args:
        program: the loaded package.
        arrays: input name → array.
        precision: of the evaluator.
        samples: how many samples the first axis holds instead of the package's one.

    Raises:
        DataError: an input that is missing, unknown, or of another shape or type.
    """
    names = {value.name for value in program.main.inputs}
    unknown, missing = sorted(set(arrays) - names), sorted(names - set(arrays))
    if unknown or missing:
        raise DataError(f"inputs are {sorted(names)}; not known: {unknown}, missing: {missing}")
    found = {}
    for value in program.main.inputs:
        array = np.asarray(arrays[value.name])
        if value.name in program.images:
            array = _turned(array, value, program.images[value.name])
        found[value.number] = _checked(array, value, precision, samples)
    return found


def _checked(array: Array, value: Value, precision: str, samples: int | None) -> Array:
    wanted = value.shape if samples is None else (samples, *value.shape[1:])
    fits = array.ndim == len(wanted) and all(
        size is None or size == given for given, size in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        raise DataError(f"input {value.name!r} has shape {array.shape}, not {wanted}")
    kept = stored(value.dtype)
    whole = kept.kind in "iu" and array.dtype.kind in "iub"
    if whole and array.size:
        limits = np.iinfo(kept)
        if array.min() < limits.min or array.max() > limits.max:
            raise DataError(f"input {value.name!r} has values outside {kept.name}")
    if not whole and kept.kind != "f" and array.dtype.kind != kept.kind:
        raise DataError(f"input {value.name!r} is {array.dtype}, not {kept.name}")
    if value.dtype == "fp16" and precision == "float16":
        return rounded(array)
    return array.astype(kept)


def _turned(array: Array, value: Value, image: Image) -> Array:
    """Channels first in the package's colour order, of (n, height, width, 3), (n, height, width) or one.

    What has the program's own shape already is taken as it is.
    """
    plain = array.ndim == len(value.shape) and array.shape[1:] == value.shape[1:]
    if plain or array.ndim not in (2, 3, 4):
        return array
    grey = image.colour.startswith("GRAYSCALE")
    if array.ndim == (2 if grey else 3):
        array = array[None]
    if grey:
        return array[:, None] if array.ndim == 3 else array
    turned = array[..., ::-1] if image.colour == "BGR" else array
    return np.ascontiguousarray(np.moveaxis(turned, -1, 1))
