"""The register of decompositions."""

from __future__ import annotations

from edgekit_converters.hub.table import Table

DECOMPOSITIONS = Table()
rule = DECOMPOSITIONS.rule
