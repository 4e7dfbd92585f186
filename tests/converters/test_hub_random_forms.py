"""Windows, resizes, products and indices drawn at random: decomposed, they compute what onnxruntime does.

What onnxruntime itself does not take is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit_converters.onnx_session import REFUSALS
from tests.converters.graphs import Array
from tests.converters.hub_nodes import run
from tests.converters.test_hub_decompositions import Case, model_of, without

_CASES = 8


class Draw(random.Random):
    """Random numbers and arrays from one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._arrays = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Array:
        return self._arrays.standard_normal(shape).astype(np.float32)

    def whole(self, low: int, high: int, shape: list[int]) -> Array:
        return self._arrays.integers(low, high, shape)

    def ints(self, low: int, high: int, count: int) -> list[int]:
        return [self.randint(low, high) for _ in range(count)]


def _padding(draw: Draw, most: list[int]) -> dict[str, Any]:
    kind = draw.choice(["pads", "pads", "auto", "none"])
    if kind == "pads":
        return {"pads": [draw.randint(0, size) for size in most + most]}
    return {"auto_pad": draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])} if kind == "auto" else {}


def pool(draw: Draw, kind: str) -> Case:
    axes = draw.choice([1, 2, 2, 3])
    sizes, kernel = draw.ints(4, 9, axes), draw.ints(1, 3, axes)
    given: dict[str, Any] = {"kernel_shape": kernel, "strides": draw.ints(1, 3, axes)}
    given |= _padding(draw, [size - 1 for size in kernel])
    if draw.random() < 0.5:
        given["ceil_mode"] = 1
    if "auto_pad" not in given and draw.random() < 0.3:
        given["dilations"] = [1 if size == 3 else draw.randint(1, 2) for size in kernel]
    if kind == "AveragePool":
        given["count_include_pad"] = draw.randint(0, 1)
    elif kind == "LpPool":
        given["p"] = draw.randint(1, 3)
    places = kind == "MaxPool" and axes == 2 and draw.random() < 0.4
    return kind, {"x": draw.normal(2, 2, *sizes)}, given, 2 if places else 1


