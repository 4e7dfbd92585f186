"""The net as ONNX: tops by name, with the sizes that pooling and cropping need."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from edgekit.errors import SourceError
from edgekit_converters.frontends.caffe_model.net import Layer, Net
from edgekit_converters.frontends.emit import Emitter, pruned

Shape = tuple[int, ...]
_LEARNED = frozenset({"Convolution", "Deconvolution", "InnerProduct", "BatchNorm", "PReLU"})
"""Layers that are nothing without weights of their own."""


class Graph:
    """Values and sizes by top; the batch has the size that the net declares, and is free in the graph."""

    def __init__(self, net: Net) -> None:
        self.e = Emitter("caffe_")
        self.names: dict[str, str] = {name: name for name in net.inputs}
        self.shapes: dict[str, Shape] = dict(net.inputs)

    def x(self, layer: Layer, place: int = 0) -> str:
        """The value of a layer's bottom."""
        return self.names[layer.bottoms[place]]

    def shape(self, layer: Layer, place: int = 0) -> Shape:
        """The sizes of a layer's bottom."""
        return self.shapes[layer.bottoms[place]]

    def put(self, layer: Layer, value: str, shape: Shape | None = None, place: int = 0) -> None:
        """Set a top, which may have its bottom's name; sizes stay those of the bottom unless given."""
        kept = self.shape(layer) if shape is None else tuple(int(size) for size in shape)
        self.names[layer.tops[place]], self.shapes[layer.tops[place]] = value, kept


Write = Callable[[Graph, Layer], None]


def to_onnx(net: Net, kinds: Mapping[str, Write]) -> tuple[onnx.ModelProto, Mapping[str, Shape]]:
    """The model, and the sizes of its outputs.

    Raises:
        SourceError: a layer that is not supported or does not fit, by name.
    """
    g = Graph(net)
    for layer in net.layers:
        if layer.kind not in kinds:
            raise layer.refusal("is not supported")
        if layer.kind in _LEARNED and not layer.blobs:
            raise SourceError(
                f"layer {layer.name!r} ({layer.kind}) has no weights in the .caffemodel",
                remedy="give the .caffemodel that belongs to this net, whole",
                code="missing_weights",
            )
        try:
            kinds[layer.kind](g, layer)
        except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError, AttributeError) as error:
            raise SourceError(
                f"layer {layer.name!r} ({layer.kind}) does not fit its inputs or weights: "
                f"{type(error).__name__} {error}",
                remedy="give the .caffemodel that belongs to this net",
                code="corrupt_source",
            ) from error
    ends = {name: g.shapes[name] for name in net.outputs}
    for name in net.outputs:
        g.e.op("Identity", g.names[name], out=f"{name}__out")
    model = g.e.model(
        [(name, np.float32, ("N", *shape[1:])) for name, shape in net.inputs.items()],
        [(f"{name}__out", np.float32, ("N", *shape[1:])) for name, shape in ends.items()],
    )
    pruned(model.graph)
    return model, ends
