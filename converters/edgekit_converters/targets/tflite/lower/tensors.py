"""What a lowering handles: tensors of the TFLite graph under construction, and what is asked of new ones.

Shapes are tuples with ``None`` for a size that is known only when the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

Shape = tuple[int | None, ...]
Perm = tuple[int, ...]


@dataclass(frozen=True)
class Quant:
    """Scales and zero points: one each, or one for every index of `axis`."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return len(self.scale) > 1


@dataclass(frozen=True)
class Spec:
    """A tensor that an op shall write."""

    shape: Shape
    dtype: ir.DataType
    quant: Quant | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the TFLite graph: its index there and what is known of it."""

    index: int
    shape: Shape
    dtype: ir.DataType
    quant: Quant | None = None
    is_constant: bool = False

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def spec(self, shape: Sequence[int | None] | None = None) -> Spec:
        """A new tensor of the same type and scale, of `shape` where it is given."""
        return Spec(self.shape if shape is None else tuple(shape), self.dtype, self.quant)


def known(shape: Shape) -> tuple[int, ...] | None:
    """`shape` when every size in it is known."""
    return tuple(size for size in shape if size is not None) if None not in shape else None
