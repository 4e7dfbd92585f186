"""Every kernel of the C99 target against the tflite-micro wheel, bit for bit, under the sanitizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_agent.serving.serial_client import SerialModel
from edgekit_converters.targets.c99.compiler import compiler
from tests.converters.c99_files import T, file_of, files_of, micro
from tests.converters.c99_host import program, running

pytest.importorskip("tflite_micro", reason="the tflite-micro wheel is not installed")
pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler is installed")

RNG = np.random.default_rng(7)
SAME, VALID, RELU, RELU1, RELU6 = 0, 1, 1, 2, 3


def ints(*shape: int, low: int = -128, high: int = 128) -> Any:
    return RNG.integers(low, high, shape).astype(np.int8)


def spread(n: int, around: float) -> list[float]:
    return [float(x) for x in around * RNG.uniform(0.3, 3.0, n).astype(np.float32)]


def convolution(
    weights: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], **options: Any
) -> bytes:
    """A CONV_2D, or a depthwise one when the weights begin with 1 and `depth` is given."""
    depth = options.pop("depthMultiplier", 0)
    axis, channels = (3, weights[3]) if depth else (0, weights[0])
    common = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, **options}
    if depth:
        common["depthMultiplier"] = depth
    many = options.pop("perTensor", None) is None
    common.pop("perTensor", None)
    scales = spread(channels, 0.01) if many else [0.01]
    bias = RNG.integers(-2000, 2000, channels).astype(np.int32)
    return file_of(
        "DEPTHWISE_CONV_2D" if depth else "CONV_2D",
        [
            T(shape=source, scale=0.07, zero=-11),
            T(shape=weights, scale=scales, axis=axis, data=ints(*weights, low=-127)),
            T(shape=(channels,), dtype=np.int32, scale=[0.07 * s for s in scales], data=bias),
        ],
        [T(shape=target, scale=0.1, zero=5)],
        common,
    )


def dense(rows: int, inner: int, outer: int, scales: Sequence[float], **options: Any) -> bytes:
    return file_of(
        "FULLY_CONNECTED",
        [
            T(shape=(rows, inner), scale=0.03, zero=9),
            T(shape=(outer, inner), scale=scales, data=ints(outer, inner, low=-127)),
            T(
                shape=(outer,),
                dtype=np.int32,
                scale=[0.03 * s for s in scales],
                data=RNG.integers(-500, 500, outer),
            ),
        ],
        [T(shape=(rows, outer), scale=0.11, zero=-20)],
        options,
    )


def pool(kind: str, padding: int, activation: int = 0) -> bytes:
    target = (1, 4, 3, 3) if padding == SAME else (1, 3, 2, 3)
    options = {"filterHeight": 3, "filterWidth": 3, "strideH": 2, "strideW": 2, "padding": padding}
    ends = (T(shape=(1, 7, 6, 3), scale=0.05, zero=-20), T(shape=target, scale=0.05, zero=-20))
    return file_of(kind, ends[:1], ends[1:], {**options, "fusedActivationFunction": activation})


def pair(
    kind: str, one: tuple[int, ...], other: tuple[int, ...], activation: int = 0, constant: bool = False
) -> bytes:
    data = ints(*other) if constant else None
    target = tuple(np.broadcast_shapes(one, other))
    return file_of(
        kind,
        [T(shape=one, scale=0.043, zero=12), T(shape=other, scale=0.11, zero=-37, data=data)],
        [T(shape=target, scale=0.09, zero=3)],
        {"fusedActivationFunction": activation},
    )


def unary(kind: str, scale: float, zero: int, out: tuple[float, int], **options: Any) -> bytes:
    ends = [T(shape=(1, 256), scale=scale, zero=zero), T(shape=(1, 256), scale=out[0], zero=out[1])]
    return file_of(kind, ends[:1], ends[1:], options)


def moved(
    kind: str, source: tuple[int, ...], target: tuple[int, ...], *constants: Any, **options: Any
) -> bytes:
    extra = [
        T(shape=np.shape(c), dtype=np.int32, scale=None, data=np.asarray(c, np.int32)) for c in constants
    ]
    return file_of(kind, [T(shape=source, zero=7), *extra], [T(shape=target, zero=7)], options)


def mean(source: tuple[int, ...], axes: Sequence[int], keep: bool) -> bytes:
    kept = tuple(1 if a in axes else s for a, s in enumerate(source) if keep or a not in axes)
    axis = T(shape=(len(axes),), dtype=np.int32, scale=None, data=np.asarray(axes, np.int32))
    ends = [T(shape=source, scale=0.05, zero=-30), axis], [T(shape=kept, scale=0.031, zero=4)]
    return file_of("MEAN", *ends, {"keepDims": keep})


CASES: Mapping[str, bytes] = {
    "conv_same_stride_2": convolution(
        (5, 3, 3, 4), (1, 7, 6, 4), (1, 4, 3, 5), strideH=2, strideW=2, padding=SAME
    ),
    "conv_valid_relu": convolution(
        (5, 2, 3, 4), (1, 7, 6, 4), (1, 6, 4, 5), padding=VALID, fusedActivationFunction=RELU
    ),
    "conv_dilated_relu6": convolution(
        (3, 3, 3, 2),
        (1, 8, 8, 2),
        (1, 8, 8, 3),
        dilationHFactor=2,
        dilationWFactor=2,
        padding=SAME,
        fusedActivationFunction=RELU6,
    ),
    "conv_in_groups": convolution((6, 3, 3, 2), (1, 5, 5, 4), (1, 5, 5, 6), padding=SAME),
    "conv_one_scale": convolution((4, 1, 1, 8), (2, 3, 3, 8), (2, 3, 3, 4), padding=VALID, perTensor=True),
    "depthwise_same": convolution((1, 3, 3, 6), (1, 6, 5, 6), (1, 6, 5, 6), padding=SAME, depthMultiplier=1),
    "depthwise_twice_stride_2": convolution(
        (1, 3, 3, 6), (1, 6, 5, 3), (1, 3, 3, 6), padding=SAME, strideH=2, strideW=2, depthMultiplier=2
    ),
    "depthwise_dilated": convolution(
        (1, 3, 3, 4),
        (1, 9, 9, 4),
        (1, 5, 5, 4),
        padding=VALID,
        dilationHFactor=2,
        dilationWFactor=2,
        depthMultiplier=1,
    ),
    "dense_one_scale": dense(3, 20, 7, [0.013]),
    "dense_relu_per_channel": dense(1, 33, 5, spread(5, 0.02), fusedActivationFunction=RELU),
    "average_same": pool("AVERAGE_POOL_2D", SAME),
    "average_valid_relu": pool("AVERAGE_POOL_2D", VALID, RELU),
    "largest_same": pool("MAX_POOL_2D", SAME),
    "largest_valid_relu6": pool("MAX_POOL_2D", VALID, RELU6),
    "add": pair("ADD", (1, 5, 4, 3), (1, 5, 4, 3)),
    "add_relu_of_a_row": pair("ADD", (1, 5, 4, 3), (3,), RELU),
    "add_to_a_constant": pair("ADD", (1, 4, 4, 2), (1, 1, 1, 2), constant=True),
    "sub": pair("SUB", (1, 5, 4, 3), (1, 5, 4, 3)),
    "sub_of_a_column": pair("SUB", (1, 1, 4, 1), (1, 5, 4, 3)),
    "mul": pair("MUL", (1, 5, 4, 3), (1, 5, 4, 3), RELU1),
    "mul_of_channels": pair("MUL", (1, 5, 4, 3), (1, 1, 1, 3)),
    "relu": unary("RELU", 0.05, -20, (0.03, -128)),
    "relu6": unary("RELU6", 0.05, -20, (0.05, -20)),
    "leaky_relu": unary("LEAKY_RELU", 0.05, 11, (0.043, -5), alpha=0.1),
    "hard_swish": unary("HARD_SWISH", 0.05, -13, (0.04, -118)),
    "hard_swish_wide": unary("HARD_SWISH", 0.31, 20, (0.16, -124)),
    "hard_swish_narrow": unary("HARD_SWISH", 0.004, 0, (0.003, -40)),
    "logistic": unary("LOGISTIC", 0.061, 13, (1 / 256, -128)),
    "logistic_coarse": unary("LOGISTIC", 0.31, -60, (1 / 256, -128)),
    "tanh": unary("TANH", 0.023, 5, (1 / 128, 0)),
    "requantize": unary("QUANTIZE", 0.05, -20, (0.083, 17)),
    "softmax": file_of(
        "SOFTMAX",
        [T(shape=(4, 13), scale=0.11, zero=3)],
        [T(shape=(4, 13), scale=1 / 256, zero=-128)],
        {"beta": 1.0},
    ),
    "softmax_steep": file_of(
        "SOFTMAX", [T(shape=(3, 9), scale=0.9)], [T(shape=(3, 9), scale=1 / 256, zero=-128)], {"beta": 1.5}
    ),
    "mean_of_a_plane": mean((1, 7, 5, 6), (1, 2), False),
    "mean_of_channels": mean((1, 4, 3, 9), (3,), True),
    "pad": moved("PAD", (1, 3, 4, 2), (1, 6, 5, 2), [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "transpose": moved("TRANSPOSE", (2, 3, 4, 5), (4, 2, 5, 3), [2, 0, 3, 1]),
    "slice": moved("SLICE", (1, 6, 5, 4), (1, 3, 2, 4), [0, 2, 1, 0], [1, 3, 2, 4]),
    "maximum": file_of("MAXIMUM", [T(shape=(1, 4, 3)), T(shape=(1, 4, 3))], [T(shape=(1, 4, 3))], {}),
    "minimum_of_a_row": file_of(
        "MINIMUM", [T(shape=(1, 4, 3), zero=9), T(shape=(3,), zero=9)], [T(shape=(1, 4, 3), zero=9)], {}
    ),
    "slice_in_steps": moved(
        "STRIDED_SLICE",
        (1, 7, 6, 4),
        (1, 3, 2, 4),
        [0, 1, 5, 0],
        [0, 6, 1, 0],
        [1, 2, -2, 1],
        beginMask=9,
        endMask=9,
    ),
    "slice_that_drops_an_axis": moved(
        "STRIDED_SLICE", (2, 3, 4), (2, 4), [0, 2, 0], [2, 3, 4], [1, 1, 1], shrinkAxisMask=2
    ),
    "nearest_twice_and_thrice": moved("RESIZE_NEAREST_NEIGHBOR", (1, 3, 4, 5), (1, 6, 12, 5), [6, 12]),
    "nearest_half_pixels": moved(
        "RESIZE_NEAREST_NEIGHBOR", (1, 2, 3, 2), (1, 6, 6, 2), [6, 6], halfPixelCenters=True
    ),
    "reshape": moved("RESHAPE", (1, 6, 4), (1, 24), [1, 24]),
    "concatenation": file_of(
        "CONCATENATION",
        [T(shape=(1, 3, 2), zero=4), T(shape=(1, 3, 5), zero=4)],
        [T(shape=(1, 3, 7), zero=4)],
        {"axis": -1},
    ),
    "split": file_of(
        "SPLIT",
        [T(shape=(), dtype=np.int32, scale=None, data=np.int32(2)), T(shape=(1, 2, 6))],
        [T(shape=(1, 2, 3)), T(shape=(1, 2, 3))],
        {"numSplits": 2},
    ),
    "floats_at_both_ports": files_of(
        [("QUANTIZE", [0], None), ("RELU", [-1], None), ("DEQUANTIZE", [-2], None)],
        [T(shape=(1, 64), dtype=np.float32, scale=None)],
        [
            T(shape=(1, 64), zero=-4),
            T(shape=(1, 64), zero=-4),
            T(shape=(1, 64), dtype=np.float32, scale=None),
        ],
    ),
    "unsigned_ports": files_of(
        [("QUANTIZE", [0], None), ("RELU", [-1], None), ("QUANTIZE", [-2], None)],
        [T(shape=(1, 256), dtype=np.uint8, zero=120)],
        [T(shape=(1, 256), zero=-8), T(shape=(1, 256), zero=-8), T(shape=(1, 256), dtype=np.uint8, zero=120)],
    ),
    "a_result_used_twice": files_of(
        [("RELU", [0], None), ("ADD", [-1, 0], {}), ("MUL", [-2, -1], {})],
        [T(shape=(1, 40), scale=0.06, zero=9)],
        [
            T(shape=(1, 40), scale=0.05, zero=-100),
            T(shape=(1, 40), scale=0.1),
            T(shape=(1, 40), scale=0.2, zero=-30),
        ],
    ),
}


def sample(port: Any) -> Any:
    if port.dtype == "float32":
        return RNG.normal(0, 3, port.shape).astype(np.float32)
    limits = np.iinfo(port.dtype)
    if np.prod(port.shape) == 256:
        return RNG.permutation(np.arange(limits.min, limits.max + 1)).astype(port.dtype).reshape(port.shape)
    return RNG.integers(limits.min, limits.max + 1, port.shape).astype(port.dtype)


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_gives_the_wheels_bits(name: str, tmp_path: Path) -> None:
    binary, _ = program(CASES[name], tmp_path)
    with running(binary) as line:
        device = SerialModel(line, timeout=10)
        about = device.description
        samples = [[sample(port) for port in about.inputs] for _ in range(6)]
        truth = micro(CASES[name], samples, len(about.outputs))
        for given, wanted in zip(samples, truth, strict=True):
            got = device.raw({port.name: x for port, x in zip(about.inputs, given, strict=True)})
            for port, value in zip(about.outputs, wanted, strict=True):
                np.testing.assert_array_equal(got[port.name], value.reshape(port.shape))
