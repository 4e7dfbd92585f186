"""Keras' GRU and SimpleRNN as the ONNX ops GRU and RNN, where the exporter would write a loop.

While a model is traced for the export, such a layer calls an op that stands for it and is never run
(`CudnnRNN`, with the layer's number as its only parameter); in the exported graph that node becomes
GRU or RNN with the layer's weights. What the ops do not say exactly (masks, other activations) is left
to the exporter. Imported in TensorFlow workers only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit_converters.frontends.emit import Emitter, pruned

DOMAIN = "edgekit.recurrent"
STAND_IN = "CudnnRNN"


def recurrent_layers(model: Any) -> list[Any]:
    """The layers of `model` that this module can write, in its own order."""
    import keras

    found = []
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.GRU:
            plain = _is(layer.cell.activation, "tanh") and _is(layer.cell.recurrent_activation, "sigmoid")
        elif type(layer) is keras.layers.SimpleRNN:
            plain = _is(layer.cell.activation, "tanh")
        else:
            continue
        if plain and not layer.stateful:
            found.append(layer)
    return found


def _is(function: Any, name: str) -> bool:
    return getattr(function, "__name__", "") == name


@contextlib.contextmanager
def standing_in(layers: Sequence[Any]) -> Iterator[None]:
    """Within, the layers call the op that stands for them."""
    for number, layer in enumerate(layers):
        object.__setattr__(layer, "inner_loop", _loop(layer, number))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "inner_loop")


def _loop(layer: Any, number: int) -> Any:
    original = layer.inner_loop

    def inner_loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        import tensorflow as tf

        if mask is not None:
            return original(sequences, initial_state, mask, training=training)
        state = initial_state[0] if isinstance(initial_state, list | tuple) else initial_state
        made = tf.raw_ops.CudnnRNN(
            input=tf.transpose(sequences, [1, 0, 2]),
            input_h=tf.expand_dims(state, 0),
            input_c=tf.zeros([1]),
            params=tf.constant([float(number)]),
            rnn_mode="gru",
            is_training=False,
        )
        last = made.output_h[0]
        outputs = last[:, None]
        if layer.return_sequences:
            outputs = tf.transpose(made.output, [1, 0, 2])
            if layer.go_backwards:  # Keras gives them in the order of its steps
                outputs = outputs[:, ::-1]
        return last, outputs, [last]

    return inner_loop


def write_recurrent(model: onnx.ModelProto, layers: Sequence[Any], opset: int) -> None:
    """Replace the nodes that stand for `layers`, in place."""
    values = {item.name: item for item in model.graph.initializer}
    values |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    e = Emitter("recurrent__", opset=opset)
    done: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.domain != DOMAIN:
            done.append(node)
            continue
        number = int(numpy_helper.to_array(values[node.input[3]]).reshape(-1)[0])
        _write(e, node, layers[number])
        done += e.nodes
        e.nodes.clear()
    del model.graph.node[:]
    model.graph.node.extend(done)
    model.graph.initializer.extend(e.weights)
    pruned(model.graph)
    kept = [item for item in model.opset_import if item.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _write(e: Emitter, node: onnx.NodeProto, layer: Any) -> None:
    """X (time, N, in) and h (1, N, units) → all outputs (time, N, units) and the last."""
    cell, units = layer.cell, int(layer.cell.units)
    gates = 3 if type(layer).__name__ == "GRU" else 1
    kernel, inner = (np.asarray(item, np.float32) for item in (cell.kernel, cell.recurrent_kernel))
    bias = np.zeros((2, gates * units), np.float32)
    if cell.use_bias:
        given = np.asarray(cell.bias, np.float32)
        bias[: given.ndim] = given  # with reset_after there is one for the input and one for the state
    inputs = [
        node.input[0],
        e.constant(kernel.T[None]),
        e.constant(inner.T[None]),
        e.constant(bias.reshape(1, -1)),
        "",
        node.input[1],
    ]
    direction = "reverse" if layer.go_backwards else "forward"
    more = {"linear_before_reset": int(cell.reset_after)} if gates == 3 else {}
    every = e.fresh("every")
    e.ops(
        "GRU" if gates == 3 else "RNN",
        *inputs,
        outputs=[every, node.output[1] or e.fresh("last")],
        hidden_size=units,
        direction=direction,
        **more,
    )
    e.op("Squeeze", every, e.constant([1], np.int64), out=node.output[0] or None)
