"""The layers of a deploy net in order, of either format, with their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import SourceError
from edgekit_converters.frontends.caffe_model.text import Message
from edgekit_converters.frontends.emit import Array

# Version 1 wrote types as enumerations.
_V1 = {
    "ABSVAL": "AbsVal",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONVOLUTION": "Convolution",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SPLIT": "Split",
    "TANH": "TanH",
}
TRAINING = {"Accuracy", "EuclideanLoss", "SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "HingeLoss"}
DATA = {"Data", "ImageData", "HDF5Data", "WindowData", "DummyData"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer; `settings` are the fields of its parameter message."""

    name: str
    kind: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    settings: Message
    blobs: Sequence[Array] = ()

    def one(self, key: str, default: Any = None) -> Any:
        """A setting's only (last) value."""
        values = self.settings.get(key)
        return values[-1] if values else default

    def refusal(self, why: str, code: str = "unsupported_op") -> SourceError:
        """The error that names this layer."""
        remedy = "take the layer out of the deploy net, or convert the net to ONNX by other means"
        return SourceError(f"layer {self.name!r} ({self.kind}) {why}", remedy=remedy, code=code)


@dataclass(frozen=True, kw_only=True)
class Net:
    """Inputs by name with their sizes, layers in order, outputs: what no later layer takes."""

    inputs: Mapping[str, tuple[int, ...]]
    layers: Sequence[Layer]
    outputs: Sequence[str]
    name: str = field(default="")


def read_net(message: Message, weights: Mapping[str, Sequence[Array]]) -> Net:
    """The net in `message` as it is used for inference.

    Raises:
        SourceError: no inputs with sizes, or layers of training only.
        ValueError: fields of the wrong kind.
    """
    inputs = _declared(message)
    layers = []
    for item in [*message.get("layer", []), *message.get("layers", [])]:
        layer = _layer(item, weights)
        if not _used(item) or layer.kind in TRAINING:
            continue
        if layer.kind in ("Input", "MemoryData"):
            inputs.update(_input_layer(layer))
        elif layer.kind in DATA:
            raise SourceError(
                f"layer {layer.name!r} reads training data",
                remedy="give the deploy net, whose inputs have sizes (input_param { shape { dim: … } })",
                code="unsupported_source",
            )
        else:
            layers.append(layer)
    if not inputs:
        raise SourceError(
            "the net has no input with sizes", remedy="give the deploy net", code="no_signature"
        )
    taken = {name for layer in layers for name in layer.bottoms if name not in layer.tops}
    made = dict.fromkeys(name for layer in layers if layer.kind != "Silence" for name in layer.tops)
    outputs = [name for name in made if name not in taken]
    if not layers or not outputs:
        raise SourceError("the net has no layers", remedy="give the deploy net", code="corrupt_source")
    names = message.get("name") or [""]
    return Net(inputs=inputs, layers=layers, outputs=outputs, name=str(names[0]))


def _declared(message: Message) -> dict[str, tuple[int, ...]]:
    """Inputs in the old form: names beside shapes, or beside four numbers each."""
    names = [str(item) for item in message.get("input", [])]
    shapes = [_sizes(item.get("dim", [])) for item in message.get("input_shape", [])]
    flat = _sizes(message.get("input_dim", []))
    shapes = shapes or [flat[i : i + 4] for i in range(0, len(flat), 4)]
    if len(shapes) != len(names):
        raise ValueError("inputs and their shapes differ in number")
    return dict(zip(names, shapes, strict=True))


def _input_layer(layer: Layer) -> dict[str, tuple[int, ...]]:
    if layer.kind == "MemoryData":
        sizes = [layer.one(key, 0) for key in ("batch_size", "channels", "height", "width")]
        return {layer.tops[0]: _sizes(sizes)}
    shapes = [_sizes(item.get("dim", [])) for item in layer.settings.get("shape", [])]
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    return dict(zip(layer.tops, shapes, strict=True))


def _sizes(values: Sequence[Any]) -> tuple[int, ...]:
    found = tuple(int(value) for value in values)
    if any(not 0 < size < 1 << 31 for size in found):
        raise ValueError(f"sizes {list(found)}")
    return found


def _layer(item: Message, weights: Mapping[str, Sequence[Array]]) -> Layer:
    name, kind = str(item.get("name", [""])[0]), str(item.get("type", [""])[0])
    settings: Any = next((v[0] for key, v in item.items() if key.endswith("_param") and _own(key, kind)), {})
    if not isinstance(settings, dict):
        raise ValueError(f"layer {name!r}: its parameter is no message")
    return Layer(
        name=name,
        kind=_V1.get(kind, kind),
        bottoms=tuple(str(value) for value in item.get("bottom", [])),
        tops=tuple(str(value) for value in item.get("top", [])),
        settings=settings,
        blobs=weights.get(name, ()),
    )


def _own(key: str, kind: str) -> bool:
    """Whether ``inner_product_param`` is InnerProduct's; a Deconvolution has a convolution's."""
    plain = key.removesuffix("_param").replace("_", "")
    wanted = _V1.get(kind, kind).lower()
    return plain == wanted or (wanted == "deconvolution" and plain == "convolution")


def _used(item: Message) -> bool:
    """Whether the layer takes part in the phase TEST."""
    included = [rule.get("phase", ["TEST"])[0] for rule in item.get("include", [])]
    excluded = [rule.get("phase", [""])[0] for rule in item.get("exclude", [])]
    return ("TEST" in included or not included) and "TEST" not in excluded
