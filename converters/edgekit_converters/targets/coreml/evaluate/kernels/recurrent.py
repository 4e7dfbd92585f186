"""rnn, gru and lstm.

Sequences are (time, batch, features). One direction gives its states in the order in which it computed
them, so ``reverse`` begins with the last element; a bidirectional lstm gives both in the input's order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit_converters.targets.coreml.evaluate.kernels.activation import activate
from edgekit_converters.targets.coreml.evaluate.kernels.registry import Array, kernel, unsupported

_Pair = tuple[Array, Array]


def _in_order(x: Array, direction: str) -> Array:
    if direction not in ("forward", "reverse"):
        raise unsupported("recurrent op", f"direction {direction!r}")
    return x if direction == "forward" else x[::-1]


def _all_or_last(states: list[Array], whole: object) -> Array:
    return np.stack(states if bool(whole) else states[-1:])


@kernel("rnn")
def _rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    direction: str,
    output_sequence: Array,
    activation: str,
    bias: Array | None = None,
) -> _Pair:
    h, states = initial_h, []
    for item in _in_order(x, direction):
        total = item @ weight_ih.T + h @ weight_hh.T
        h = activate(activation, total if bias is None else total + bias)
        states.append(h)
    return _all_or_last(states, output_sequence), h


@kernel("gru")
def _gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    direction: str,
    output_sequence: Array,
    recurrent_activation: str,
    activation: str,
    bias: Array | None = None,
    input_bias: Array | None = None,
    reset_after: object = False,
) -> _Pair:
    """Gates in the order reset, output, update; the reset is on the state unless `reset_after`."""
    none = np.zeros(weight_hh.shape[0], np.float32)
    outer = none if input_bias is None else input_bias
    inner = none if bias is None else bias
    (w_r, w_o, w_z), (r_r, r_o, r_z) = np.split(weight_ih, 3), np.split(weight_hh, 3)
    (a_r, a_o, a_z), (b_r, b_o, b_z) = np.split(outer, 3), np.split(inner, 3)
    h, states = initial_h, []
    for item in _in_order(x, direction):
        r = activate(recurrent_activation, item @ w_r.T + h @ r_r.T + a_r + b_r)
        z = activate(recurrent_activation, item @ w_z.T + h @ r_z.T + a_z + b_z)
        held = r * (h @ r_o.T + b_o) if bool(reset_after) else (r * h) @ r_o.T + b_o
        o = activate(activation, item @ w_o.T + a_o + held)
        h = (1 - z) * o + z * h
        states.append(h)
    return _all_or_last(states, output_sequence), h


@kernel("lstm")
def _lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    direction: str,
    output_sequence: Array,
    recurrent_activation: str,
    cell_activation: str,
    activation: str,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    clip: Array | None = None,
) -> tuple[Array, Array, Array]:
    names = (recurrent_activation, cell_activation, activation)
    step = _cell(weight_ih, weight_hh, bias, peephole, clip, names)
    if direction != "bidirectional":
        states, h, c = _through(step, _in_order(x, direction), initial_h, initial_c)
        return _all_or_last(states, output_sequence), h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise unsupported("lstm", "no weights for the second direction")
    size = weight_hh.shape[1]
    back = _cell(weight_ih_back, weight_hh_back, bias_back, peephole_back, clip, names)
    first = _through(step, x, initial_h[:, :size], initial_c[:, :size])
    second = _through(back, x[::-1], initial_h[:, size:], initial_c[:, size:])
    last = [np.concatenate([a, b], axis=-1) for a, b in zip(first[1:], second[1:], strict=True)]
    if not bool(output_sequence):
        return last[0][None], last[0], last[1]
    both = [np.stack(first[0]), np.stack(second[0][::-1])]
    return np.concatenate(both, axis=-1), last[0], last[1]


def _through(
    step: Callable[[Array, Array, Array], _Pair], x: Array, h: Array, c: Array
) -> tuple[list[Array], Array, Array]:
    states = []
    for item in x:
        h, c = step(item, h, c)
        states.append(h)
    return states, h, c


def _cell(
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    peephole: Array | None,
    clip: Array | None,
    names: tuple[str, str, str],
) -> Callable[[Array, Array, Array], _Pair]:
    """One time step of one direction. Gates: input, forget, output, cell; `clip` bounds the cell state."""
    gate, cell, out = names
    size = weight_hh.shape[1]
    p_i, p_f, p_o = np.split(np.zeros(3 * size, np.float32) if peephole is None else peephole, 3)

    def step(x: Array, h: Array, c: Array) -> _Pair:
        total = x @ weight_ih.T + h @ weight_hh.T
        i, f, o, z = np.split(total if bias is None else total + bias, 4, axis=-1)
        fresh = activate(gate, i + p_i * c) * activate(cell, z)
        c = activate(gate, f + p_f * c) * c + fresh
        c = c if clip is None else np.clip(c, -clip, clip)
        return activate(gate, o + p_o * c) * activate(out, c), c

    return step
