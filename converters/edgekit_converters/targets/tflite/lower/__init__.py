"""Canonical ONNX graph → TFLite FlatBuffer, with the schema that LiteRT ships and no TensorFlow.

`lower` takes what ``hub.canonical`` and ``hub.legalise`` give and writes the file in memory. The boundary
keeps the source's types, ranks and axis order. What a kernel does not do exactly is refused with a reason
code. Parts: `registry` (which function lowers which op, in ``ops/``), `context` (what those functions
use), `layout` (axis orders), `patterns` (integer patterns of a QDQ graph), `opcodes`, `versions` and
`runtimes` (op versions), `writer` (the file).
"""

from __future__ import annotations

from edgekit_converters.targets.tflite.lower.build import build
from edgekit_converters.targets.tflite.lower.context import Options
from edgekit_converters.targets.tflite.lower.model import Lowered, Port, lower
from edgekit_converters.targets.tflite.lower.registry import rules

__all__ = ["SUPPORTED", "Lowered", "Options", "Port", "build", "lower"]

SUPPORTED = frozenset(rules())
"""ONNX op types that have a lowering; ``hub.legalise`` rewrites the others."""
