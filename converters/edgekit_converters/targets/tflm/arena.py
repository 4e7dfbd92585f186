"""How much working memory TFLM takes for a file: asked of TFLM itself, to the byte.

TFLM places every tensor, its own structures and its scratch memory in one block, the arena. Its recording
allocator says how much of it was used (`print_allocations`, written by C to file descriptor 2), and loading
the file in an arena of that size proves it. The wheel is a 64-bit program: tensors (the *head*) are as on a
microcontroller, TFLM's structures (the *tail*) hold pointers of twice the size, so that the whole is an
upper estimate for a 32-bit one. Optimized kernels (CMSIS-NN) may ask for scratch memory besides.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgekit_converters.errors import Refusal

ALIGNMENT = 16
_LEAST = 1 << 16
_MOST = 1 << 30
_SHORT = ("Failed to resize buffer", "Failed to allocate memory", "missing:", "Too many buffers")
"""Signs that the arena was too small, among what TFLM says."""
_TOTAL = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_PART = re.compile(r"'([^']+)' used (\d+) bytes")


@dataclass(frozen=True, kw_only=True)
class Arena:
    """Bytes. `needed` is the smallest arena that TFLM accepts, planning included; `total` what it says it
    uses then: `head` for tensors and scratch, `tail` for structures that stay, `parts` of it as TFLM names
    them."""

    needed: int
    total: int
    head: int
    tail: int
    parts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "host": "64-bit: an upper estimate for a 32-bit microcontroller"}


def measure(data: bytes) -> Arena:
    """Load and run the file once, and ask TFLM.

    Raises:
        Refusal: TFLM does not take the file; with its own words.
    """
    interpreter = opened(data)
    _run_once(interpreter)
    with captured() as said:
        interpreter.print_allocations()
    totals = {name: int(size) for name, size in _TOTAL.findall(said.text)}
    parts = {name: int(size) for name, size in _PART.findall(said.text)}
    needed = _smallest(data, totals["total"])
    return Arena(needed=needed, total=totals["total"], head=totals["head"], tail=totals["tail"], parts=parts)


def opened(data: bytes, size: int | None = None) -> Any:
    """An interpreter with an arena of `size` bytes; by default one that is large enough.

    Raises:
        Refusal: TFLM does not take the file, or not in that arena (``arena_too_small``).
    """
    if size is not None:
        return _opened(data, size)
    size = max(_LEAST, 2 * len(data))
    while True:
        try:
            return _opened(data, size)
        except Refusal as refusal:
            if refusal.code != "arena_too_small" or size >= _MOST:
                raise
            size *= 4


def _opened(data: bytes, size: int) -> Any:
    from tflite_micro import runtime

    said = _Said()
    try:
        with captured() as said:
            return runtime.Interpreter.from_bytes(data, arena_size=size)
    except RuntimeError as error:
        raise _refused(said.text or str(error), size) from error


def _refused(said: str, size: int) -> Refusal:
    words = " ".join(said.split())
    if any(sign in words for sign in _SHORT):
        return Refusal(
            f"TFLite Micro needs more than an arena of {size} bytes: {words[:300]}",
            remedy="give it a larger arena, or use a smaller model",
            code="arena_too_small",
        )
    return Refusal(
        f"TFLite Micro does not take the file: {words[:400]}",
        remedy="use full-integer int8 from float weights and calibration data",
        code="runtime_refused",
    )


def _smallest(data: bytes, used: int) -> int:
    """The least arena, a multiple of 16, that a file which is known to load is accepted in."""
    low = -(-used // ALIGNMENT)
    if _fits(data, low):
        return low * ALIGNMENT
    high = low + 1
    while not _fits(data, high):
        low, high = high, high + 2 * (high - low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(data, middle) else (middle, high)
    return high * ALIGNMENT


def _fits(data: bytes, units: int) -> bool:
    try:
        _opened(data, units * ALIGNMENT)
    except Refusal:
        return False
    return True


def _run_once(interpreter: Any) -> None:
    index = 0
    while (details := _details(interpreter, index)) is not None:
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), index)
        index += 1
    said = _Said()
    try:
        with captured() as said:
            interpreter.invoke()
    except RuntimeError as error:
        raise _refused(said.text or str(error), 0) from error


def _details(interpreter: Any, index: int) -> Any:
    with captured():
        try:
            return interpreter.get_input_details(index)
        except (IndexError, RuntimeError, ValueError):
            return None


@dataclass
class _Said:
    text: str = ""


@contextmanager
def captured() -> Iterator[_Said]:
    """What C writes to file descriptor 2 meanwhile, to be had afterwards. For one thread only."""
    sys.stderr.flush()
    kept, said = os.dup(2), _Said()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.text = file.read().decode("utf-8", "replace")
