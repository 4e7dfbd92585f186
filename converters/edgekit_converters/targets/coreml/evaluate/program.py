"""A Core ML program as the evaluator holds it: plain values, no coremltools.

Values have numbers, not names: in a loaded program a nested block may use a name twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int | None, ...]
"""Sizes; None where the package leaves one free."""

Constant = Any
"""A numpy array, a text, or a list of them."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a program. `dtype` as MIL spells it: ``fp16``, ``fp32``, ``int32``, ``bool``, …"""

    number: int
    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Step:
    """One op. An input is the number of a value, or a tuple of them where the op takes several."""

    kind: str
    name: str
    inputs: dict[str, int | tuple[int, ...]]
    outputs: tuple[Value, ...]
    blocks: tuple[Block, ...] = ()

    def reads(self) -> set[int]:
        """Numbers of all values that this op and its blocks read from outside."""
        found: set[int] = set()
        for item in self.inputs.values():
            found |= set(item) if isinstance(item, tuple) else {item}
        for block in self.blocks:
            found |= block.reads()
        return found


@dataclass(frozen=True, kw_only=True)
class Block:
    """Ops in order."""

    inputs: tuple[Value, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def reads(self) -> set[int]:
        """Numbers of the values that come from outside of this block."""
        found = set(self.outputs).union(*(step.reads() for step in self.steps))
        own = {value.number for value in self.inputs}
        return found - own.union(*({value.number for value in step.outputs} for step in self.steps))


@dataclass(frozen=True, kw_only=True)
class Image:
    """An input that is an image: Core ML hands the program its raw 0 to 255 values, channels first."""

    colour: str


@dataclass(frozen=True, kw_only=True)
class Program:
    """A loaded package.

    Attributes:
        main: the block of the function ``main``.
        constants: value number → constant.
        output_names: the description's names, in the order of `main.outputs`.
        images: input name → how the image is handed in.
        labels: class labels of a classifier.
        opset: iOS version whose ops the program uses, e.g. 17.
        described: input and output names → dtype as the description says (``float32``, ``int32``, …).
    """

    main: Block
    constants: dict[int, Constant]
    output_names: tuple[str, ...]
    images: dict[str, Image] = field(default_factory=dict)
    labels: tuple[Any, ...] = ()
    opset: int = 15
    described: dict[str, str] = field(default_factory=dict)
    values: dict[int, Value] = field(default_factory=dict)
