"""TFLite ops said by others, exactly, for runtimes that lack them or compute them wrongly.

By op: a function that takes what would have been written and gives the outputs, or None where it has no exact
form (an integer op whose steps would round twice, sizes known only at run time). Integers are moved, never
computed anew, except where the comment says why that is exact. `restrict` decides which op needs one.
"""

from __future__ import annotations

from edgekit_converters.targets.tflite.lower.rewrites import computing, moving
from edgekit_converters.targets.tflite.lower.rewrites.computing import clamped
from edgekit_converters.targets.tflite.lower.rewrites.moving import Rewrite

REWRITES: dict[str, Rewrite] = {**moving.REWRITES, **computing.REWRITES}

__all__ = ["REWRITES", "Rewrite", "clamped"]
