"""What a source must be before anything is built of it: sane sizes, a row a sample, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit.package import Tensor
from edgekit_converters.resolve import Resolved
from edgekit_converters.values import Source

_LARGEST = 2**31 - 1


def check_outputs(reference: Mapping[str, Any], n: int, source: Source) -> None:
    """Every output has one row a sample, of finite numbers: verdict, probes and gates read it so."""
    for name, values in reference.items():
        if len(values) != n:
            raise SourceError(
                f"output {name!r} gives {len(values)} rows for {n} samples, one for each is needed",
                where=source.path,
                remedy="export the model without it (what selects a varying number of rows, such as "
                "NonMaxSuppression, belongs into the app)",
                code="no_batch_axis",
            )
        bad = 0 if values.dtype.kind != "f" else int((~np.isfinite(values.reshape(n, -1)).all(axis=1)).sum())
        if bad:
            raise SourceError(
                f"the source gives NaN or infinity in output {name!r} for {bad} of {n} samples",
                where=source.path,
                remedy="give samples that it is made for (--validation), or repair the model",
                code="not_finite",
            )


def check_size(port: Tensor, source: Source) -> None:
    """One sample of it has elements, and no more than a device has memory for."""
    sizes = [size for size in port.shape[1:] if size != -1]
    if 0 in sizes or math.prod(sizes) * np.dtype(port.dtype).itemsize > _LARGEST:
        what = "has no elements" if 0 in sizes else "is larger than 2 GiB"
        raise SourceError(
            f"{port.name!r} of shape {list(port.shape)} {what}",
            where=source.path,
            remedy="the file is damaged, or the model is not made for an edge device",
            code="absurd_shape",
        )


def check_shapes(reference: Mapping[str, Any], resolved: Resolved, source: Source) -> None:
    """The source computes what it declares: devices allocate by the declaration."""
    for port in resolved.outputs:
        found, said = reference[port.name].shape[1:], port.shape[1:]
        if len(found) != len(said) or any(b not in (-1, a) for a, b in zip(found, said, strict=True)):
            raise SourceError(
                f"output {port.name!r} is declared as {list(port.shape)} and computes {[-1, *found]}",
                where=source.path,
                remedy="export the model with its shapes inferred, or correct outputs.shape in the contract",
                code="wrong_shape",
            )
