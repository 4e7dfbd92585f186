"""The public face: a saved package, loaded once, run many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.coreml.evaluate.batching import with_free_batch
from edgekit_converters.targets.coreml.evaluate.check import Violation, check
from edgekit_converters.targets.coreml.evaluate.inputs import fed
from edgekit_converters.targets.coreml.evaluate.kernels import Array
from edgekit_converters.targets.coreml.evaluate.load import load
from edgekit_converters.targets.coreml.evaluate.program import Value
from edgekit_converters.targets.coreml.evaluate.run import PRECISIONS, Runner

_ELEMENTS = 1 << 21
"""Elements of the largest value at a time when many samples run: about what a processor's cache holds."""
_CLOSE = {"float32": 1e-4, "float16": 1e-2}
"""How far many samples at once may be from one alone, of the largest value: sums in another order."""


class Evaluator:
    """Executes the program of a saved ``.mlpackage``.

    It checks what the program means, in float32 or in float16; Apple's own kernels may differ in the last
    digits. Nothing of it is called an execution: the result is *emulated*.
    """

    def __init__(self, path: Path | str, precision: str = "float32", *, strict: bool = True) -> None:
        """Load the package at `path`.

        Args:
            path: the ``.mlpackage`` folder.
            precision: ``float32`` computes all floats in float32; ``float16`` rounds as the program says.
            strict: refuse a package that breaks a rule of `check`.

        Raises:
            Refusal: ``package_unreadable``, ``runtime_rejects`` with the rule that it breaks, or
                ``no_evaluator_kernel`` with the op named.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.program = load(Path(path))
        if strict:
            _must_run(check(self.program))
        self.precision = precision
        self._runner = Runner(self.program, precision)
        free = with_free_batch(self.program)
        self._many = None if free is None else Runner(free, precision)

    @property
    def inputs(self) -> dict[str, Value]:
        """Input name → its type and shape."""
        return {value.name: value for value in self.program.main.inputs}

    @property
    def labels(self) -> tuple[Any, ...]:
        """Class labels of a classifier, in the order of its probabilities; else empty."""
        return self.program.labels

    @property
    def batches(self) -> bool:
        """Whether `run_many` can run several samples at once."""
        return self._many is not None

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs for one set of inputs of the described shapes.

        An image may be given as ``uint8`` (height, width, 3), or (height, width) if it is grey, or as the
        program's own tensor of 0 to 255 values in its colour order. A classifier's probabilities come
        back as one array in the order of `labels`, its label as an array without axes.

        Raises:
            DataError: inputs that do not fit the description.
            Refusal: ``undefined_behaviour``, when a result depends on what the op's definition leaves open.
        """
        return self._named(self._runner.run(fed(self.program, arrays, self.precision)))

    def run_many(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs for many samples of a package that takes one.

        Args:
            arrays: as for `run`, with the samples along the first axis where the package has a one.

        Returns:
            Outputs with the samples along the first axis: in place of a leading one, else before the rest.

        Raises:
            DataError: inputs that do not fit the description, or no batch of one in it.
        """
        inputs = self.program.main.inputs
        counts = {np.shape(item)[0] if np.ndim(item) else 0 for item in arrays.values()}
        if len(counts) != 1 or any(value.shape[:1] != (1,) for value in inputs):
            raise DataError("run_many needs as many samples for each input, and inputs with a batch of one")
        count = counts.pop()
        size = self._chunk() if count > 1 and self._agrees(arrays) else 1
        parts = [self._part(arrays, first, min(size, count - first)) for first in range(0, count, size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.program.output_names}

    def _part(self, arrays: Mapping[str, Array], first: int, count: int) -> dict[str, Array]:
        taken = {name: np.asarray(item)[first : first + count] for name, item in arrays.items()}
        if count > 1 and self._many is not None:
            return self._named(self._many.run(fed(self.program, taken, self.precision, samples=count)))
        found = self.run(taken)
        return {name: item if item.shape[:1] == (1,) else item[None] for name, item in found.items()}

    def _agrees(self, arrays: Mapping[str, Array]) -> bool:
        """Whether two samples at once give what each gives alone; a rule that is wrong is not believed."""
        if self._many is None:
            return False
        both = self._part(arrays, 0, 2)
        for place in (0, 1):
            for name, item in self._part(arrays, place, 1).items():
                other = both[name][place : place + 1]
                if not _close(item, other, _CLOSE[self.precision]):
                    self._many = None
                    return False
        return True

    def _named(self, found: list[Any]) -> dict[str, Array]:
        return {name: np.asarray(item) for name, item in zip(self.program.output_names, found, strict=True)}

    def _chunk(self) -> int:
        largest = max(prod(size or 1 for size in value.shape) for value in self.program.values.values())
        return max(2, min(64, _ELEMENTS // max(1, largest)))


def _must_run(violations: Sequence[Violation]) -> None:
    if not violations:
        return
    first, rest = violations[0], len(violations) - 1
    more = f" (and {rest} more)" if rest else ""
    raise Refusal(
        f"Core ML would not run {first.where} as it should: {first.why}{more}",
        remedy="use another target, or lower the model without it",
        code="runtime_rejects",
    )


def _close(a: Array, b: Array, share: float) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    wide = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return bool(np.allclose(a, b, rtol=share, atol=share * float(wide), equal_nan=True))
