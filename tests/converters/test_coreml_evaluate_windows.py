"""Convolutions, poolings and recurrent ops of the Core ML evaluator beside onnxruntime's."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from edgekit_converters.errors import Refusal
from tests.converters.graphs import Array
from tests.converters.mil_kernels import onnx_op, run
from tests.converters.mil_packages import drawn

_AUTO = {"valid": "VALID", "same": "SAME_UPPER", "same_lower": "SAME_LOWER"}


def _pads(pad: list[int]) -> list[int]:
    return [*pad[0::2], *pad[1::2]]


_CONVOLUTIONS = [
    (rank, groups, pad_type, stride, dilation)
    for rank, groups, pad_type, (stride, dilation) in product(
        (1, 2, 3), (1, 2, 4), ("valid", "same", "same_lower", "custom"), ((1, 1), (2, 1), (1, 2), (3, 2))
    )
    if dilation == 1 or not pad_type.startswith("same")  # onnxruntime has no auto_pad with dilation
]


@pytest.mark.parametrize(("rank", "groups", "pad_type", "stride", "dilation"), _CONVOLUTIONS)
def test_a_convolution_is_that_of_onnxruntime(
    rank: int, groups: int, pad_type: str, stride: int, dilation: int
) -> None:
    sizes = (11, 9, 7)[:rank]
    kernel = (3, 2, 3)[:rank]
    x, weight, bias = drawn(2, 4, *sizes), drawn(8, 4 // groups, *kernel, seed=1), drawn(8, seed=2)
    pad = [1, 2, 0, 1, 2, 2][: 2 * rank]
    padding = {"pads": _pads(pad)} if pad_type == "custom" else {"auto_pad": _AUTO[pad_type]}
    wanted = onnx_op(
        "Conv", x, weight, bias, strides=[stride] * rank, dilations=[dilation] * rank, group=groups, **padding
    )
    found = run(
        "conv",
        x=x,
        weight=weight,
        bias=bias,
        strides=[stride] * rank,
        pad_type=pad_type,
        pad=pad,
        dilations=[dilation] * rank,
        groups=groups,
    )
    np.testing.assert_allclose(found, wanted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("pad_type", "extra"), [("valid", 0), ("custom", 0), ("custom", 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2)])
def test_a_transposed_convolution_is_that_of_onnxruntime(
    rank: int, groups: int, pad_type: str, extra: int, stride: int, dilation: int
) -> None:
    extra = extra if stride > 1 else 0
    x, kernel = drawn(2, 4, *(5, 4, 3)[:rank]), (3, 2, 3)[:rank]
    weight, bias = drawn(4, 6 // groups, *kernel, seed=1), drawn(6, seed=2)
    pad = [1, 0, 1, 1, 0, 1][: 2 * rank] if pad_type == "custom" else [0] * 2 * rank
    wanted = onnx_op(
        "ConvTranspose",
        x,
        weight,
        bias,
        strides=[stride] * rank,
        dilations=[dilation] * rank,
        group=groups,
        pads=_pads(pad),
        output_padding=[extra] * rank,
    )[0]
    found = run(
        "conv_transpose",
        x=x,
        weight=weight,
        bias=bias,
        strides=[stride] * rank,
        pad_type=pad_type,
        pad=pad,
        dilations=[dilation] * rank,
        groups=groups,
        output_shape=np.array(wanted.shape) if extra else None,
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_with_same_padding_gives_size_times_stride() -> None:
    found = run(
        "conv_transpose",
        x=drawn(1, 2, 5, 4),
        weight=drawn(2, 3, 3, 3, seed=1),
        strides=[2, 2],
        pad_type="same",
        pad=[0, 0, 0, 0],
        dilations=[1, 1],
        groups=1,
    )
    assert found.shape == (1, 3, 10, 8)


_POOLINGS = [
    (rank, kind, pad_type, ceil, kernel, stride)
    for rank, kind, (pad_type, ceil), (kernel, stride) in product(
        (1, 2, 3),
        ("max", "include", "exclude"),
        (("valid", 0), ("custom", 0), ("custom", 1), ("valid", 1), ("same", 0)),
        ((2, 2), (3, 2), (3, 1)),
    )
    # Of padding that it makes itself, ONNX counts none, MIL all.
    if kind != "include" or (pad_type != "same" and not ceil)
]


@pytest.mark.parametrize(("rank", "kind", "pad_type", "ceil", "kernel", "stride"), _POOLINGS)
def test_a_pooling_is_that_of_onnxruntime(
    rank: int, kind: str, pad_type: str, ceil: int, kernel: int, stride: int
) -> None:
    x, pad = drawn(2, 3, *(11, 8, 6)[:rank]), [1] * 2 * rank
    shared: dict[str, Any] = {"kernel_shape": [kernel] * rank, "strides": [stride] * rank, "ceil_mode": ceil}
    shared |= {"pads": _pads(pad)} if pad_type == "custom" else {"auto_pad": _AUTO[pad_type]}
    arguments = {
        "x": x,
        "kernel_sizes": [kernel] * rank,
        "strides": [stride] * rank,
        "pad_type": pad_type,
        "pad": pad,
        "ceil_mode": bool(ceil),
    }
    if kind == "max":
        wanted, found = onnx_op("MaxPool", x, **shared)[0], run("max_pool", **arguments)
    else:
        wanted = onnx_op("AveragePool", x, count_include_pad=int(kind == "include"), **shared)[0]
        found = run("avg_pool", **arguments, exclude_padding_from_average=kind == "exclude")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_sticks_out_in_ceil_mode_counts_as_padding_as_core_ml_measured_it() -> None:
    """Core ML's output in coremltools' pull request #2844, where PyTorch has 9.5 in the corner."""
    x = np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)
    shared: dict[str, Any] = {"kernel_sizes": [2, 2], "strides": [3, 3], "pad_type": "valid", "pad": [0] * 4}
    found = run("avg_pool", x=x, **shared, ceil_mode=True, exclude_padding_from_average=False)
    assert found[0, 0].tolist() == [[4, 7, 4.75], [25, 28, 15.25], [21.25, 22.75, 12]]
    found = run("avg_pool", x=x, **shared, ceil_mode=True, exclude_padding_from_average=True)
    assert found[0, 0].tolist() == [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]]


