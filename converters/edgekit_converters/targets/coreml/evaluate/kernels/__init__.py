"""Kernels of the reference evaluator, one family a module; importing this fills the table `KERNELS`."""

from __future__ import annotations

from edgekit_converters.targets.coreml.evaluate.kernels import (
    activation,
    compression,
    conv,
    elementwise,
    indexing,
    labelling,
    linear,
    lists,
    normalisation,
    ordering,
    pool,
    recurrent,
    reduction,
    resizing,
    sampling,
    shaping,
)
from edgekit_converters.targets.coreml.evaluate.kernels.registry import KERNELS, Array, Kernel

__all__ = [
    "KERNELS",
    "Array",
    "Kernel",
    "activation",
    "compression",
    "conv",
    "elementwise",
    "indexing",
    "labelling",
    "linear",
    "lists",
    "normalisation",
    "ordering",
    "pool",
    "recurrent",
    "reduction",
    "resizing",
    "sampling",
    "shaping",
]
