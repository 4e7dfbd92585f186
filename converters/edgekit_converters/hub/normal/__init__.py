"""Normal forms: of several ways to write an operator down, the one that lowerings read.

A rule returns what takes the node's place, or None after bringing the node itself into form.
"""

from __future__ import annotations

from edgekit_converters.hub.normal import axes, declared, resizing, training, windows
from edgekit_converters.hub.normal.table import NORMAL

__all__ = ["NORMAL", "axes", "declared", "resizing", "training", "windows"]
