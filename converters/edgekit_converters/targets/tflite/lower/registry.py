"""Which function lowers which op, filled by the modules below ``ops/`` when they are loaded.

A rule says what may be done with it inside a quantized pattern (DequantizeLinear → op →
QuantizeLinear); see `Quantized`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from edgekit_converters.targets.tflite.lower.context import Context

Lowering = Callable[["Context", ir.Node], None]


class Quantized(Enum):
    """How an op runs on integers. A function with a mark other than NONE must emit ONE op that reads
    ``ctx.tensor``/``ctx.any_layout``/``ctx.align`` of its inputs and writes ``ctx.output`` of its output."""

    NONE = "float only"
    FREE = "input and output scales are independent"
    SAME = "the output has the scale of the (first) input"
    FIXED = "the output's scale is fixed by the runtime (see quant.FIXED)"


@dataclass(frozen=True)
class Rule:
    """How one op type is lowered. `dtypes`: integer types its kernel takes when quantized."""

    lower: Lowering
    quantized: Quantized = Quantized.NONE
    dtypes: tuple[str, ...] = ("INT8",)


_RULES: dict[str, Rule] = {}


def lowers(
    *op_types: str, quantized: Quantized = Quantized.NONE, dtypes: tuple[str, ...] = ("INT8",)
) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for `op_types`."""

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            if op_type in _RULES:
                raise ValueError(f"{op_type} is lowered twice: {_RULES[op_type].lower} and {function}")
            _RULES[op_type] = Rule(function, quantized, dtypes)
        return function

    return register


@cache
def rules() -> dict[str, Rule]:
    """Every rule; loads the modules below ``ops/`` once."""
    ops = importlib.import_module(f"{__package__}.ops")
    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"{ops.__name__}.{module.name}")
    return _RULES
