"""The node tests of the installed `onnx` wheel: what they feed, what they expect, which of them are plain.

A test is *plain* when everything at its boundary is a tensor of float32, int32, int64 or bool, and it is
not the ``_expanded`` form of another test. The rule is all there is: no test is left out by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

PLAIN = ("float32", "int32", "int64", "bool")
RTOL, ATOL = 1e-3, 1e-5

Arrays = dict[str, Any]
Runner = Callable[[Arrays], Arrays]


class NotTensors(Exception):
    """The test feeds or expects sequences, optionals, maps or strings."""


@dataclass(frozen=True, kw_only=True)
class NodeTest:
    """One folder of the suite. `types` are the boundary's element types, or ``other``."""

    name: str
    folder: Path
    ops: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """See the module."""
        return "_expanded" not in self.name and all(kind in PLAIN for kind in self.types)

    def model(self) -> onnx.ModelProto:
        """The model as it lies on the disk."""
        return onnx.load(self.folder / "model.onnx")

    def data(self) -> tuple[Arrays, Arrays]:
        """What the first data set feeds and expects, by the graph's names.

        Raises:
            NotTensors: something in it is no tensor of numbers.
        """
        graph = self.model().graph
        initial = {item.name for item in graph.initializer}
        inputs = [item.name for item in graph.input if item.name not in initial]
        return self._read("input", inputs), self._read("output", [item.name for item in graph.output])

    def _read(self, kind: str, names: list[str]) -> Arrays:
        found: Arrays = {}
        for index, name in enumerate(names):
            path = self.folder / "test_data_set_0" / f"{kind}_{index}.pb"
            tensor = onnx.TensorProto()
            if not path.exists():
                raise NotTensors(path.name)
            try:
                tensor.ParseFromString(path.read_bytes())
                found[name] = numpy_helper.to_array(tensor)
            except (ValueError, TypeError, KeyError, RuntimeError) as error:
                raise NotTensors(path.name) from error
            if tensor.data_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
                raise NotTensors(path.name)
        return found


def suite() -> list[NodeTest]:
    """All tests, by name."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"
    return [_read(folder) for folder in sorted(root.iterdir()) if (folder / "model.onnx").is_file()]


def matches(expected: Any, got: Any) -> bool:
    """Same shape and the same values within the suite's tolerances; NaN equals NaN."""
    if expected.shape != got.shape:
        return False
    if expected.dtype == bool:
        return bool(np.array_equal(expected, np.asarray(got).astype(bool)))
    wide = np.asarray(got).astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(*wide, rtol=RTOL, atol=ATOL, equal_nan=True))


def _read(folder: Path) -> NodeTest:
    graph = onnx.load(folder / "model.onnx").graph
    ports = [*graph.input, *graph.output]
    return NodeTest(
        name=folder.name.removeprefix("test_"),
        folder=folder,
        ops=tuple(sorted({node.op_type for node in graph.node})),
        types=tuple(sorted({_type(item) for item in ports})),
    )


def _type(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return "other"
    kind = value.type.tensor_type.elem_type
    if kind == onnx.TensorProto.STRING:
        return "other"
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else "other"
