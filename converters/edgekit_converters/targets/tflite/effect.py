"""Did anything happen? A file that says int8, fp16 or int4 and is float is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit_converters.errors import Refusal


def require_effect(precision: str, facts: Mapping[str, Any]) -> None:
    """Check what the file holds against what was asked.

    Raises:
        Refusal: nothing was converted to `precision`.
    """
    int8, fp16, int4 = (facts.get(f"{name}_weights", 0) for name in ("int8", "fp16", "int4"))
    effective = {
        "fp32": True,
        "fp16": fp16 > 0,
        "dynamic": int8 > 0,
        "int4": int4 > 0,
        "int8": _computes_integers(facts) and int8 > 0,
        "int16x8": _computes_integers(facts) and int8 > 0,
    }[precision]
    if not effective:
        raise Refusal(
            f"nothing was converted to {precision}: {int8} int8, {fp16} fp16, {int4} int4 weights",
            remedy="the weights are too small for this precision; use fp32 or int8 with calibration",
            code="nothing_quantized",
        )


def _computes_integers(facts: Mapping[str, Any]) -> bool:
    """Whether at least half of the ops, or of those with weights (the work), run on integers."""
    done, total = facts.get("quantization", {}).get("weighted_ops", (0, 0))
    share = done / total if total else 0.0
    return max(float(facts["int8_op_ratio"]), share) >= 0.5
