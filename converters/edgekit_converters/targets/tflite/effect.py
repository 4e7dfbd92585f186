"""Did anything happen? A file that says int8, fp16 or int4 and is float is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.weights import SMALLEST_INT4


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
        why, remedy = _said(precision, int8)
        raise Refusal(why, remedy=remedy, code="nothing_quantized")


def _said(precision: str, int8: int) -> tuple[str, str]:
    """What did not happen, and what to do."""
    if precision == "int4":
        found = f"{int8} weights became int8" if int8 else "every weight stays as it is"
        limit = f"only those of {SMALLEST_INT4} and more elements do, where LiteRT has a kernel"
        return f"no weight became int4 ({found}): {limit}", "use dynamic, or int8 with calibration data"
    if precision in ("int8", "int16x8"):
        return (
            f"less than half of the ops, and of those with weights, compute with integers ({int8} weights)",
            "use fp16 or fp32: integers would gain nothing here",
        )
    kind = "int8" if precision == "dynamic" else precision
    return f"no weight became {kind}: all are too small to be worth it", "use fp32"


def _computes_integers(facts: Mapping[str, Any]) -> bool:
    """Whether at least half of the ops, or of those with weights (the work), run on integers."""
    done, total = facts.get("quantization", {}).get("weighted_ops", (0, 0))
    share = done / total if total else 0.0
    return max(float(facts["int8_op_ratio"]), share) >= 0.5
