"""A canonical ONNX graph as a MIL program: boundary, nodes in order, checks on what each node became.

After each node the MIL shape is compared with the one that ONNX's inference gave: a lowering that emits
another shape than it should is caught where it happens. Core ML takes tensors of rank five at most and
none without elements. Specification: coremltools' MIL builder.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import coremltools as ct
import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.converter import _reset_conversion_state as start_over
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from edgekit_converters.errors import Refusal
from edgekit_converters.hub import nodes
from edgekit_converters.targets.coreml.lower import ops  # noqa: F401  # registers the rules
from edgekit_converters.targets.coreml.lower.boundary import Port, program_dtype
from edgekit_converters.targets.coreml.lower.interface import DEFAULT_RANGE, ImageInput, Interface
from edgekit_converters.targets.coreml.lower.node import Node, Scope, Var, as_bool, is_empty
from edgekit_converters.targets.coreml.lower.registry import RULES, accepts

_MAX_RANK = 5
_MIL = {"float32": types.fp32, "int32": types.int32}
_TOOL_ERRORS = (ValueError, TypeError, IndexError, AttributeError, NotImplementedError, AssertionError)
"""What MIL's builder raises when it does not take an op; raised by a rule of ours, it is a fault of ours."""


def ports_of(model: ir.Model, interface: Interface) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs, with names that Core ML allows and that are all different.

    Raises:
        Refusal: a type or rank that Core ML has not, or a graph without inputs or outputs.
    """
    graph = model.graph
    if not graph.inputs or not graph.outputs:
        raise Refusal("the graph has no inputs or no outputs; Core ML wants both", code="no_inputs")
    taken: set[str] = set()
    inputs = tuple(_image(_port(value, taken), interface) for value in graph.inputs)
    return inputs, tuple(_port(value, taken) for value in graph.outputs)


def _image(port: Port, interface: Interface) -> Port:
    """The port as an image input where the interface says so."""
    image = interface.images.get(port.name)
    if image is None:
        return port
    found = replace(port, image=image)
    channels = 1 if image.color == "gray" else 3
    fits = len(port.shape) == 4 and found.program_shape[:2] == (1, channels) and -1 not in port.shape
    if port.dtype != "float32" or not fits:
        raise Refusal(
            f"{port.name!r} is {port.dtype} {port.shape}, no single {image.color} image",
            remedy="give the input another meaning in the contract",
            code="unsupported_image",
        )
    return found


def without_empty_inputs(model: ir.Model) -> ir.Model:
    """`model`, or a copy where inputs without elements are the constants that they are."""
    empty = [index for index, value in enumerate(model.graph.inputs) if is_empty(value)]
    if not empty:
        return model
    copy = model.clone()
    for index in reversed(empty):
        value = copy.graph.inputs.pop(index)
        shape = nodes.static_shape(value)
        assert shape is not None
        value.const_value = ir.tensor(np.zeros(shape, nodes.numpy_dtype(value)), name=value.name)
        copy.graph.register_initializer(value)
    return copy


def _port(value: ir.Value, taken: set[str]) -> Port:
    name = value.name or ""
    dtype = "" if value.dtype is None else str(nodes.numpy_dtype(value))
    if program_dtype(dtype) is None:
        raise Refusal(
            f"{name!r} is {dtype or 'no tensor'}; Core ML takes float32 and int32, and what these hold",
            remedy="export the model with float32 or whole numbers at its boundary",
            code="unsupported_type",
        )
    if value.shape is None:
        raise Refusal(f"the rank of {name!r} is not known", code="dynamic_shape")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    if len(shape) > _MAX_RANK:
        raise Refusal(f"{name!r} has {len(shape)} axes, Core ML takes five", code="rank_above_five")
    if 0 in shape:
        raise Refusal(f"{name!r} has no elements", code="empty_tensor")
    return Port(name=name, artifact_name=_allowed(name, taken), dtype=dtype, shape=shape)


def _allowed(name: str, taken: set[str]) -> str:
    """`name` as an identifier that nothing else has."""
    base = re.sub(r"[^A-Za-z0-9_]", "_", name) or "_"
    base = f"_{base}" if base[0].isdigit() else base
    found, count = base, 1
    while found in taken:
        found, count = f"{base}_{count}", count + 1
    taken.add(found)
    return found


def build(
    model: ir.Model, inputs: Sequence[Port], outputs: Sequence[Port], *, target: Any, interface: Interface
) -> Program:
    """The program for `model`, whose every op must have a rule.

    Args:
        model: legal for this lowering (`hub.legalise`).
        inputs: from `ports_of`, in the graph's order.
        outputs: the same.
        target: coremltools' deployment target.
        interface: images and free sizes.

    Raises:
        Refusal: with the node named.
    """
    start_over()  # names and symbols are counted from the start, in any process the same
    symbols: dict[str, Any] = {}
    values = list(zip(inputs, model.graph.inputs, strict=True))
    sizes = {port.artifact_name: _sizes(value, port, symbols) for port, value in values}
    holders = {
        port.artifact_name: mb.placeholder(sizes[port.artifact_name], dtype=_MIL[port.program_dtype])
        for port in inputs
    }
    program = Program()
    with Function(holders, opset_version=target) as function:
        scope = Scope(_generation(target))
        for port, value in values:
            scope.vars[value] = _entered(function.inputs[port.artifact_name], port)
        for node in model.graph:
            _emit(node, scope)
        found = [_left(scope, value, port) for port, value in zip(outputs, model.graph.outputs, strict=True)]
        function.set_outputs(found)
        program.add_function("main", function)
    names = {symbol: name for name, symbol in symbols.items()}
    described = [_described(port, sizes[port.artifact_name], names, interface) for port in inputs]
    program.functions["main"].set_input_types(tuple(described))
    return program


def _described(port: Port, sizes: Sequence[Any], names: Mapping[Any, str], interface: Interface) -> Any:
    """How the model's description shows an input."""
    name = port.artifact_name
    if port.image is not None:
        layout = {"rgb": "RGB", "bgr": "BGR", "gray": "G"}[port.image.color]
        return ct.ImageType(name=name, shape=tuple(sizes), color_layout=layout, channel_first=True)
    if port.name in interface.shapes:
        return ct.TensorType(name=name, shape=ct.EnumeratedShapes(shapes=[*interface.shapes[port.name]]))
    shape = [
        ct.RangeDim(*interface.ranges.get(names[size], DEFAULT_RANGE)) if is_symbolic(size) else size
        for size in sizes
    ]
    return ct.TensorType(name=name, shape=tuple(shape))


