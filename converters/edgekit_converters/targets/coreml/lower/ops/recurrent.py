"""LSTM with constant weights as MIL's own; every other recurrence is unrolled by the hub.

A backward one runs forwards on turned steps: in which order MIL's gives its steps is not said. MIL's `gru`
adds the hidden bias outside the reset gate, where ONNX has it inside, and its `rnn` takes a few activations
only: neither is used. Specification: onnx/docs/Operators.md#LSTM, MIL's `lstm`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.hub import nodes
from edgekit_converters.targets.coreml.lower.node import Array, Node, Var, reshaped
from edgekit_converters.targets.coreml.lower.registry import lowers

_DEFAULT = ("Sigmoid", "Tanh", "Tanh")


def _native(node: ir.Node) -> bool:
    """Constant weights, ONNX's default activations, no lengths per sample, nothing unusual."""
    constants = [1, 2] + [index for index in (3, 7) if nodes.operand(node, index) is not None]
    stored = all(nodes.constant(nodes.operand(node, index)) is not None for index in constants)
    activations = nodes.attr_strs(node, "activations")
    usual = activations is None or all(
        activations[index].lower() == _DEFAULT[index % 3].lower() for index in range(len(activations))
    )
    plain = not nodes.attr_int(node, "layout") and not nodes.attr_int(node, "input_forget")
    unusual = nodes.has_attr(node, "activation_alpha") or nodes.has_attr(node, "activation_beta")
    shape = nodes.dims(node.inputs[0]) if node.inputs[0] is not None else None
    known = shape is not None and shape[1] is not None
    return stored and usual and plain and known and not unusual and nodes.operand(node, 4) is None


def _gates(array: Array) -> Array:
    """ONNX's input, output, forget, cell → MIL's input, forget, output, cell; along the first axis."""
    i, o, f, c = np.split(array, 4)
    return np.concatenate([i, f, o, c])


def _weights(node: Node, direction: int) -> dict[str, Any]:
    found = {
        "weight_ih": _gates(node.weight(1)[direction]),
        "weight_hh": _gates(node.weight(2)[direction]),
    }
    if node.has(3):
        first, second = np.split(node.weight(3)[direction], 2)
        found["bias"] = _gates(first + second)
    if node.has(7):
        i, o, f = np.split(node.weight(7)[direction], 3)
        found["peephole"] = np.concatenate([i, f, o])
    return found


@lowers("LSTM", when=_native)
def _lstm(node: Node) -> list[Var]:
    x, direction = node.var(0), node.text("direction", "forward")
    hidden, batch = node.weight(2).shape[2], int(x.shape[1])
    directions = 2 if direction == "bidirectional" else 1
    weights = _weights(node, 0)
    if directions == 2:
        weights |= {f"{name}_back": value for name, value in _weights(node, 1).items()}
    clip = {"clip": np.float32(node.real("clip"))} if nodes.has_attr(node.raw, "clip") else {}
    turned = direction == "reverse"
    sequence, h, c = mb.lstm(
        x=mb.reverse(x=x, axes=[0]) if turned else x,
        initial_h=_state(node, 5, batch, directions * hidden),
        initial_c=_state(node, 6, batch, directions * hidden),
        direction="forward" if turned else direction,
        output_sequence=True,
        **weights,
        **clip,
    )
    sequence = mb.reverse(x=sequence, axes=[0]) if turned else sequence
    return [
        _sequence(sequence, batch, directions, hidden),
        *(_final(v, batch, directions, hidden) for v in (h, c)),
    ]


def _state(node: Node, index: int, batch: int, width: int) -> Var:
    """ONNX's (directions, batch, hidden) as MIL's (batch, directions · hidden)."""
    if not node.has(index):
        return np.zeros((batch, width), np.float32)
    return reshaped(mb.transpose(x=node.var(index), perm=[1, 0, 2]), [batch, width])


def _sequence(y: Var, batch: int, directions: int, hidden: int) -> Var:
    """MIL's (steps, batch, directions · hidden) as ONNX's (steps, directions, batch, hidden)."""
    split = mb.reshape(x=y, shape=np.array([-1, batch, directions, hidden], np.int32))
    return mb.transpose(x=split, perm=[0, 2, 1, 3])


def _final(state: Var, batch: int, directions: int, hidden: int) -> Var:
    return mb.transpose(x=reshaped(state, [batch, directions, hidden]), perm=[1, 0, 2])
