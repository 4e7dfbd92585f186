"""The hub: the canonical float ONNX graph from which calibration and lowerings start.

`canonical` makes it (in memory an `onnx_ir.Model`), `legalise` rewrites it into the operators of one
lowering, `hub.nodes` reads it. `canonicalise` and `with_batch_one` are the engine's forms on disk.
Rewriting happens in passes (`passes/`, each with declared and checked conditions), by rules of two
kinds: what changed between opsets (`upgrade/`) and what a rare operator means (`decompose/`).
"""

from __future__ import annotations

from edgekit_converters.hub.batch import mixes_batch, run_error
from edgekit_converters.hub.files import canonicalise, to_proto, with_batch_one
from edgekit_converters.hub.legal import legalise
from edgekit_converters.hub.pipeline import Canonical, canonical, check

__all__ = [
    "Canonical",
    "canonical",
    "canonicalise",
    "check",
    "legalise",
    "mixes_batch",
    "run_error",
    "to_proto",
    "with_batch_one",
]
