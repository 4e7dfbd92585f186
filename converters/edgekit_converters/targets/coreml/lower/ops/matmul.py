"""Matrix products. Specification: onnx/docs/Operators.md; MIL's `linear` and `matmul`."""

from __future__ import annotations

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from edgekit_converters.hub.patterns.attention import attention_of
from edgekit_converters.targets.coreml.lower.node import Array, Node, Var, is_float, like
from edgekit_converters.targets.coreml.lower.registry import lowers

_MOST = 1 << 22
"""Products that a product of whole-number matrices may hold at a time."""


@lowers("MatMul")
def _matmul(node: Node) -> Var:
    fused = _attention(node) if node.scope.target >= 18 else None
    if fused is not None:
        return fused
    x, y = node.var(0), node.var(1)
    if not is_float(x) and node.width() is not None:
        node.refuse("of narrow whole numbers", "unsupported_type")
    left, right = x.rank == 1, y.rank == 1
    x = mb.expand_dims(x=x, axes=[0]) if left else x
    y = mb.expand_dims(x=y, axes=[1]) if right else y
    found = mb.matmul(x=x, y=y) if is_float(x) else _whole_product(node, x, y)
    axes = ([found.rank - 2] if left else []) + ([found.rank - 1] if right else [])
    return mb.squeeze(x=found, axes=axes) if axes else found


def _attention(node: Node) -> Var | None:
    """The op that iOS 18 has for attention; None where the product ends none, or one of other shapes."""
    found = attention_of(node.raw)
    if found is None:
        return None
    query, turned, values = (
        node.scope.var(item, node.raw) for item in (found.queries, found.turned_keys, found.values)
    )
    rank = query.rank
    same = turned.rank == values.rank == rank and query.shape[:-2] == turned.shape[:-2] == values.shape[:-2]
    depth = query.shape[-1]
    if not is_float(query) or not 3 <= rank <= 4 or not same or is_symbolic(depth):
        return None
    mask = {} if found.mask is None else {"attn_mask": node.scope.var(found.mask, node.raw)}
    if any(is_symbolic(size) for var in mask.values() for size in var.shape):
        return None
    usual = found.scale * float(np.sqrt(depth))
    if abs(usual - 1) > 1e-6:
        query = mb.mul(x=query, y=np.float32(usual))
    perm = [*range(rank - 2), rank - 1, rank - 2]
    key = mb.transpose(x=turned, perm=perm)
    return mb.scaled_dot_product_attention(query=query, key=key, value=values, **mask)


def _whole_product(node: Node, x: Var, y: Var) -> Var:
    """Written out as sums of products: Core ML's runtime has no matrix product of whole numbers."""
    rows, columns = node.sizes(x), node.sizes(y)
    if max(x.rank, y.rank) > 4 or int(np.prod(rows)) * columns[-1] > _MOST:
        node.refuse("a large product of whole numbers", "unsupported_type")
    products = mb.mul(x=mb.expand_dims(x=x, axes=[-1]), y=mb.expand_dims(x=y, axes=[-3]))
    return mb.reduce_sum(x=products, axes=[-2], keep_dims=False)


@lowers("Gemm")
def _gemm(node: Node) -> Var:
    x, alpha, beta = node.var(0), node.real("alpha", 1.0), node.real("beta", 1.0)
    weight, bias = node.constant(1), node.constant(2)
    if is_float(x) and weight is not None and alpha == 1 and not node.integer("transA"):
        kernel = weight if node.integer("transB") else weight.T
        vector = _vector(bias, kernel.shape[0], beta) if node.has(2) else None
        if vector is not None or not node.has(2):
            extra = {} if vector is None else {"bias": vector}
            return mb.linear(x=x, weight=np.ascontiguousarray(kernel, np.float32), **extra)
    stored = node.var(1).is_descendant_of_const and alpha == beta == 1 and not node.integer("transA")
    if is_float(x) and weight is None and stored and node.integer("transB"):
        vector = _vector(node.var(2).val if node.has(2) else None, node.shape(1)[0], 1.0)
        if vector is not None or not node.has(2):
            extra = {} if vector is None else {"bias": vector}
            return mb.linear(x=x, weight=node.var(1), **extra)
    if not is_float(x) and (alpha % 1 or beta % 1 or node.width() is not None):
        node.refuse("of whole numbers", "unsupported_type")
    flags = {"transpose_x": bool(node.integer("transA")), "transpose_y": bool(node.integer("transB"))}
    if is_float(x):
        found = mb.matmul(x=x, y=node.var(1), **flags)
    else:
        turned = [
            mb.transpose(x=v, perm=[1, 0]) if t else v
            for v, t in zip((x, node.var(1)), flags.values(), strict=True)
        ]
        found = _whole_product(node, *turned)
    found = found if alpha == 1 else mb.mul(x=found, y=like(found, alpha))
    if not node.has(2):
        return found
    c = node.var(2)
    return mb.add(x=found, y=c if beta == 1 else mb.mul(x=c, y=like(c, beta)))


def _vector(bias: Array | None, size: int, beta: float) -> Array | None:
    """A constant C as the bias of `linear`; None when it is no row."""
    if bias is None or bias.size != size or bias.shape[-1:] != (size,):
        return None
    found: Array = bias.reshape(-1).astype(np.float32) * np.float32(beta)
    return found
