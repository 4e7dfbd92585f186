"""Regression: root mean square error and mean absolute error against the labels, in their unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit_converters.verify.tasks.paired import Figure, mean

Array = NDArray[Any]
_SHARE = 0.01
"""Accepted rise when the contract names none: this share of the labels' standard deviation."""


def regression_figures(name: str, source: Array, labels: Array, where: str) -> tuple[Figure, ...]:
    """Figures for output `name`; `labels` have its shape, or (n,) where it has one value a sample.

    Raises:
        DataError: another shape.
    """
    wanted = source.reshape(len(source), -1)
    if labels.size != wanted.size:
        raise DataError(
            f"labels of shape {labels.shape} for an output of shape {source.shape}",
            where=where,
            remedy="give the true values in the output's shape",
            code="wrong_shape",
        )
    truth = labels.reshape(wanted.shape).astype(np.float64)
    tolerance = _SHARE * float(truth.std() or 1.0)

    def gaps(outputs: Mapping[str, Array]) -> Array:
        return np.asarray(outputs[name].reshape(wanted.shape).astype(np.float64) - truth)

    common: dict[str, Any] = {"output": name, "higher": False, "tolerance": tolerance}
    return (
        Figure(name="rmse", rows=lambda o: (gaps(o) ** 2).mean(axis=1), value=_root, **common),
        Figure(name="mae", rows=lambda o: np.abs(gaps(o)).mean(axis=1), value=mean, **common),
    )


def _root(rows: Array) -> float:
    return float(np.sqrt(rows.mean()))
