"""Kernels of the Core ML evaluator beside the values that coremltools itself infers for constant inputs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from edgekit_converters.targets.coreml.evaluate.half import rounded
from edgekit_converters.targets.coreml.evaluate.kernels import KERNELS
from tests.converters.graphs import Array
from tests.converters.mil_packages import coremltools, drawn, quiet

X = drawn(2, 3, 4)
POSITIVE = np.abs(X) + 0.5
WHOLE = np.random.default_rng(1).integers(-9, 9, (2, 3, 4)).astype(np.int32)
NONZERO = np.where(WHOLE == 0, 3, WHOLE).astype(np.int32)
TRUTH = WHOLE > 0
IMAGE = drawn(2, 8, 4, 6)
F, I = np.float32, np.int32  # noqa: E741  # as MIL writes them

_FLOAT_UNARY = (
    *("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "relu", "relu6", "round"),
    *("sigmoid", "sign", "sin", "sinh", "softplus", "softsign", "square", "tan", "tanh", "softmax"),
)
_BINARY = ("add", "sub", "mul", "maximum", "minimum", "floor_div", "mod", "equal", "not_equal")
_COMPARED = ("greater", "greater_equal", "less", "less_equal", "real_div")
_REDUCED = ("reduce_max", "reduce_min", "reduce_sum", "reduce_prod", "reduce_sum_square", "reduce_l1_norm")
_ROOTS = ("reduce_mean", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp")

CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {"x": X * 3}) for kind in _FLOAT_UNARY),
    *((kind, {"x": np.clip(X, -0.9, 0.9)}) for kind in ("acos", "asin", "atanh")),
    *((kind, {"x": POSITIVE}) for kind in ("sqrt", "rsqrt", "log", "inverse")),
    *((kind, {"x": WHOLE}) for kind in ("abs", "sign", "square")),
    *((kind, {"x": X, "y": drawn(3, 1, seed=5)}) for kind in (*_BINARY, *_COMPARED)),
    *((kind, {"x": WHOLE, "y": NONZERO[:1]}) for kind in (*_BINARY, *_COMPARED[:-1])),
    ("pow", {"x": POSITIVE, "y": drawn(4, seed=6)}),
    ("pow", {"x": NONZERO, "y": np.abs(WHOLE) % 4}),
    *((kind, {"x": TRUTH, "y": TRUTH[::-1]}) for kind in ("logical_and", "logical_or", "logical_xor")),
    ("logical_not", {"x": TRUTH}),
    ("select", {"cond": TRUTH, "a": X, "b": -X}),
    ("clip", {"x": X, "alpha": F(-0.3), "beta": F(0.4)}),
    ("threshold", {"x": X, "alpha": F(0.2)}),
    ("thresholded_relu", {"x": X, "alpha": F(0.2)}),
    ("clamped_relu", {"x": X, "alpha": F(0.2), "beta": F(0.7)}),
    ("elu", {"x": X, "alpha": F(0.7)}),
    ("leaky_relu", {"x": X, "alpha": F(0.1)}),
    ("linear_activation", {"x": X, "alpha": F(2), "beta": F(0.5)}),
    ("prelu", {"x": X, "alpha": np.full(3, 0.3, F)}),
    ("scaled_tanh", {"x": X, "alpha": F(1.5), "beta": F(0.5)}),
    ("sigmoid_hard", {"x": X * 4, "alpha": F(0.2), "beta": F(0.5)}),
    ("softplus_parametric", {"x": X, "alpha": drawn(3, seed=7), "beta": drawn(3, seed=8)}),
    ("gelu", {"x": X, "mode": "EXACT"}),
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}),
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}),
    ("softmax", {"x": X, "axis": 1}),
    *(("cast", {"x": X * 3, "dtype": kind}) for kind in ("int32", "fp32", "bool")),
    ("cast", {"x": WHOLE, "dtype": "fp32"}),
    *((kind, {"x": X, "axes": [1, -1], "keep_dims": True}) for kind in (*_REDUCED, *_ROOTS[:2])),
    *((kind, {"x": POSITIVE, "axes": [2], "keep_dims": False}) for kind in _ROOTS),
    ("reduce_log_sum_exp", {"x": X * 30, "axes": [1], "keep_dims": True}),
    *((kind, {"x": WHOLE, "axes": [0, 2], "keep_dims": False}) for kind in _REDUCED),
    *((kind, {"x": X, "axis": 1, "keep_dims": True}) for kind in ("reduce_argmax", "reduce_argmin")),
    ("cumsum", {"x": X, "axis": 1}),
    ("linear", {"x": X, "weight": drawn(5, 4, seed=2), "bias": drawn(5, seed=3)}),
    ("matmul", {"x": X, "y": drawn(2, 5, 4, seed=2), "transpose_y": True}),
    ("matmul", {"x": X, "y": drawn(3, 5, seed=2), "transpose_x": True}),
    ("einsum", {"values": (IMAGE, drawn(2, 6, 4, 3)), "equation": "nchw,nwhu->nchu"}),
    (
        "layer_norm",
        {"x": X, "axes": [1, 2], "gamma": drawn(3, 4, seed=4), "beta": drawn(3, 4), "epsilon": F(1e-3)},
    ),
    ("l2_norm", {"x": IMAGE, "epsilon": F(1e-3)}),
    ("reshape", {"x": X, "shape": [4, -1]}),
    ("transpose", {"x": X, "perm": [2, 0, -2]}),
    ("expand_dims", {"x": X, "axes": [0, 2]}),
    ("squeeze", {"x": X[:1, :, :1], "axes": [0, -1]}),
    ("flatten2d", {"x": X, "axis": 2}),
    ("concat", {"values": (X, -X), "axis": 1}),
    ("stack", {"values": (X, -X), "axis": 1}),
    ("tile", {"x": X, "reps": [1, 2, 3]}),
    ("reverse", {"x": X, "axes": [0, -1]}),
    ("pad", {"x": X, "pad": [1, 0, 2, 3], "mode": "constant", "constant_val": F(7)}),
    ("pad", {"x": X, "pad": [0, 0, 1, 2, 3, 1], "mode": "reflect"}),
    ("pad", {"x": X, "pad": [0, 0, 1, 2, 3, 1], "mode": "replicate"}),
    ("band_part", {"x": drawn(2, 5, 4), "lower": 1, "upper": 0}),
    ("band_part", {"x": drawn(2, 5, 4), "lower": -1, "upper": 2}),
    ("fill", {"shape": [2, 3], "value": F(1.5)}),
    ("range_1d", {"start": 3, "end": 20, "step": 4}),
    ("range_1d", {"start": F(0.5), "end": F(2.6), "step": F(0.5)}),
    ("shape", {"x": X}),
    ("slice_by_index", {"x": X, "begin": [0, 2, 3], "end": [2, 0, 0], "stride": [1, -1, -2]}),
    (
        "slice_by_index",
        {
            "x": X,
            "begin": [1, 0, -3],
            "end": [0, 2, -1],
            "begin_mask": [False, True, False],
            "end_mask": [False, True, False],
            "squeeze_mask": [True, False, False],
        },
    ),
    ("slice_by_size", {"x": X, "begin": [0, 1, 1], "size": [1, -1, 2]}),
    ("gather", {"x": X, "indices": np.array([[2, 0], [1, 1]], I), "axis": 1}),
    ("gather", {"x": X, "indices": np.array([[2, 0], [1, 1]], I), "axis": 2, "batch_dims": 1}),
    ("gather_along_axis", {"x": X, "indices": np.abs(WHOLE) % 3, "axis": 1}),
    ("argsort", {"x": X, "axis": 1, "ascending": True}),
    ("argsort", {"x": X, "axis": -1, "ascending": False}),
    ("topk", {"x": X, "k": 2, "axis": 1, "ascending": False}),
    ("topk", {"x": X, "k": 3, "axis": 2, "ascending": True}),
    ("non_zero", {"x": WHOLE}),
    ("split", {"x": X, "axis": 2, "split_sizes": [1, 3]}),
    ("split", {"x": X, "axis": -1, "num_splits": 2}),
    ("quantize", {"input": X, "scale": F(0.02), "zero_point": np.int8(3), "output_dtype": "int8"}),
    (
        "quantize",
        {
            "input": X,
            "scale": np.array([0.1, 0.2, 0.3], F),
            "axis": 1,
            "output_dtype": "uint8",
            "zero_point": np.array([128, 1, 9], np.uint8),
        },
    ),
]


@pytest.fixture(scope="module")
def mb() -> Any:
    """The builder, which infers the value of an op whose inputs are constants."""
    coremltools()
    from coremltools.converters.mil.mil import Builder

    return Builder


def _inferred(mb: Any, kind: str, arguments: dict[str, Any]) -> tuple[list[Array], dict[str, Any]]:
    """Values of the outputs, and the op's inputs with its defaults."""
    from coremltools import target
    from coremltools.converters.mil.mil import Function

    with quiet(), Function({}, opset_version=target.iOS18):
        made = getattr(mb, kind)(**deepcopy(arguments))  # some inferences write into their inputs
        outputs = list(made) if isinstance(made, list | tuple) else [made]
        op = outputs[0].op
        full = {
            name: tuple(v.val for v in item) if isinstance(item, list | tuple) else item.val
            for name, item in op.inputs.items()
            if item is not None and not name.startswith("_")
        }
    return [np.asarray(item.val) for item in outputs], full


