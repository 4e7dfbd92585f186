"""Convolutions and pools: kernel, strides, dilations and pads written out, auto_pad resolved.

Specification: Operators.md, Conv, ConvTranspose, MaxPool (auto_pad). What depends on sizes that are
not known stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgekit_converters.hub.build import Builder, Result
from edgekit_converters.hub.nodes import attr_ints, attr_str, dims, required
from edgekit_converters.hub.normal.table import rule

_WEIGHTS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}


@rule("Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool")
def window(node: ir.Node, b: Builder) -> Result:
    """Write out the window of a convolution or a pool."""
    sizes, kernel = dims(required(node, 0)), kernel_of(node)
    if sizes is None or kernel is None:
        return None
    strides, dilations = _basics(node, kernel)
    auto = attr_str(node, "auto_pad", "NOTSET")
    if auto == "NOTSET":
        _write(node, "pads", attr_ints(node, "pads") or (0,) * (2 * len(kernel)))
    elif auto == "VALID":
        _write(node, "pads", (0,) * (2 * len(kernel)))
    else:
        known = [size for size in sizes[2:] if size is not None]
        if len(known) != len(kernel):
            return None
        totals = [
            max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            for size, k, s, d in zip(known, kernel, strides, dilations, strict=True)
        ]
        _write(node, "pads", halves(totals, more_at_end=auto == "SAME_UPPER"))
    node.attributes.pop("auto_pad", None)
    return None


@rule("ConvTranspose")
def transposed(node: ir.Node, b: Builder) -> Result:
    """Write out the window of a transposed convolution; `output_shape` becomes pads."""
    sizes, kernel = dims(required(node, 0)), kernel_of(node)
    if sizes is None or kernel is None:
        return None
    strides, dilations = _basics(node, kernel)
    extra = attr_ints(node, "output_padding") or (0,) * len(kernel)
    auto, wanted = attr_str(node, "auto_pad", "NOTSET"), attr_ints(node, "output_shape")
    if wanted is None and auto in ("NOTSET", "VALID"):
        given = attr_ints(node, "pads") if auto == "NOTSET" else None
        _write(node, "pads", given or (0,) * (2 * len(kernel)))
    else:
        known = [size for size in sizes[2:] if size is not None]
        if len(known) != len(kernel):
            return None
        target = wanted[-len(kernel) :] if wanted else [n * s for n, s in zip(known, strides, strict=True)]
        totals = [
            (n - 1) * s + (k - 1) * d + 1 + e - out
            for n, k, s, d, e, out in zip(known, kernel, strides, dilations, extra, target, strict=True)
        ]
        if wanted:
            # What is missing at the end is output padding. (With SAME_* onnxruntime adds none.)
            extra = tuple(e + max(-total, 0) for e, total in zip(extra, totals, strict=True))
        totals = [max(total, 0) for total in totals]
        _write(node, "pads", halves(totals, more_at_end=auto == "SAME_UPPER"))
    _write(node, "output_padding", extra)
    for name in ("auto_pad", "output_shape"):
        node.attributes.pop(name, None)
    return None


def kernel_of(node: ir.Node) -> tuple[int, ...] | None:
    """The kernel's size, from the attribute or from the weights."""
    given = attr_ints(node, "kernel_shape")
    if given is not None or node.op_type not in _WEIGHTS:
        return given
    sizes = dims(required(node, _WEIGHTS[node.op_type]))
    known = tuple(size for size in (sizes or ())[2:] if size is not None)
    return known if sizes is not None and len(known) == len(sizes) - 2 else None


def halves(totals: Sequence[int], *, more_at_end: bool) -> tuple[int, ...]:
    """Pads at the begin and at the end, the odd one at the end or at the begin."""
    small, large = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return (*small, *large) if more_at_end else (*large, *small)


def _basics(node: ir.Node, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    strides = attr_ints(node, "strides") or (1,) * len(kernel)
    dilations = attr_ints(node, "dilations") or (1,) * len(kernel)
    for name, value in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilations)):
        _write(node, name, value)
    if node.op_type == "AveragePool" and set(dilations) == {1}:
        # onnxruntime 1.31 copies the attribute to its integer kernel, which does not know it.
        node.attributes.pop("dilations")
    return strides, dilations


def _write(node: ir.Node, name: str, value: Sequence[int]) -> None:
    node.attributes[name] = ir.AttrInt64s(name, list(value))
