"""The SoCs that TIDL serves: their names in TI's tools and what their compile options say. Facts as data.

Which arithmetic and which operators a SoC has is in its rules file; here stands only what no rule is.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import ProfileError
from edgekit.tomlfile import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Soc:
    """One SoC. `scale_type` and `iterations` are compile options (1: powers of two, 4: asymmetric).

    `legacy` says that the import tool of Processor SDK 5 and 6 takes it, and today's tools do not.
    """

    name: str
    title: str
    device: str
    scale_type: int = 4
    iterations: int = 50
    legacy: bool = False


SOCS = {
    item.name: item
    for item in (
        Soc(name="am62a", title="AM62A", device="AM62A"),
        Soc(name="am67a", title="AM67A (J722S, TDA4AEN)", device="AM67A"),
        Soc(name="am68a", title="AM68A (J721S2, TDA4VL/AL)", device="AM68A"),
        Soc(name="am69a", title="AM69A (J784S4, TDA4VH/AH)", device="AM69A"),
        Soc(name="tda4vm", title="TDA4VM (J721E, AM68PA)", device="AM68PA", scale_type=1, iterations=100),
        Soc(name="am5729", title="AM5729", device="AM5729", legacy=True),
        Soc(name="am5749", title="AM5749", device="AM5749", legacy=True),
    )
}
"""By the name that a profile's target option `soc` gives."""

MOST_SUBGRAPHS = 16
MOST_NODES = 864
FRAMES = 20
"""Calibration frames that TI's tools expect."""
NOT_FOR_LEGACY = frozenset(
    {"gemm_to_product_and_sum", "mean_to_product", "large_average_to_product", "stride_to_subsampling"}
)
"""Rewrites into layers that the legacy import does not take."""


def soc(name: str) -> Soc:
    """The SoC called `name`.

    Raises:
        ProfileError: there is none.
    """
    if name not in SOCS:
        raise ProfileError(
            f"the target tidl knows no SoC {name!r}",
            remedy=did_you_mean(name, SOCS) or f"set options.soc to one of {', '.join(sorted(SOCS))}",
            code="unknown_soc",
        )
    return SOCS[name]