@pytest.mark.parametrize(("kind", "arguments"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_a_kernel_computes_what_coremltools_infers(mb: Any, kind: str, arguments: dict[str, Any]) -> None:
    wanted, full = _inferred(mb, kind, arguments)
    assert all(item.dtype != np.object_ for item in wanted), "coremltools infers nothing here"
    given = {name: item if isinstance(item, str | tuple) else np.asarray(item) for name, item in full.items()}
    found = KERNELS[kind].function(**given)
    outputs = found if isinstance(found, tuple) else (found,)
    assert len(outputs) == len(wanted)
    for mine, theirs in zip(outputs, wanted, strict=True):
        assert np.shape(mine) == np.shape(theirs)
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-6)


def test_every_op_of_the_reference_has_a_kernel_or_a_reason(mb: Any) -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    control = {"cond", "while_loop", "const", "_const_symbolic"}
    refused = {"conv_quantized", "read_state"}
    random = {name for name in SSAOpRegistry.core_ops if name.startswith("random_")}
    assert set(SSAOpRegistry.core_ops) - set(KERNELS) == control | refused | random


def test_halves_are_rounded_as_the_processor_rounds_them() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (
        np.random.default_rng(3).integers(0, 1 << 32, 400_000, np.uint32, endpoint=False).view(np.float32)
    )
    ties = (np.arange(1 << 19, dtype=np.uint32) << np.uint32(12) | np.uint32(0x30000000)).view(np.float32)
    edges = np.array([[65519.996, 65520.0, -0.0, 2e-8, 6e-8, -3e-5]], np.float32)
    for values in (every, between, ties, edges):
        with np.errstate(all="ignore"):
            wanted, found = values.astype(np.float16).astype(np.float32), rounded(values)
        assert found.shape == values.shape
        same = found.view(np.uint32) == wanted.view(np.uint32)
        assert np.all(same | (np.isnan(found) & np.isnan(wanted)))
