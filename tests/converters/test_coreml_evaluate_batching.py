"""Many samples at once are each sample alone, op by op, or the op is not run for many samples at once.

Programs of one op are put together here without coremltools: the sample axis of the input is where a case
says, and the rule must either follow it soundly or give up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit_converters.targets.coreml.evaluate.batching import with_free_batch
from edgekit_converters.targets.coreml.evaluate.kernels import KERNELS
from edgekit_converters.targets.coreml.evaluate.program import Block, Program, Step, Value
from edgekit_converters.targets.coreml.evaluate.run import Runner
from tests.converters.graphs import Array
from tests.converters.mil_packages import drawn

_MIL = {"float32": "fp32", "int32": "int32", "bool": "bool", "int8": "int8"}


def _value(number: int, array: Array) -> Value:
    return Value(number=number, name=f"v{number}", dtype=_MIL[array.dtype.name], shape=array.shape)


def _program(kind: str, x: Array, constants: dict[str, Any], feed: str = "x", twice: bool = False) -> Program:
    """`kind` of the input `x` and constants; `twice` hands it two values made of the input."""
    given = {name: np.asarray(v) if not isinstance(v, str) else v for name, v in constants.items()}
    alone = KERNELS[kind].function(**{feed: (x, -x) if twice else x}, **given)
    outputs = alone if isinstance(alone, tuple) else (alone,)
    numbers = {name: 10 + n for n, name in enumerate(given)}
    made = tuple(_value(100 + n, np.asarray(item)) for n, item in enumerate(outputs))
    negative = Step(kind="mul", name="negative", inputs={"x": 0, "y": 9}, outputs=(_value(8, x),))
    step = Step(kind=kind, name=kind, inputs={feed: (0, 8) if twice else 0, **numbers}, outputs=made)
    values = {v.number: v for v in (_value(0, x), _value(8, x), *made)}
    return Program(
        main=Block(
            inputs=(values[0],),
            steps=(negative, step) if twice else (step,),
            outputs=tuple(value.number for value in made),
        ),
        constants={9: np.float32(-1), **{numbers[name]: item for name, item in given.items()}},
        output_names=tuple(value.name for value in made),
        values=values,
    )


IMAGE, SEQUENCE, ROW = (1, 4, 6, 6), (1, 5, 8), (1, 6)
POOL = {"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid", "pad": [0] * 4, "ceil_mode": False}
CONV = {"strides": [1, 1], "pad_type": "same", "pad": [0] * 4, "dilations": [1, 1]}
REDUCE = {"keep_dims": False}

FOLLOWED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("relu", IMAGE, {}),
    ("add", IMAGE, {"y": drawn(4, 1, 1)}),
    ("add", ROW, {"y": drawn(1, 6)}),
    ("softmax", SEQUENCE, {"axis": -1}),
    ("conv", IMAGE, {**CONV, "weight": drawn(3, 4, 3, 3), "groups": 1}),
    ("conv_transpose", IMAGE, {**CONV, "pad_type": "valid", "weight": drawn(4, 3, 2, 2), "groups": 1}),
    ("max_pool", IMAGE, POOL),
    ("avg_pool", IMAGE, {**POOL, "exclude_padding_from_average": False}),
    ("batch_norm", IMAGE, {"mean": drawn(4), "variance": np.ones(4, np.float32), "epsilon": np.float32(1)}),
    ("instance_norm", IMAGE, {"epsilon": np.float32(1)}),
    ("layer_norm", SEQUENCE, {"axes": [1, 2], "epsilon": np.float32(1)}),
    ("l2_norm", IMAGE, {"epsilon": np.float32(1)}),
    ("prelu", IMAGE, {"alpha": drawn(4)}),
    ("reduce_mean", IMAGE, {**REDUCE, "axes": [2, 3]}),
    ("reduce_max", SEQUENCE, {"axes": [-1], "keep_dims": True}),
    ("reduce_argmax", ROW, {**REDUCE, "axis": 1}),
    ("cumsum", SEQUENCE, {"axis": 1, "exclusive": False, "reverse": False}),
    ("linear", SEQUENCE, {"weight": drawn(3, 8)}),
    ("matmul", SEQUENCE, {"y": drawn(8, 3), "transpose_x": False, "transpose_y": False}),
    ("matmul", ROW, {"y": drawn(6, 3), "transpose_x": False, "transpose_y": False}),
    ("matmul", SEQUENCE, {"y": drawn(1, 5, 2), "transpose_x": True, "transpose_y": False}),
    ("reshape", IMAGE, {"shape": np.array([1, -1], np.int32)}),
    ("reshape", SEQUENCE, {"shape": np.array([1, 5, 2, 4], np.int32)}),
    ("reshape", (1, 1, 6), {"shape": np.array([1, 2, 3], np.int32)}),
    ("expand_dims", ROW, {"axes": [1, -1]}),
    ("squeeze", (1, 1, 6, 1), {"axes": [1, 3]}),
    ("flatten2d", IMAGE, {"axis": 1}),
    ("pad", IMAGE, {"pad": [1, 2, 0, 1], "mode": "constant", "constant_val": np.float32(2)}),
    ("tile", ROW, {"reps": [1, 3]}),
    ("slice_by_index", SEQUENCE, {"begin": [0, 1, 0], "end": [1, 4, 8], "stride": [1, 2, 1]}),
    ("slice_by_size", SEQUENCE, {"begin": [0, 1, 2], "size": [1, 3, -1]}),
    ("gather", SEQUENCE, {"indices": np.array([[3, 0]], np.int32), "axis": 1}),
    ("topk", SEQUENCE, {"k": 2, "axis": 2, "ascending": False}),
    ("split", SEQUENCE, {"axis": 2, "num_splits": 2}),
    ("reverse", SEQUENCE, {"axes": [1]}),
    ("band_part", SEQUENCE, {"lower": 1, "upper": 0}),
    ("resize_bilinear", IMAGE, {"target_size_height": 9, "target_size_width": 4, "sampling_mode": "DEFAULT"}),
    ("upsample_nearest_neighbor", IMAGE, {"scale_factor_height": 2, "scale_factor_width": 2}),
    ("depth_to_space", IMAGE, {"block_size": 2}),
    ("quantize", ROW, {"scale": np.float32(0.1), "output_dtype": "int8"}),
    ("sliding_windows", SEQUENCE, {"axis": 1, "size": 2, "stride": 1}),
]


@pytest.mark.parametrize(
    ("kind", "shape", "constants"), FOLLOWED, ids=[f"{n}-{case[0]}" for n, case in enumerate(FOLLOWED)]
)
def test_many_samples_give_what_each_gives_alone(
    kind: str, shape: tuple[int, ...], constants: dict[str, Any]
) -> None:
    program = _program(kind, drawn(*shape), constants, "input" if kind == "quantize" else "x")
    free = with_free_batch(program)
    assert free is not None
    many = drawn(7, *shape[1:], seed=3)
    together = Runner(free, "float32").run({0: many})
    alone = Runner(program, "float32")
    for i in range(7):
        for at_once, one in zip(together, alone.run({0: many[i : i + 1]}), strict=True):
            wanted = np.asarray(one)
            found = at_once[i : i + 1] if wanted.shape[:1] == (1,) else at_once[i]
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("kind", "axis"), [("concat", 1), ("concat", -1), ("stack", 1), ("stack", -1)])
def test_joined_values_keep_their_samples_apart(kind: str, axis: int) -> None:
    more = {"axis": axis, "interleave": False} if kind == "concat" else {"axis": axis}
    program = _program(kind, drawn(*SEQUENCE), more, "values", twice=True)
    free = with_free_batch(program)
    assert free is not None
    many = drawn(4, 5, 8, seed=3)
    found = Runner(free, "float32").run({0: many})[0]
    alone = [Runner(program, "float32").run({0: many[i : i + 1]})[0] for i in range(4)]
    np.testing.assert_allclose(found, np.concatenate(alone), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "constants"),
    [
        ("softmax", ROW, {"axis": 0}),
        ("reduce_sum", ROW, {"axes": [0], "keep_dims": True}),
        ("reduce_sum", ROW, {"axes": [0, 1], "keep_dims": True}),
        ("reshape", IMAGE, {"shape": np.array([4, 36], np.int32)}),
        ("reshape", IMAGE, {"shape": np.array([4, 1, 36], np.int32)}),
        ("transpose", SEQUENCE, {"perm": [1, 0, 2]}),
        ("squeeze", ROW, {"axes": [0]}),
        ("tile", ROW, {"reps": [2, 1]}),
        ("pad", ROW, {"pad": [1, 0, 0, 0], "mode": "constant", "constant_val": np.float32(2)}),
        ("concat", ROW, {"axis": 0, "interleave": False}),
        ("gather", ROW, {"indices": np.array([0], np.int32), "axis": 0}),
        ("shape", ROW, {}),
        ("reverse", ROW, {"axes": [0]}),
        ("cumsum", ROW, {"axis": 0, "exclusive": False, "reverse": False}),
        ("matmul", (1, 6), {"y": drawn(1, 3), "transpose_x": True, "transpose_y": False}),
        ("slice_by_index", ROW, {"begin": [0, 0], "end": [1, 6], "squeeze_mask": [True, False]}),
        ("space_to_batch", IMAGE, {"block_shape": [2, 2], "paddings": [[0, 0], [0, 0]]}),
        ("non_zero", ROW, {}),
        ("layer_norm", ROW, {"axes": [0, 1], "epsilon": np.float32(1)}),
    ],
)
def test_what_would_mix_or_lose_samples_is_run_one_by_one(
    kind: str, shape: tuple[int, ...], constants: dict[str, Any]
) -> None:
    twice = kind == "concat"
    program = _program(kind, drawn(*shape), constants, "values" if twice else "x", twice)
    assert with_free_batch(program) is None
