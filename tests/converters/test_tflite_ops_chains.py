"""Chains of ops drawn at random: what one op leaves (axis orders, free sizes, shares) the next one finds."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod

import pytest

from tests.converters.tflite_ops import agrees, floats

Shape = tuple[int, ...]
START = (2, 4, 6, 3)


class Chain:
    """A graph that grows by one drawn op at a time. The first axis is the batch and stays in its place."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.lines: list[str] = []
        self.numbers: list[str] = []
        self.shapes: dict[str, Shape] = {"x": START}

    def grow(self) -> None:
        """One op on one of the last values; an op that does not fit adds nothing."""
        value = self.draw.choice(list(self.shapes)[-2:])
        self.draw.choice(STEPS)(self, value, self.shapes[value])

    def add(self, computed: str, *shape: int) -> None:
        """A new value."""
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {computed}")
        self.shapes[name] = shape

    def ints(self, *numbers: int) -> str:
        """A constant vector."""
        self.numbers.append(f"int64[{len(numbers)}] k{len(self.numbers)} = {{{','.join(map(str, numbers))}}}")
        return f"k{len(self.numbers) - 1}"

    def floats(self, *shape: int) -> str:
        """A constant tensor."""
        items = ",".join(str(round(self.draw.uniform(-1, 1), 2)) for _ in range(prod(shape)))
        self.numbers.append(f"float[{','.join(map(str, shape))}] k{len(self.numbers)} = {{{items}}}")
        return f"k{len(self.numbers) - 1}"

    def axis(self, shape: Shape) -> int:
        """Any axis but the batch."""
        return self.draw.randrange(1, len(shape))

    def graph(self) -> str:
        """The text; the last two values are the outputs."""
        outputs = ", ".join(f"float[] {name}" for name in list(self.shapes)[-2:])
        numbers = f"<{', '.join(self.numbers)}>" if self.numbers else ""
        return f"g (float[N,4,6,3] x) => ({outputs}) {numbers} {{ {' '.join(self.lines)} }}"


def _unary(chain: Chain, value: str, shape: Shape) -> None:
    op = chain.draw.choice(["Relu", "Sigmoid", "Abs"])
    chain.add(f"{op}({value})", *shape)


def _constant(chain: Chain, value: str, shape: Shape) -> None:
    cut = chain.draw.randrange(1, len(shape))
    other = chain.floats(*(chain.draw.choice([1, size]) for size in shape[cut:]))
    chain.add(chain.draw.choice([f"Add({value}, {other})", f"Mul({other}, {value})"]), *shape)


def _join(chain: Chain, value: str, shape: Shape) -> None:
    axis = chain.axis(shape)
    if prod(shape) < 3000:
        chain.add(f"Concat<axis={axis}>({value}, {value})", *_with(shape, axis, 2 * shape[axis]))


def _pool(chain: Chain, value: str, shape: Shape) -> None:
    if len(shape) == 4:
        chain.add(f"MaxPool<kernel_shape=[1,1]>({value})", *shape)


def _transpose(chain: Chain, value: str, shape: Shape) -> None:
    perm = [0, *chain.draw.sample(range(1, len(shape)), len(shape) - 1)]
    chain.add(f"Transpose<perm={perm}>({value})", *(shape[axis] for axis in perm))


def _reshape(chain: Chain, value: str, shape: Shape) -> None:
    rest, sizes = prod(shape[1:]), list[int]()
    while rest > 1 and len(sizes) < 3:
        sizes.append(chain.draw.choice([size for size in range(1, rest + 1) if rest % size == 0]))
        rest //= sizes[-1]
    chain.add(f"Reshape({value}, {chain.ints(0, *sizes, rest)})", shape[0], *sizes, rest)