def _generation(target: Any) -> int:
    """15, 16, 17, 18 …: the iOS version that a deployment target means."""
    return int(target.name.removeprefix("iOS"))


def _sizes(value: ir.Value, port: Port, symbols: dict[str, Any]) -> tuple[Any, ...]:
    """The sizes of an input, one MIL symbol for each name of a free size."""
    assert value.shape is not None
    if port.image is not None:
        return port.program_shape
    found = []
    for size in value.shape:
        if isinstance(size, int):
            found.append(size)
        else:
            key = str(size.value) if size.value is not None else f"?{len(symbols)}"
            found.append(symbols.setdefault(key, get_new_symbol()))
    return tuple(found) or (1,)


def _entered(var: Var, port: Port) -> Var:
    """An input as the graph's nodes see it."""
    if port.image is not None:
        return _preprocessed(var, port.image)
    var = as_bool(var) if port.dtype == "bool" else var
    return var if port.shape else mb.squeeze(x=var, axes=[0])


def _preprocessed(var: Var, image: ImageInput) -> Var:
    """Pixels as the graph wants them."""
    scale, bias = (np.array(item, np.float32).reshape(1, -1, 1, 1) for item in (image.scale, image.bias))
    if np.any(scale != 1):
        var = mb.mul(x=var, y=scale)
    if np.any(bias != 0):
        var = mb.add(x=var, y=bias)
    return mb.transpose(x=var, perm=[0, 2, 3, 1]) if image.channels_last else var


def _left(scope: Scope, value: ir.Value, port: Port) -> Var:
    """An output as the boundary has it."""
    if value in scope.vars:
        var = scope.vars[value]
    else:
        stored = nodes.constant(value)
        if stored is None:
            raise Refusal(f"the output {port.name!r} is computed by nothing", code="corrupt_source")
        if str(stored.dtype) not in ("float32", "int32", "bool"):
            stored = stored.astype(port.program_dtype)
        var = mb.const(val=stored)
    wanted = {"float32": types.fp32, "int32": types.int32}[port.program_dtype]
    if var.rank == 0:
        var = mb.expand_dims(x=var, axes=[0])
    if var.dtype != wanted:
        return mb.cast(x=var, dtype="fp32" if wanted == types.fp32 else "int32", name=port.artifact_name)
    return mb.identity(x=var, name=port.artifact_name)


def _emit(node: ir.Node, scope: Scope) -> None:
    """Add one node to the program."""
    if node.op_type not in RULES or node.domain:
        nodes.refuse(node, "no sound route", code="unsupported_op")
    if not accepts(node):
        nodes.refuse(node, "not exact with these attributes and inputs", code="unsupported_attribute")
    for value in node.outputs:
        if is_empty(value):
            scope.empty.add(value)
    if all(value in scope.empty for value in node.outputs):
        return
    try:
        found = RULES[node.op_type].emit(Node(node, scope))
    except _TOOL_ERRORS as error:
        if not _within(error, "coremltools"):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Refusal(f"{nodes.label(node)}: MIL does not take it: {text}", code="mil_refused") from error
    results = list(found) if isinstance(found, (list, tuple)) else [found]
    for value, var in zip(node.outputs, results, strict=False):
        if var is not None:
            _check(node, value, var)
            scope.vars[value] = var


def _within(error: BaseException, package: str) -> bool:
    """Whether `error` came from inside of `package`, and not from the code that called it."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.partition(".")[0] == package for name in names)


def _check(node: ir.Node, value: ir.Value, var: Var) -> None:
    """The MIL variable is one that Core ML takes, and of the shape that ONNX says."""
    if var.rank > _MAX_RANK:
        nodes.refuse(node, f"{var.rank} axes, Core ML takes five", code="rank_above_five")
    sizes = [None if is_symbolic(size) else int(size) for size in var.shape]
    if 0 in sizes:
        nodes.refuse(node, "a tensor without elements", code="empty_tensor")
    wanted = nodes.dims(value)
    if wanted is None:
        return
    same = len(wanted) == len(sizes) and all(
        a is None or b is None or a == b for a, b in zip(wanted, sizes, strict=True)
    )
    if not same:
        nodes.refuse(node, f"it became {sizes}, not {list(wanted)}", code="shapes_differ")