def test_a_window_with_uneven_padding_and_ceil_mode_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        run(
            "max_pool",
            x=drawn(1, 1, 5),
            kernel_sizes=[2],
            strides=[2],
            pad_type="custom",
            pad=[0, 1],
            ceil_mode=True,
        )
    assert caught.value.code == "undefined_behaviour"


def _gates(weight: Array, order: tuple[int, ...]) -> Array:
    parts = np.split(weight, len(order))
    return np.concatenate([parts[i] for i in order])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("whole", [True, False])
def test_an_lstm_with_peepholes_is_that_of_onnxruntime(direction: str, whole: bool) -> None:
    time, batch, width, size, two = 5, 2, 3, 4, 2 if direction == "bidirectional" else 1
    x = drawn(time, batch, width)
    w, r = drawn(two, 4 * size, width, seed=1), drawn(two, 4 * size, size, seed=2)
    b, p = drawn(two, 8 * size, seed=3), drawn(two, 3 * size, seed=4)
    h, c = drawn(two, batch, size, seed=5), drawn(two, batch, size, seed=6)
    y, y_h, y_c = onnx_op("LSTM", x, w, r, b, None, h, c, p, outputs=3, direction=direction, hidden_size=size)
    # ONNX: input, output, forget, cell; peepholes input, output, forget. MIL: input, forget, output, cell.
    parts = []
    for way in range(two):
        bias = b[way, : 4 * size] + b[way, 4 * size :]
        mapped = [_gates(item, (0, 2, 1, 3)) for item in (w[way], r[way], bias)]
        parts.append([*mapped, _gates(p[way], (0, 2, 1))])
    back = dict(
        zip(("weight_ih_back", "weight_hh_back", "bias_back", "peephole_back"), parts[-1], strict=True)
    )
    found = run(
        "lstm",
        x=x,
        initial_h=np.concatenate(list(h), axis=-1),
        initial_c=np.concatenate(list(c), axis=-1),
        weight_ih=parts[0][0],
        weight_hh=parts[0][1],
        bias=parts[0][2],
        peephole=parts[0][3],
        direction=direction,
        output_sequence=whole,
        recurrent_activation="sigmoid",
        cell_activation="tanh",
        activation="tanh",
        **(back if two == 2 else {}),
    )
    full = np.concatenate([y[:, way] for way in range(two)], axis=-1)
    if direction == "reverse":
        full = full[::-1]  # MIL gives the states of one direction in the order in which it computed them
    last = np.concatenate(list(y_h), axis=-1)
    np.testing.assert_allclose(found[0], full if whole else last[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], last, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[2], np.concatenate(list(y_c), axis=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [False, True])
def test_a_gru_with_the_reset_before_and_after_is_that_of_onnxruntime(after: bool) -> None:
    time, batch, width, size = 4, 1, 3, 5
    x, h = drawn(time, batch, width), drawn(1, batch, size, seed=5)
    w, r = drawn(1, 3 * size, width, seed=1), drawn(1, 3 * size, size, seed=2)
    b = drawn(1, 6 * size, seed=3)
    y, y_h = onnx_op("GRU", x, w, r, b, None, h, outputs=2, hidden_size=size, linear_before_reset=int(after))
    order = (1, 2, 0)  # ONNX: update, reset, hidden. MIL: reset, hidden, update.
    outer, inner = (_gates(item, order) for item in (b[0, : 3 * size], b[0, 3 * size :]))
    found = run(
        "gru",
        x=x,
        initial_h=h[0],
        weight_ih=_gates(w[0], order),
        weight_hh=_gates(r[0], order),
        direction="forward",
        output_sequence=True,
        recurrent_activation="sigmoid",
        activation="tanh",
        bias=inner,
        input_bias=outer,
        reset_after=after,
    )
    np.testing.assert_allclose(found[0], y[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], y_h[0], rtol=1e-4, atol=1e-5)


def test_an_rnn_is_that_of_onnxruntime() -> None:
    x, h = drawn(4, 2, 3), drawn(1, 2, 5, seed=5)
    w, r, b = drawn(1, 5, 3, seed=1), drawn(1, 5, 5, seed=2), drawn(1, 10, seed=3)
    y, y_h = onnx_op("RNN", x, w, r, b, None, h, outputs=2, hidden_size=5)
    found = run(
        "rnn",
        x=x,
        initial_h=h[0],
        weight_ih=w[0],
        weight_hh=r[0],
        bias=b[0, :5] + b[0, 5:],
        direction="forward",
        output_sequence=True,
        activation="tanh",
    )
    np.testing.assert_allclose(found[0], y[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], y_h[0], rtol=1e-4, atol=1e-5)
