"""RNN, GRU and LSTM, one step after the other, for a known number of steps.

Specification: Operators.md, RNN 14, GRU 14, LSTM 14. Directions, peepholes, clipping, lengths of
sequences, all activation functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.decompose.table import rule
from edgekit_converters.hub.nodes import (
    attr_float,
    attr_floats,
    attr_int,
    attr_str,
    attr_strs,
    dims,
    numpy_dtype,
    operand,
    required,
    static_shape,
)

_MOST_STEPS = 256
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_ALPHAS = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "HardSigmoid": 0.2, "Elu": 1.0}
_SCALED = frozenset({"Affine", "ScaledTanh", "HardSigmoid"})
Function = Callable[[ir.Value], ir.Value]


@dataclass(frozen=True)
class Cell:
    """One direction: weights turned for x·W, biases, peepholes, functions."""

    kind: str
    hidden: int
    weights: ir.Value
    recurrent: ir.Value
    input_bias: ir.Value
    recurrent_bias: ir.Value
    peepholes: ir.Value | None
    functions: list[Function]
    before_reset: bool
    coupled: bool


@rule("RNN", "GRU", "LSTM")
def recurrent(node: ir.Node, b: Builder) -> Result:
    """See the module."""
    x, hidden = required(node, 0), static_shape(required(node, 2))
    batch_first = attr_int(node, "layout") == 1
    if hidden is None:
        return None
    x = b("Transpose", x, perm=[1, 0, 2]) if batch_first else x
    sizes = dims(x)
    if sizes is None or sizes[0] is None or sizes[0] > _MOST_STEPS:
        return None
    names = _activations(node, hidden[0])
    if names is None:
        return None
    sequences, lasts, cells = [], [], []
    for index in range(hidden[0]):
        backwards = attr_str(node, "direction", "forward") == "reverse" or index == 1
        cell = _cell(node, b, index, hidden[2], names[index])
        steps, last, memory = _run(node, b, cell, x, sizes[0], index, backwards=backwards)
        sequences.append(b("Unsqueeze", steps, [1]))
        lasts.append(b("Unsqueeze", last, [0]))
        cells.append(None if memory is None else b("Unsqueeze", memory, [0]))
    found: list[ir.Value | None] = [_beside(b, sequences, 1), _beside(b, lasts, 0)]
    if node.op_type == "LSTM":
        found.append(_beside(b, [item for item in cells if item is not None], 0))
    if batch_first:
        orders = ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])
        found = [b("Transpose", v, perm=o) for v, o in zip(found, orders, strict=False)]
    return found[: len(node.outputs)]


def _beside(b: Builder, parts: list[ir.Value], axis: int) -> ir.Value:
    return parts[0] if len(parts) == 1 else b("Concat", *parts, axis=axis)


def _activations(node: ir.Node, directions: int) -> list[list[tuple[str, float, float]]] | None:
    """For each direction the functions with their two numbers."""
    count = len(_DEFAULTS[node.op_type])
    names = attr_strs(node, "activations") or _DEFAULTS[node.op_type] * directions
    alphas, betas = (
        list(attr_floats(node, "activation_alpha") or ()),
        list(attr_floats(node, "activation_beta") or ()),
    )
    known = {
        name.lower(): name for name in (*_ALPHAS, *_SCALED, "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
    }
    found = []
    for given in names:
        name = known.get(given.lower())
        if name is None:
            return None
        takes = name in _ALPHAS or name in _SCALED
        alpha = alphas.pop(0) if takes and alphas else _ALPHAS.get(name, 1.0)
        beta = betas.pop(0) if name in _SCALED and betas else 0.5 if name == "HardSigmoid" else 0.0
        found.append((name, alpha, beta))
    return [found[i * count : (i + 1) * count] for i in range(directions)]


def _function(b: Builder, name: str, alpha: float, beta: float) -> Function:
    if name == "Affine":
        return lambda x: b("Add", b("Mul", x, alpha), beta)
    if name == "ScaledTanh":
        return lambda x: b("Mul", b("Tanh", b("Mul", x, beta)), alpha)
    if name == "HardSigmoid":
        return lambda x: b(name, x, alpha=alpha, beta=beta)
    if name in _ALPHAS:
        return lambda x: b(name, x, alpha=alpha)
    return lambda x: b(name, x)


def _cell(node: ir.Node, b: Builder, index: int, hidden: int, names: list[tuple[str, float, float]]) -> Cell:
    def own(value: ir.Value) -> ir.Value:
        return b("Squeeze", b.slice(value, 0, index, index + 1), [0])

    weights, matrix = own(required(node, 1)), own(required(node, 2))
    both, peepholes, wide = operand(node, 3), operand(node, 7), _GATES[node.op_type] * hidden
    if both is None:
        none = b.const(np.zeros(wide, numpy_dtype(weights)))
        biases = (none, none)
    else:
        row = own(both)
        biases = (b.slice(row, 0, 0, wide), b.slice(row, 0, wide, 2 * wide))
    limit = attr_float(node, "clip", 0.0)

    def clipped(function: Function) -> Function:
        return lambda x: function(b("Clip", x, -limit, limit)) if limit else function(x)

    return Cell(
        kind=node.op_type,
        hidden=hidden,
        weights=b("Transpose", weights, perm=[1, 0]),
        recurrent=b("Transpose", matrix, perm=[1, 0]),
        input_bias=biases[0],
        recurrent_bias=biases[1],
        peepholes=None if peepholes is None or node.op_type != "LSTM" else own(peepholes),
        # The memory goes into the last function of an LSTM as it is; onnxruntime clips only the gates.
        functions=[
            _function(b, *name) if index == 2 else clipped(_function(b, *name))
            for index, name in enumerate(names)
        ],
        before_reset=attr_int(node, "linear_before_reset") == 1,
        coupled=attr_int(node, "input_forget") == 1,
    )


def _run(
    node: ir.Node, b: Builder, cell: Cell, x: ir.Value, count: int, index: int, *, backwards: bool
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """All steps (T, N, H), the last hidden state and the last memory."""
    lengths = operand(node, 4)
    # All steps' products with the inputs at once.
    ready = b("Add", b("MatMul", x, cell.weights), cell.input_bias)
    state = _initial(node, b, x, cell, 5, index)
    memory = _initial(node, b, x, cell, 6, index) if cell.kind == "LSTM" else None
    steps: dict[int, ir.Value] = {}
    for step in reversed(range(count)) if backwards else range(count):
        row = b("Squeeze", b.slice(ready, 0, step, step + 1), [0])
        new, new_memory = _step(b, cell, row, state, memory)
        if lengths is not None:
            alive = b("Unsqueeze", b("Greater", b.cast(lengths, ir.DataType.INT64), step), [1])
            steps[step] = b("Where", alive, new, b.scalar(0, new))
            new = b("Where", alive, new, state)
            if memory is not None and new_memory is not None:
                new_memory = b("Where", alive, new_memory, memory)
        else:
            steps[step] = new
        state, memory = new, new_memory
    return b("Concat", *(b("Unsqueeze", steps[i], [0]) for i in range(count)), axis=0), state, memory


def _initial(node: ir.Node, b: Builder, x: ir.Value, cell: Cell, place: int, index: int) -> ir.Value:
    given = operand(node, place)
    if given is None:
        zero = b.const(np.zeros((1, cell.hidden), numpy_dtype(x)))
        shape = b("Concat", b.size(x, 1), b.const(np.asarray([cell.hidden], np.int64)), axis=0)
        return b("Expand", zero, shape)
    if attr_int(node, "layout") == 1:
        given = b("Transpose", given, perm=[1, 0, 2])
    return b("Squeeze", b.slice(given, 0, index, index + 1), [0])


def _step(
    b: Builder, cell: Cell, row: ir.Value, state: ir.Value, memory: ir.Value | None
) -> tuple[ir.Value, ir.Value | None]:
    if cell.kind == "RNN":
        whole = b("Add", b("Add", row, b("MatMul", state, cell.recurrent)), cell.recurrent_bias)
        return cell.functions[0](whole), None
    if cell.kind == "GRU":
        return _gru(b, cell, row, state), None
    assert memory is not None
    return _lstm(b, cell, row, state, memory)


def _gru(b: Builder, cell: Cell, row: ir.Value, state: ir.Value) -> ir.Value:
    """Gates z, r, h in this order."""
    size, (gate, function) = cell.hidden, cell.functions
    two = b.slice(cell.recurrent, 1, 0, 2 * size)
    gates = b("Add", b.slice(row, 1, 0, 2 * size), b("MatMul", state, two))
    gates = b("Add", gates, b.slice(cell.recurrent_bias, 0, 0, 2 * size))
    update, reset = (gate(b.slice(gates, 1, i * size, (i + 1) * size)) for i in (0, 1))
    third = b.slice(cell.recurrent, 1, 2 * size, 3 * size)
    offset = b.slice(cell.recurrent_bias, 0, 2 * size, 3 * size)
    if cell.before_reset:
        back = b("Mul", reset, b("Add", b("MatMul", state, third), offset))
    else:
        back = b("Add", b("MatMul", b("Mul", reset, state), third), offset)
    candidate = function(b("Add", b.slice(row, 1, 2 * size, 3 * size), back))
    return b("Add", b("Mul", b("Sub", 1.0, update), candidate), b("Mul", update, state))


def _lstm(
    b: Builder, cell: Cell, row: ir.Value, state: ir.Value, memory: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Gates i, o, f, c in this order; peepholes i, o, f."""
    size, (gate, function, output) = cell.hidden, cell.functions
    whole = b("Add", b("Add", row, b("MatMul", state, cell.recurrent)), cell.recurrent_bias)
    parts = [b.slice(whole, 1, i * size, (i + 1) * size) for i in range(4)]

    def seen(part: ir.Value, index: int, where: ir.Value) -> ir.Value:
        if cell.peepholes is None:
            return part
        weights = b.slice(cell.peepholes, 0, index * size, (index + 1) * size)
        return b("Add", part, b("Mul", weights, where))

    enter = gate(seen(parts[0], 0, memory))
    forget = b("Sub", 1.0, enter) if cell.coupled else gate(seen(parts[2], 2, memory))
    new = b("Add", b("Mul", forget, memory), b("Mul", enter, function(parts[3])))
    leave = gate(seen(parts[1], 1, new))
    return b("Mul", leave, output(new)), new
