"""Anomaly detection: how well the score tells the odd from the normal (area under the ROC curve).

An output of the input's size is a reconstruction, and its mean square error the score; any other output
is the score itself (its largest value where there are several).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit_converters.verify.tasks.classification import auc
from edgekit_converters.verify.tasks.paired import Figure

Array = NDArray[Any]


def reconstruction_auc(
    name: str, source: Array, inputs: Mapping[str, Array], labels: Array, where: str
) -> Figure:
    """The figure for output `name`; `labels` are (n,): 0 normal, anything else odd.

    Raises:
        DataError: not one label a sample, or only one kind of them.
    """
    if labels.ndim != 1 or len(np.unique(labels > 0)) < 2:
        raise DataError(
            "one label a sample was expected, 0 for normal and 1 for odd, and some of each",
            where=where,
            code="wrong_labels",
        )

    def rows(outputs: Mapping[str, Array]) -> Array:
        return np.stack([anomaly_scores(outputs[name], inputs), labels > 0], axis=1)

    return Figure(name="auc", output=name, rows=rows, value=auc)


def anomaly_scores(values: Array, inputs: Mapping[str, Array]) -> Array:
    """One score a sample: (n,) float64."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    first = next(iter(inputs.values()))
    if first.size == values.size:
        return np.asarray(((flat - first.reshape(flat.shape)) ** 2).mean(axis=1))
    return np.asarray(flat.max(axis=1))
