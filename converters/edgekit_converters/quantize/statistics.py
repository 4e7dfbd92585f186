"""What calibration knows of each float tensor, and its form on disk.

One npz, made once on the canonical float graph; the ranges of every target are derived from it
(`ranges`). Measuring is `calibration`'s part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit_converters.npz import load_arrays, save_arrays

BINS = 2048


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor over all calibration samples.

    `histogram` counts values in `BINS` equal steps from `low` to `high`, None where only the ends are
    known; `lows`, `highs` and `means` belong to the channels along `axis`, None where there are none.
    """

    low: float
    high: float
    histogram: Any = None
    axis: int | None = None
    lows: Any = None
    highs: Any = None
    means: Any = None

    @property
    def peaks(self) -> Any:
        """The largest magnitude of each channel."""
        return None if self.lows is None else np.maximum(self.highs, -self.lows)

    def divided(self, factor: Any) -> Tensor:
        """The same tensor with each channel divided by its positive `factor`; without a histogram."""
        lows, highs = self.lows / factor, self.highs / factor
        return Tensor(
            low=float(lows.min()),
            high=float(highs.max()),
            axis=self.axis,
            lows=lows,
            highs=highs,
            means=self.means / factor,
        )

    @property
    def edges(self) -> Any:
        """The `BINS` + 1 edges of the histogram."""
        high = self.high if self.high > self.low else self.low + 1.0
        return np.linspace(self.low, high, BINS + 1)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """All tensors by name, from `samples` samples."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    samples: int = 0


def save(path: Path, found: Statistics) -> None:
    """Write `found` to `path`."""
    names = sorted(found.tensors)
    items = [found.tensors[name] for name in names]
    arrays: dict[str, Any] = {
        "names": np.array(names, np.str_),
        "samples": np.array([found.samples], np.int64),
        "limits": np.array([(item.low, item.high) for item in items], np.float64).reshape(-1, 2),
        "axes": np.array([-9 if item.axis is None else item.axis for item in items], np.int64),
        "histograms": np.stack([item.histogram for item in items]) if items else np.zeros((0, BINS)),
    }
    for name in names:
        if (item := found.tensors[name]).axis is not None:
            arrays[f"channels:{name}"] = np.stack([item.lows, item.highs, item.means]).astype(np.float32)
    save_arrays(path, arrays)


def load(path: Path) -> Statistics:
    """Read what `save` wrote.

    Raises:
        DataError: it is not such a file.
    """
    arrays = load_arrays(path)
    if not {"names", "limits", "histograms", "axes", "samples"} <= set(arrays):
        raise DataError(
            "not a stored calibration",
            where=str(path),
            remedy="delete the cache and convert again",
            code="unreadable_data",
        )
    tensors = {}
    for index, name in enumerate(str(item) for item in arrays["names"]):
        axis = int(arrays["axes"][index])
        channels = arrays.get(f"channels:{name}", (None, None, None))
        tensors[name] = Tensor(
            low=float(arrays["limits"][index][0]),
            high=float(arrays["limits"][index][1]),
            histogram=arrays["histograms"][index],
            axis=None if axis == -9 else axis,
            lows=channels[0],
            highs=channels[1],
            means=channels[2],
        )
    return Statistics(tensors=tensors, samples=int(arrays["samples"][0]))
