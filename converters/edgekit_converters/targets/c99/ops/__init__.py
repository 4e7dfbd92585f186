"""Operations of TFLite that become C, one family a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgekit_converters.targets.c99.ops import arithmetic, linear, moving, pooling, slicing, tables
from edgekit_converters.targets.c99.steps import Bound, Step

OPS: Mapping[str, Callable[[Bound], Step]] = {
    **linear.OPS,
    **pooling.OPS,
    **arithmetic.OPS,
    **tables.OPS,
    **moving.OPS,
    **slicing.OPS,
}
"""By name in TFLite's schema. What is not here is refused."""
