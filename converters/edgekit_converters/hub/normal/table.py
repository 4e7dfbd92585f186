"""The register of normal forms."""

from __future__ import annotations

from edgekit_converters.hub.table import Table

NORMAL = Table()
rule = NORMAL.rule
