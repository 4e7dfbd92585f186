"""Embeddings with identities: how often the nearest other sample is of the same identity (recall at 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit_converters.verify.tasks.paired import Figure, mean

Array = NDArray[Any]


def embedding_figures(name: str, labels: Array, where: str) -> tuple[Figure, ...]:
    """The figure for output `name` of shape (n, d); `labels` are (n,) identities.

    Raises:
        DataError: labels of another shape.
    """
    if labels.ndim != 1:
        raise DataError(
            f"one identity a sample was expected, not {labels.shape}", where=where, code="wrong_shape"
        )

    def rows(outputs: Mapping[str, Array]) -> Array:
        flat = outputs[name].reshape(len(labels), -1).astype(np.float64)
        flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
        likeness = flat @ flat.T
        np.fill_diagonal(likeness, -np.inf)
        return np.asarray(labels[likeness.argmax(axis=1)] == labels)

    return (Figure(name="recall1", output=name, rows=rows, value=mean, exact=True),)
