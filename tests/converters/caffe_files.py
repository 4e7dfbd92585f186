"""Writing Caffe's two files: a deploy net as text, and its weights in protobuf's wire format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def varint(value: int) -> bytes:
    """A number in base 128, the low part first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values: Array, *, old: bool = False) -> bytes:
    """A BlobProto, with the old four sizes if `old`."""
    data = field(5, values.astype("<f4").tobytes())
    if old:
        sizes = [1] * (4 - values.ndim) + list(values.shape)
        return data + b"".join(varint(n << 3) + varint(size) for n, size in enumerate(sizes, 1))
    return data + field(7, field(1, b"".join(varint(size) for size in values.shape)))


class NetWriter:
    """Appends layers; `save` writes ``name.prototxt`` and ``name.caffemodel``."""

    def __init__(self, *shape: int, v1: bool = False) -> None:
        sizes = " ".join(f"dim: {size}" for size in shape)
        self.text = f'name: "net"  # a comment\ninput: "data"\ninput_shape {{ {sizes} }}\n'
        self.data, self.v1 = field(1, b"net"), v1
        self.random = np.random.default_rng(0)
        self.count = 0

    def layer(
        self,
        kind: str,
        bottoms: str | Sequence[str],
        tops: str | Sequence[str] | None = None,
        settings: str = "",
        *blobs: Array,
    ) -> str:
        """A layer; gives its first top. `settings` is the whole parameter message, with its name."""
        self.count += 1
        name = f"layer{self.count}"
        bottoms, tops = (
            [item] if isinstance(item, str) else list(item or [name]) for item in (bottoms, tops)
        )
        lines = [f'name: "{name}"', f"type: {kind}" if self.v1 else f'type: "{kind}"']
        lines += [f'bottom: "{item}"' for item in bottoms] + [f"top: '{item}'" for item in tops]
        word = "layers" if self.v1 else "layer"
        self.text += f"{word} {{ {' '.join(lines)} {settings} }}\n"
        if blobs:
            numbers = (2, 4, 6) if self.v1 else (100, 1, 7)
            parts = b"".join(field(numbers[2], blob(item, old=self.v1)) for item in blobs)
            self.data += field(numbers[0], field(numbers[1], name.encode()) + parts)
        return tops[0]

    def weight(self, *shape: int, scale: float = 0.3) -> Array:
        """Seeded weights."""
        found: Array = (scale * self.random.standard_normal(shape)).astype(np.float32)
        return found

    def save(self, folder: Path, name: str = "net") -> Path:
        """Gives the path of the text."""
        (folder / f"{name}.prototxt").write_text(self.text)
        (folder / f"{name}.caffemodel").write_bytes(self.data)
        return folder / f"{name}.prototxt"
