"""The boundary of a Core ML program, and the lossless map between it and the source's tensors.

A program takes and gives float32 and int32 of rank one to five. So, at the boundary and nowhere else:

- float32 and int32 stay; float16 and bfloat16 become float32 (every value has its twin);
- int64, uint32 and uint64 become int32, and a value that does not fit is an error, never clipped;
- int8, int16, uint8, uint16 become int32; bool becomes int32 with 0 and 1;
- rank 0 becomes ``(1,)``;
- an input without elements has one possible value and no place in the program.

On the way back the source's type and rank are restored. float64 has no lossless twin and is refused.
An image input takes pixels: what the source was to get is turned back into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes  # noqa: F401  # makes numpy know "bfloat16"
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit_converters.targets.coreml.lower.interface import ImageInput

Array = NDArray[Any]

_FLOATS = ("float32", "float16", "bfloat16")
_INTEGERS = ("int32", "int64", "uint32", "uint64", "int8", "int16", "uint8", "uint16", "bool")


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output. `shape` is the source's; -1 stands for a free size.

    `name` is the source's, `artifact_name` the program's (Core ML's identifiers are narrower).
    """

    name: str
    artifact_name: str
    dtype: str
    shape: tuple[int, ...]
    image: ImageInput | None = None

    @property
    def program_dtype(self) -> str:
        """What the program has."""
        found = program_dtype(self.dtype)
        assert found is not None
        return found

    @property
    def program_shape(self) -> tuple[int, ...]:
        """What the program has."""
        if self.image is not None and self.image.channels_last:
            return (self.shape[0], self.shape[3], *self.shape[1:3])
        return self.shape or (1,)

    def encode(self, array: Array) -> Array:
        """The source's array as the program takes it.

        Raises:
            DataError: an integer that int32 does not hold.
        """
        wanted = np.dtype(self.program_dtype)
        if wanted == np.int32 and array.dtype.kind in "iu" and array.size:
            low, high = int(array.min()), int(array.max())
            limits = np.iinfo(np.int32)
            if low < limits.min or high > limits.max:
                raise DataError(
                    f"input {self.name!r} holds {low if low < limits.min else high}, which int32 does not",
                    remedy="Core ML computes whole numbers in 32 bits",
                    code="integer_range",
                )
        if self.image is not None:
            return self._pixels(array.astype(np.float32))
        found = array.astype(wanted)
        return found.reshape(1) if found.ndim == 0 else found

    def _pixels(self, array: Array) -> Array:
        """The pixels whose preprocessing gives `array`, (N, C, H, W)."""
        assert self.image is not None
        found = array.transpose(0, 3, 1, 2) if self.image.channels_last else array
        column = np.array([self.image.scale, self.image.bias], np.float64)[:, None, :, None, None]
        pixels: Array = ((found - column[1]) / column[0]).astype(np.float32)
        return pixels

    def decode(self, array: Array) -> Array:
        """What the program gave, as the source would have given it.

        A classifier's probabilities come without a batch axis.
        """
        found = np.asarray(array).astype(np.dtype(self.dtype))
        if not self.shape:
            return found.reshape(())
        return found[None] if found.ndim == len(self.shape) - 1 else found


def program_dtype(source: str) -> str | None:
    """The program's type for a source's; None when there is no lossless one."""
    if source in _FLOATS:
        return "float32"
    return "int32" if source in _INTEGERS else None


def to_program(ports: Sequence[Port], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays by the source's names → by the program's."""
    return {port.artifact_name: port.encode(np.asarray(arrays[port.name])) for port in ports}


def from_program(ports: Sequence[Port], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays by the program's names → by the source's."""
    return {port.name: port.decode(arrays[port.artifact_name]) for port in ports}
