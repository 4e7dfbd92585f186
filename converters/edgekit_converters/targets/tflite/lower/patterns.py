"""Integer patterns of a QDQ graph: DequantizeLinear → op (→ activation) → QuantizeLinear.

Being written; finds nothing yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from edgekit_converters.targets.tflite.lower.registry import Rule
from edgekit_converters.targets.tflite.lower.tensors import Quant

if TYPE_CHECKING:
    from edgekit_converters.targets.tflite.lower.context import Context


@dataclass(frozen=True)
class Match:
    """An op whose float inputs and outputs are all quantized."""


def find(ctx: Context, graph: ir.Graph) -> Mapping[ir.Node, Match]:
    """The ops of `graph` that run on integers."""
    return {}


def lower(ctx: Context, node: ir.Node, rule: Rule, match: Match) -> None:
    """Lower `node` on the integers of `match`."""
    rule.lower(ctx, node)


def quant_of_input(value: ir.Value) -> Quant | None:
    """Scale of an integer graph input: that of the DequantizeLinear which reads it."""
    return None
