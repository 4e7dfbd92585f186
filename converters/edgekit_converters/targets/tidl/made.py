"""What a bundle is made of, before it is files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters.targets.tidl.partition import Partition
from edgekit_converters.targets.tidl.soc import Soc


@dataclass(frozen=True, kw_only=True)
class Made:
    """The graphs of a bundle and what is known of them.

    `onnx` is the file for TI's tools and `names` its nodes; `work` the same graph as it was cut and
    quantized; `gap` how far the file's result is from the hub's, as a share of the output's range.
    """

    soc: Soc
    rules: Rules
    work: ir.Model
    onnx: bytes
    names: tuple[str, ...]
    emulation: ir.Model
    cut: Partition
    rewrites: Mapping[str, int]
    quantization: Mapping[str, Any]
    samples: Mapping[str, Any]
    gap: float

    @property
    def wide(self) -> list[str]:
        """Accelerated layers that were moved to 16 bit."""
        moved = self.quantization.get("rescue", {})
        layers = moved.get("layers", ()) if moved.get("to") == "int16" else ()
        return [name for name in layers if name not in self.cut.refused]
