"""The order of operators, for runtimes that plan memory by it: the one whose tensors take least at once.

Exporters order the branches of a network as they please; done side by side, all of their tensors are alive
together, and a microcontroller's arena must hold them. A beam search over the orders that are allowed keeps
the best few after each step. Nothing is computed otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_converters.targets.tflite.lower.writer import TYPES, Graph

WIDTH = 16
_MOST = 400
"""Operators beyond which the order stays: such a network is for no microcontroller."""
_BYTES = {code: dtype.itemsize for dtype, code in TYPES.items()}


@dataclass(frozen=True)
class _Partial:
    done: int  # a bit for each operator
    live: int
    peak: int
    order: tuple[int, ...]


def reorder(graph: Graph, outputs: Collection[int]) -> tuple[int, int]:
    """Order the operators of `graph` anew where that lowers the peak; gives the peaks before and after.

    `outputs` are the tensors that must stay to the end.
    """
    plan = _Plan(graph, outputs)
    before = plan.peak(range(len(graph.operators)))
    if len(graph.operators) > _MOST:
        return before, before
    best = plan.search()
    if best.peak >= before:
        return before, before
    graph.operators[:] = [graph.operators[index] for index in best.order]
    return before, best.peak


class _Plan:
    """Who reads and makes what, and how large it is."""

    def __init__(self, graph: Graph, outputs: Collection[int]) -> None:
        moving = [index for index, item in enumerate(graph.tensors) if not item.buffer]
        self._size = {index: _bytes(graph.tensors[index]) for index in moving}
        self._inputs = [{int(i) for i in op.inputs if int(i) in self._size} for op in graph.operators]
        self._made = [{int(i) for i in op.outputs if int(i) in self._size} for op in graph.operators]
        maker = {item: index for index, made in enumerate(self._made) for item in made}
        self._before = [_bits(maker[item] for item in read if item in maker) for read in self._inputs]
        self._readers = {
            item: _bits(index for index, read in enumerate(self._inputs) if item in read) for item in moving
        }
        self._kept = set(outputs)
        self._start = sum(self._size[item] for item in moving if item not in maker)

    def peak(self, order: Sequence[int]) -> int:
        """Most bytes alive at once in that order."""
        state = self._empty()
        for index in order:
            state = self._after(state, index)
        return state.peak

    def search(self) -> _Partial:
        """The best order found."""
        beam = [self._empty()]
        for _ in self._inputs:
            reached: dict[int, _Partial] = {}
            for state in beam:
                for index in self._ready(state.done):
                    after = self._after(state, index)
                    known = reached.get(after.done)
                    if known is None or (after.peak, after.live) < (known.peak, known.live):
                        reached[after.done] = after
            beam = sorted(reached.values(), key=lambda item: (item.peak, item.live, item.order))[:WIDTH]
        return beam[0]

    def _empty(self) -> _Partial:
        return _Partial(0, self._start, self._start, ())

    def _ready(self, done: int) -> list[int]:
        return [
            index
            for index, needed in enumerate(self._before)
            if not done >> index & 1 and needed & done == needed
        ]

    def _after(self, state: _Partial, index: int) -> _Partial:
        done = state.done | 1 << index
        during = state.live + sum(self._size[item] for item in self._made[index])
        over = [
            item
            for item in self._inputs[index] | self._made[index]
            if item not in self._kept and self._readers[item] & done == self._readers[item]
        ]
        live = during - sum(self._size[item] for item in over)
        return _Partial(done, live, max(state.peak, during), (*state.order, index))


def _bits(indices: Any) -> int:
    found = 0
    for index in indices:
        found |= 1 << index
    return found


def _bytes(tensor: Any) -> int:
    return math.ceil(math.prod(int(size) for size in tensor.shape) * _BYTES[tensor.type])
