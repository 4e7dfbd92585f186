"""The reference evaluator: loads a saved ``.mlpackage`` back and executes it op by op in numpy.

Written from the definitions of the MIL ops, not from our lowering, so that the one checks the other. It
works wherever coremltools can be imported; coremltools is imported when a package is loaded. What it
computes is *emulated*: Apple's runtime is never involved.
"""

from __future__ import annotations

from edgekit_converters.targets.coreml.evaluate.check import Violation, check
from edgekit_converters.targets.coreml.evaluate.evaluator import Evaluator
from edgekit_converters.targets.coreml.evaluate.load import load

__all__ = ["Evaluator", "Violation", "check", "load"]
