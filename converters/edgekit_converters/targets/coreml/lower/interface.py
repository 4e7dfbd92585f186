"""What of a program's face is more than a tensor: images, class labels, free sizes.

Specification: coremltools' input types (`ImageType`, `RangeDim`, `EnumeratedShapes`, `ClassifierConfig`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DEFAULT_RANGE = (1, 1024)
"""For a free size that nobody gave a range: Core ML wants an upper bound."""


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """An input that takes an image: pixel · scale + bias, per channel, is what the graph gets.

    `color` is ``rgb``, ``bgr`` or ``gray``; `channels_last` says that the graph wants (1, H, W, C).
    """

    color: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Interface:
    """How a program is to be fed and read.

    `images` are inputs by name, `labels` the class names of the output `probabilities`; `ranges` gives
    (low, high) by the symbol of a free size, `shapes` the whole list of shapes of an input by its name.
    """

    images: Mapping[str, ImageInput] = field(default_factory=dict)
    probabilities: str | None = None
    labels: Sequence[str] = ()
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
