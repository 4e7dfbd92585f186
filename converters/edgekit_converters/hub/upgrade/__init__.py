"""What changed in an operator between two opsets, one rule a change.

A rule is called for nodes of models below its opset (`below`), or above opset 21 (`above`). It
returns what takes the node's place in opset 21, or None after bringing the node itself up; the
next rule then sees the node. Specification: onnx/docs/Changelog.md.
"""

from __future__ import annotations

from edgekit_converters.hub.upgrade import arguments, meaning, newer
from edgekit_converters.hub.upgrade.table import rules_for

__all__ = ["arguments", "meaning", "newer", "rules_for"]
