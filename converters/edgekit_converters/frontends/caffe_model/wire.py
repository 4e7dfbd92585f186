"""Reading protobuf's wire format as far as a ``.caffemodel`` needs it: layers' names and their blobs.

Specification: protobuf's encoding guide, and Caffe's ``caffe.proto`` for the field numbers. Both layer
formats are read (``layer`` = 100, and ``layers`` = 2 of version 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit_converters.frontends.emit import Array

_LAYERS_V1, _LAYER = 2, 100
_NAME, _BLOBS = {_LAYERS_V1: 4, _LAYER: 1}, {_LAYERS_V1: 6, _LAYER: 7}
_SIZES = {1: 8, 5: 4}


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(number, wire type, value) of a message; a length-delimited value is its bytes.

    Raises:
        ValueError: cut off, or no protobuf.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field without a number")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        size = _SIZES.get(kind, 0)
        if kind == 2:
            size, at = _varint(data, at)
        elif not size:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("a field ends behind the file")
        yield number, kind, data[at : at + size]
        at += size


def blobs_by_layer(data: bytes) -> dict[str, list[Array]]:
    """The weights of a ``.caffemodel`` by layer name.

    Raises:
        ValueError: cut off, or no protobuf.
    """
    found: dict[str, list[Array]] = {}
    for number, kind, value in fields(memoryview(data)):
        if number not in _NAME or kind != 2:
            continue
        assert isinstance(value, memoryview)
        name, blobs = "", []
        for inner, wire, item in fields(value):
            if inner == _NAME[number] and wire == 2:
                assert isinstance(item, memoryview)
                name = bytes(item).decode("utf-8")
            elif inner == _BLOBS[number] and wire == 2:
                assert isinstance(item, memoryview)
                blobs.append(_blob(item))
        if blobs:
            found[name] = blobs
    return found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= len(data):
            raise ValueError("cut off within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")


def _blob(data: memoryview) -> Array:
    """A BlobProto: values (float or double, packed or not) and its shape (new or the old four sizes)."""
    parts: list[Array] = []
    old = {1: 0, 2: 0, 3: 0, 4: 0}
    shape: list[int] | None = None
    for number, kind, value in fields(data):
        if number in (5, 8) and not isinstance(value, int):
            parts.append(np.frombuffer(value, "<f4" if number == 5 else "<f8").astype(np.float32))
        elif number in old and isinstance(value, int):
            old[number] = value
        elif number == 7 and kind == 2:
            assert isinstance(value, memoryview)
            shape = _dims(value)
    values = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    sizes = shape if shape is not None else [max(size, 1) for size in old.values()]
    return values.reshape(sizes)


def _dims(data: memoryview) -> list[int]:
    found: list[int] = []
    for number, _, value in fields(data):
        if number != 1:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            size, at = _varint(value, at)
            found.append(size)
    return found
