"""Ops between QuantizeLinear and DequantizeLinear run on integers, one step of the grid away at most."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit_converters import hub
from edgekit_converters.targets.tflite.lower import Options, build
from tests.converters.tflite_ops import floats, parsed

SCALE, ZERO = 0.02, -3
IMAGE = (2, 4, 6, 8)
OWN = (0.03, 5)
SIGMOID, TANH = (1 / 256, -128), (1 / 128, 0)
GRID = (SCALE, ZERO)

# What is computed, shapes of the inputs, constants, grid of the output, the kernel.
CASES = [
    ("Add(d0, d1)", [IMAGE, IMAGE], "", OWN, "ADD"),
    ("Add(d0, d1)", [IMAGE, (4, 1, 1)], "", OWN, "ADD"),
    ("Sub(d0, d1)", [IMAGE, IMAGE], "", OWN, "SUB"),
    ("Mul(d0, d1)", [IMAGE, IMAGE], "", (0.06, 5), "MUL"),
    ("Max(d0, d1)", [IMAGE, IMAGE], "", GRID, "MAXIMUM"),
    ("Relu(d0)", [IMAGE], "", GRID, "RELU"),
    ("Clip(d0, a, b)", [IMAGE], "float a = {0.0}, float b = {6.0}", GRID, "RELU6"),
    ("Clip(d0, a, b)", [IMAGE], "float a = {-1.51}, float b = {0.77}", GRID, "MAXIMUM"),
    ("Sigmoid(d0)", [IMAGE], "", SIGMOID, "LOGISTIC"),
    ("Tanh(d0)", [IMAGE], "", TANH, "TANH"),
    ("LeakyRelu<alpha=0.1>(d0)", [IMAGE], "", OWN, "LEAKY_RELU"),
    ("HardSwish(d0)", [IMAGE], "", OWN, "HARD_SWISH"),
    ("Gelu(d0)", [IMAGE], "", OWN, "GELU"),
    ("Reshape(d0, k)", [IMAGE], "int64[2] k = {0, -1}", GRID, "RESHAPE"),
    ("Transpose<perm=[0,2,3,1]>(d0)", [IMAGE], "", GRID, "TRANSPOSE"),
    ("Concat<axis=1>(d0, d1)", [IMAGE, IMAGE], "", GRID, "CONCATENATION"),
    ("Concat<axis=1>(d0, d1)", [IMAGE, IMAGE], "", OWN, "CONCATENATION"),
    ("Slice(d0, a, b)", [IMAGE], "int64[2] a = {0, 1}, int64[2] b = {1, 3}", GRID, "STRIDED_SLICE"),
    ("Pad(d0, k)", [IMAGE], "int64[8] k = {0, 0, 1, 1, 0, 0, 1, 1}", GRID, "PAD"),
    ("Pad(d0, k, v)", [IMAGE], "int64[8] k = {0, 0, 1, 1, 0, 0, 1, 1}, float v = {1.01}", GRID, "PADV2"),
    ('Pad<mode="reflect">(d0, k)', [IMAGE], "int64[8] k = {0, 0, 1, 1, 0, 0, 1, 1}", GRID, "MIRROR_PAD"),
    ("Gather<axis=1>(d0, k)", [IMAGE], "int64[2] k = {0, -1}", GRID, "GATHER"),
    ("ReduceMean<keepdims=0>(d0, k)", [IMAGE], "int64[2] k = {2, 3}", (0.01, 5), "MEAN"),
    ("ReduceMax(d0, k)", [IMAGE], "int64[1] k = {1}", GRID, "REDUCE_MAX"),
    ("MatMul(d0, d1)", [(2, 3, 4), (2, 4, 5)], "", (0.08, 5), "BATCH_MATMUL"),
    ("Tile(d0, k)", [IMAGE], "int64[4] k = {1, 2, 1, 1}", GRID, "TILE"),
    ("Expand(d0, k)", [(2, 1, 3)], "int64[3] k = {2, 4, 3}", GRID, "BROADCAST_TO"),
    ("DepthToSpace<blocksize=2>(d0)", [IMAGE], "", GRID, "DEPTH_TO_SPACE"),
]


EIGHT_BITS_ONLY = {"HARD_SWISH", "GELU", "REDUCE_MAX", "DEPTH_TO_SPACE"}
"""Kernels without a 16-bit form."""
FIXED = {"LOGISTIC", "TANH"}
"""Kernels whose 16-bit scale is not a fraction of the 8-bit one."""
WIDE = [case for case in CASES if case[-1] not in EIGHT_BITS_ONLY | FIXED]


@pytest.mark.parametrize(
    ("bits", "computed", "shapes", "constants", "grid", "kernel"),
    [*((8, *case) for case in CASES), *((16, *case) for case in WIDE)],
)
def test_the_integers_of_a_kernel_are_one_step_off_at_most(
    bits: int,
    computed: str,
    shapes: list[tuple[int, ...]],
    constants: str,
    grid: tuple[float, int],
    kernel: str,
) -> None:
    scale, zero = (SCALE, ZERO) if bits == 8 else (SCALE / 256, 0)
    out = grid if bits == 8 else (grid[0] / 256, 0)
    ports = ", ".join(f"float[{','.join(map(str, shape))}] x{i}" for i, shape in enumerate(shapes))
    numbers = (
        f"float s = {{{scale}}}, float o = {{{out[0]}}}, int{bits} z = {{{zero}}}, int{bits} p = {{{out[1]}}}"
    )
    into = "".join(
        f"q{i} = QuantizeLinear(x{i}, s, z) d{i} = DequantizeLinear(q{i}, s, z) " for i in range(len(shapes))
    )
    body = f"{into} r = {computed} t = QuantizeLinear(r, o, p) y = DequantizeLinear(t, o, p)"
    model = parsed(
        f"g ({ports}) => (float[] y) <{numbers}{', ' + constants if constants else ''}> {{ {body} }}"
    )
    made = build(hub.canonical(model).model, options=Options(integer_io=False))
    assert made.facts["ops"][kernel] == 1
    assert made.facts["ops"]["DEQUANTIZE"] == 1
    feed = {f"x{i}": floats(*shape, seed=i, low=-2.5, high=2.5) for i, shape in enumerate(shapes)}
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), plain, providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run(None, feed)[0])
    found = Interpreter(model_content=made.data).get_signature_runner()(**feed)["y"]
    assert np.abs(found - wanted).max() <= 1.01 * out[0]
