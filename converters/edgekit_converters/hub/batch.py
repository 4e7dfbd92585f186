"""Whether the samples of a batch are computed apart from each other.

Devices run one sample at a time. A model that, say, subtracts the mean of its batch computes
something else there than on the evaluation data, and no converter can know which is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit_converters.onnx_session import REFUSALS, OnnxSession

_SAMPLES = 8
_LIMIT = 1e-3


def mixes_batch(session: OnnxSession, inputs: Mapping[str, Any]) -> str | None:
    """The output for which samples alone give other results than together; None when none does.

    Args:
        session: of a model whose batch is free; with a fixed one there is nothing to compare.
        inputs: samples by input name, the batch first.
    """
    first = {name: value[:_SAMPLES] for name, value in inputs.items()}
    count = len(next(iter(first.values())))
    if session.fixed or count < 2:
        return None
    together = session.step(first)
    try:
        alone = [session.step({k: v[i : i + 1] for k, v in first.items()}) for i in range(count)]
    except REFUSALS:
        return next(iter(together))
    for name, whole in together.items():
        parts = np.concatenate([item[name] for item in alone])
        if parts.shape != whole.shape or not _close(whole, parts):
            return name
    return None


def _close(whole: Any, parts: Any) -> bool:
    """Equal but for the order of additions."""
    if whole.dtype.kind != "f":
        return float(np.mean(whole != parts)) < _LIMIT
    finite = whole[np.isfinite(whole)].astype(np.float64)
    reach = float(np.ptp(finite)) if finite.size else 0.0
    allowed = _LIMIT * reach + 1e-6
    return bool(np.allclose(whole, parts, rtol=_LIMIT, atol=allowed, equal_nan=True))
