"""Our lowering to Core ML: a canonical ONNX graph → a MIL program → an ``.mlpackage``.

Works in any process that can import coremltools; neither TensorFlow nor torch is needed or wanted there.
The op families are in `ops/`, the boundary's map in `boundary`. What cannot be said *exactly* in MIL is
refused with a reason code. Specification: coremltools' MIL ops reference, onnx/docs/Operators.md.
"""

from __future__ import annotations

from edgekit_converters.targets.coreml.lower.interface import ImageInput, Interface
from edgekit_converters.targets.coreml.lower.lowering import SUPPORTED, Lowered, lower, save

__all__ = ["SUPPORTED", "ImageInput", "Interface", "Lowered", "lower", "save"]