def _slice(chain: Chain, value: str, shape: Shape) -> None:
    axis = chain.axis(shape)
    start, end, step = chain.draw.choice([(0, 2**62, 2), (-1, -(2**62), -1), (-2, 2**62, 1), (0, 1, 1)])
    places = [chain.ints(number) for number in (start, end, axis, step)]
    size = len(range(shape[axis])[start:end:step])
    chain.add(f"Slice({value}, {', '.join(places)})", *_with(shape, axis, size))


def _pad(chain: Chain, value: str, shape: Shape) -> None:
    axis, mode = chain.axis(shape), chain.draw.choice(["constant", "edge", "wrap"])
    if len(shape) < 6 and prod(shape) < 2000:
        before, after = ([amount * (index == axis) for index in range(len(shape))] for amount in (1, 2))
        pads = chain.ints(*before, *after)
        chain.add(f'Pad<mode="{mode}">({value}, {pads})', *_with(shape, axis, shape[axis] + 3))


def _reduce(chain: Chain, value: str, shape: Shape) -> None:
    op, axis, keep = (
        chain.draw.choice(["ReduceMean", "ReduceMax", "ReduceL2"]),
        chain.axis(shape),
        len(shape) < 3,
    )
    sizes = _with(shape, axis, 1) if keep else (*shape[:axis], *shape[axis + 1 :])
    chain.add(f"{op}<keepdims={int(keep)}>({value}, {chain.ints(axis)})", *sizes)


def _softmax(chain: Chain, value: str, shape: Shape) -> None:
    chain.add(f"Softmax<axis={chain.axis(shape)}>({value})", *shape)


def _gather(chain: Chain, value: str, shape: Shape) -> None:
    axis = chain.axis(shape)
    indices = chain.ints(-1, 0, shape[axis] - 1)
    chain.add(f"Gather<axis={axis}>({value}, {indices})", *_with(shape, axis, 3))


def _product(chain: Chain, value: str, shape: Shape) -> None:
    chain.add(f"MatMul({value}, {chain.floats(shape[-1], 3)})", *_with(shape, len(shape) - 1, 3))


def _unsqueeze(chain: Chain, value: str, shape: Shape) -> None:
    axis = chain.axis(shape)
    if len(shape) < 5:
        chain.add(f"Unsqueeze({value}, {chain.ints(axis)})", *shape[:axis], 1, *shape[axis:])


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


STEPS: list[Callable[[Chain, str, Shape], None]] = [
    _unary,
    _constant,
    _join,
    _pool,
    _transpose,
    _transpose,
    _reshape,
    _reshape,
    _slice,
    _pad,
    _reduce,
    _softmax,
    _gather,
    _product,
    _unsqueeze,
]


@pytest.mark.parametrize("seed", range(60))
def test_a_chain_of_ops_over_a_free_batch(seed: int) -> None:
    chain = Chain(seed)
    for _ in range(10):
        chain.grow()
    feeds = [{"x": floats(batch, *START[1:], seed=batch)} for batch in (2, 1, 3)]
    agrees(chain.graph(), *feeds, rtol=1e-4, atol=1e-4)


def test_axes_merged_in_front_of_a_product_are_no_flattened_image() -> None:
    """The batch is free before and after, and yet it is not the same size: the matrix has six columns."""
    graph = """g (float[N, 3, 6, 6] x) => (float[N, 240] y)
    <float[8, 3, 1, 1] w = {%s}, float[6, 5] m = {%s}, float[5] b = {1, 2, 3, 4, 5},
     int64[2] rows = {-1, 6}, int64[2] back = {-1, 240}>
    { c = Conv (x, w) r = Reshape (c, rows) g = Gemm (r, m, b) y = Reshape (g, back) }"""
    numbers = [", ".join(f"{item:.3f}" for item in floats(size, seed=size)) for size in (24, 30)]
    feeds = [{"x": floats(batch, 3, 6, 6, seed=batch)} for batch in (1, 2)]
    agrees(graph % tuple(numbers), *feeds, rtol=1e-4, atol=1e-5)
