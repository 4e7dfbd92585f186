"""A saved ``.mlpackage`` as a `Program`. The only module here that knows coremltools.

coremltools rebuilds the program op by op and infers every type anew: a package whose declared types do not
follow from its ops does not load. Imported in coremltools workers only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.coreml.evaluate.program import (
    Block,
    Constant,
    Image,
    Program,
    Shape,
    Step,
    Value,
)

_OPSETS = {6: 15, 7: 16, 8: 17, 9: 18, 10: 26}
"""Specification version → iOS version."""
_FEATURES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}
"""ArrayDataType of FeatureTypes.proto."""
_FOREIGN = (
    ValueError,
    TypeError,
    KeyError,
    AssertionError,
    AttributeError,
    RuntimeError,
    IndexError,
    OSError,
)
"""What coremltools raises for a package that it cannot read, besides protobuf's DecodeError."""


def load(path: Path) -> Program:
    """The program of the package at `path`.

    Raises:
        Refusal: ``package_unreadable``, when it is no ML program or its types do not fit together.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load as rebuild
    from google.protobuf.message import DecodeError

    weights = path / "Data" / "com.apple.CoreML" / "weights"
    try:
        spec = ct.utils.load_spec(str(path))
        loaded = rebuild(spec, spec.specificationVersion, str(weights))
    except (*_FOREIGN, DecodeError) as error:
        raise Refusal(
            f"{path.name} cannot be read back: {type(error).__name__}: {error}", code="package_unreadable"
        ) from error
    return _Reader(spec).program(loaded.functions["main"])


class _Reader:
    """Numbers the values of one program."""

    def __init__(self, spec: Any) -> None:
        self._spec = spec
        self._numbers: dict[int, int] = {}
        self._keep: list[Any] = []
        self._values: dict[int, Value] = {}
        self._constants: dict[int, Constant] = {}

    def program(self, function: Any) -> Program:
        """The function ``main`` with what the description says of its ports."""
        block = self._block(function, list(function.inputs.values()))
        description = self._spec.description
        ports = [*description.input, *description.output]
        return Program(
            main=block,
            constants=self._constants,
            output_names=tuple(item.name for item in function.outputs),
            images={p.name: _image(p) for p in description.input if p.type.WhichOneof("Type") == "imageType"},
            labels=self._labels(block),
            opset=_OPSETS.get(self._spec.specificationVersion, 0),
            described={p.name: _described(p) for p in ports},
            values=self._values,
        )

    def _labels(self, block: Block) -> tuple[Any, ...]:
        found = [step for step in block.steps if step.kind == "classify"]
        if not found:
            return ()
        classes = found[0].inputs["classes"]
        return tuple(self._constants[classes]) if isinstance(classes, int) else ()

    def _block(self, block: Any, inputs: list[Any]) -> Block:
        taken = tuple(self._value(item) for item in inputs)
        steps = tuple(self._step(op) for op in block.operations if not self._constant(op))
        return Block(inputs=taken, steps=steps, outputs=tuple(self._number(v) for v in block.outputs))

    def _constant(self, op: Any) -> bool:
        if op.op_type != "const":
            return False
        self._constants[self._number(op.outputs[0])] = _plain(op.outputs[0].val)
        self._value(op.outputs[0])
        return True

    def _step(self, op: Any) -> Step:
        inputs: dict[str, int | tuple[int, ...]] = {}
        for name, item in op.inputs.items():
            if item is None or name.startswith("_"):
                continue
            many = isinstance(item, list | tuple)
            inputs[name] = tuple(self._number(v) for v in item) if many else self._number(item)
        return Step(
            kind=op.op_type,
            name=op.name,
            inputs=inputs,
            outputs=tuple(self._value(item) for item in op.outputs),
            blocks=tuple(self._block(block, list(block.inputs)) for block in op.blocks),
        )

    def _number(self, var: Any) -> int:
        known = self._numbers.get(id(var))
        if known is None:
            known = self._numbers[id(var)] = len(self._numbers)
            self._keep.append(var)  # so that no other object gets its id
        return known

    def _value(self, var: Any) -> Value:
        number = self._number(var)
        if number not in self._values:
            made = Value(number=number, name=str(var.name), dtype=_dtype(var), shape=_shape(var))
            self._values[number] = made
        return self._values[number]


def _dtype(var: Any) -> str:
    from coremltools.converters.mil.mil import types

    for kind, name in ((types.is_list, "list"), (types.is_dict, "dict"), (types.is_state, "state")):
        if kind(var.sym_type):
            return name
    return str(types.builtin_to_string(var.dtype))


def _shape(var: Any) -> Shape:
    from coremltools.converters.mil.mil import types

    shape = var.sym_type.get_shape() if types.is_tensor(var.sym_type) else ()
    return tuple(int(size) if isinstance(size, int | np.integer) else None for size in shape)


def _plain(value: Any) -> Constant:
    """A constant without coremltools' types; what is fp16 is held as float32, which loses nothing."""
    if isinstance(value, str):
        return value
    if hasattr(value, "ls"):
        return list(value.ls)
    if isinstance(value, list | tuple):
        return list(value)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _image(port: Any) -> Image:
    kind = port.type.imageType
    return Image(colour=str(kind.ColorSpace.Name(kind.colorSpace)))


def _described(port: Any) -> str:
    kind = port.type.WhichOneof("Type")
    if kind == "multiArrayType":
        return _FEATURES.get(port.type.multiArrayType.dataType, "unknown")
    return str(kind).removesuffix("Type")
