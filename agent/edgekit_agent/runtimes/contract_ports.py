"""What every session says of its ports: the contract's terms, whatever the runtime calls them."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.package import Tensor, Variant


class ContractPorts:
    """Inputs and outputs of the variant that a session holds as ``_variant``."""

    _variant: Variant

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Inputs in the contract's terms."""
        return self._variant.inputs

    @property
    def outputs(self) -> Sequence[Tensor]:
        """Outputs in the contract's terms."""
        return self._variant.outputs