def convolution(draw: Draw, kind: str) -> Case:
    axes, groups = draw.choice([1, 2, 2, 3]), draw.choice([1, 1, 2, 3])
    inside, outside = groups * draw.randint(1, 2), groups * draw.randint(1, 2)
    kernel = draw.ints(1, 3, axes)
    given: dict[str, Any] = {"group": groups, "strides": draw.ints(1, 3, axes), **_padding(draw, [2] * axes)}
    if draw.random() < 0.4:
        given["dilations"] = draw.ints(1, 2, axes)
    shape = (outside, inside // groups)
    if kind == "ConvTranspose":
        shape = (inside, outside // groups)
        given["output_padding"] = [draw.randint(0, stride - 1) for stride in given["strides"]]
    arrays = {
        "x": draw.normal(1, inside, *draw.ints(3, 7, axes)),
        "W": draw.normal(*shape, *kernel),
        "B": draw.normal(outside),
    }
    return kind, arrays, given, 1


def resize(draw: Draw, kind: str) -> Case:
    mode = draw.choice(["nearest", "linear", "cubic"])
    sizes = draw.ints(1, 7, 2)
    places = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": draw.choice(places)}
    if mode == "nearest":
        rounding = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        given["nearest_mode"] = draw.choice(rounding)
    elif draw.random() < 0.3:
        given["antialias"] = 1
    if mode == "cubic":
        given["exclude_outside"] = draw.randint(0, 1)
    arrays = {"x": draw.normal(1, 2, *sizes), "ROI": np.zeros(0, np.float32)}
    if draw.random() < 0.5:
        scales = [draw.choice([0.6, 1, 1.3, 2, 2.6]) if size > 1 else 2.0 for size in sizes]
        arrays["S"] = np.array([1, 1, *scales], np.float32)
    else:
        # As older exporters write it: the scales are there, and empty.
        arrays["S"] = np.zeros(0, np.float32)
        arrays["Z"] = np.array([1, 2, *draw.ints(1, 12, 2)], np.int64)
    return kind, arrays, given, 1


def grid(draw: Draw, kind: str) -> Case:
    axes = draw.choice([2, 2, 3])
    given = {
        "mode": draw.choice(["bilinear", "nearest", "bicubic"] if axes == 2 else ["bilinear", "nearest"]),
        "padding_mode": draw.choice(["zeros", "border", "reflection"]),
        "align_corners": draw.randint(0, 1),
    }
    places = 1.4 * draw.normal(1, *draw.ints(1, 4, axes), axes)
    return kind, {"x": draw.normal(1, 2, *draw.ints(1, 6, axes)), "g": places}, given, 1


def einsum(draw: Draw, kind: str) -> Case:
    sizes = {label: draw.randint(1, 4) for label in "abcde"}
    terms = ["".join(draw.sample("abcde", draw.randint(1, 4))) for _ in range(draw.randint(1, 3))]
    labels = sorted(set("".join(terms)))
    target = "".join(draw.sample(labels, draw.randint(0, len(labels))))
    arrays = {f"i{n}": draw.normal(*(sizes[label] for label in term)) for n, term in enumerate(terms)}
    return kind, arrays, {"equation": f"{','.join(terms)}->{target}"}, 1


def gather_elements(draw: Draw, kind: str) -> Case:
    sizes = draw.ints(1, 4, draw.randint(1, 4))
    axis = draw.randrange(len(sizes))
    wanted = [draw.randint(1, size) for size in sizes]
    wanted[axis] = draw.randint(1, 5)
    places = draw.whole(-sizes[axis], sizes[axis], wanted)
    return kind, {"x": draw.normal(*sizes), "i": places}, {"axis": axis - draw.choice([0, len(sizes)])}, 1


def gather_nd(draw: Draw, kind: str) -> Case:
    sizes = draw.ints(1, 4, draw.randint(1, 4))
    batch = draw.randint(0, min(len(sizes) - 1, 2))
    depth = draw.randint(1, len(sizes) - batch)
    wanted = sizes[:batch] + draw.ints(1, 3, draw.randint(0, 2))
    places = [draw.whole(-size, size, wanted) for size in sizes[batch : batch + depth]]
    return kind, {"x": draw.normal(*sizes), "i": np.stack(places, -1)}, {"batch_dims": batch}, 1


def scatter_nd(draw: Draw, kind: str) -> Case:
    sizes = draw.ints(1, 4, draw.randint(1, 3))
    depth = draw.randint(1, len(sizes))
    rows = int(np.prod(sizes[:depth]))
    how = draw.choice(["none", "add", "mul", "max", "min"])
    flat = draw.sample(range(rows), draw.randint(1, rows)) if how == "none" else draw.ints(0, rows - 1, 5)
    places = np.stack(np.unravel_index(flat, sizes[:depth]), -1).astype(np.int64)
    arrays = {"x": draw.normal(*sizes), "i": places, "u": draw.normal(len(flat), *sizes[depth:])}
    return kind, arrays, {} if how == "none" else {"reduction": how}, 1


def recurrent(draw: Draw, kind: str) -> Case:
    direction = draw.choice(["forward", "reverse", "bidirectional"])
    ways, gates = 2 if direction == "bidirectional" else 1, {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    steps, batch = draw.randint(1, 4), draw.randint(1, 3)
    arrays = {"x": draw.normal(steps, batch, 3)}
    arrays |= {"W": draw.normal(ways, 4 * gates, 3), "R": draw.normal(ways, 4 * gates, 4)}
    optional = {"B": (ways, 8 * gates), "h": (ways, batch, 4)}
    if kind == "LSTM":
        optional |= {"c": (ways, batch, 4), "P": (ways, 12)}
    arrays |= {name: draw.normal(*shape) for name, shape in optional.items() if draw.random() < 0.5}
    if draw.random() < 0.4:
        arrays["l"] = draw.whole(1, steps + 1, [batch]).astype(np.int32)
    given: dict[str, Any] = {"hidden_size": 4, "direction": direction}
    if kind == "GRU":
        given["linear_before_reset"] = draw.randint(0, 1)
    return kind, arrays, given, 3 if kind == "LSTM" else 2


FORMS: dict[str, Callable[[Draw, str], Case]] = {
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), pool),
    **dict.fromkeys(("Conv", "ConvTranspose"), convolution),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), recurrent),
    "Resize": resize,
    "GridSample": grid,
    "Einsum": einsum,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms_drawn_at_random_are_decomposed_into_the_same_numbers(kind: str) -> None:
    compared, seed = 0, 0
    while compared < _CASES:
        seed += 1
        case = FORMS[kind](Draw(seed), kind)
        inputs = {name: value for name, value in case[1].items() if not name.isupper()}
        model = model_of(case)
        try:
            expected = run(model, inputs)
        except REFUSALS:
            continue
        got = run(without(kind, model), inputs)
        for name, value in expected.items():
            np.testing.assert_allclose(
                got[name], value, rtol=1e-3, atol=1e-4, err_msg=f"seed {seed}: {case[2]}"
            )
        compared += 1
