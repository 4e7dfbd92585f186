"""Look-ups: `LabelEncoder` and `OneHotEncoder` over numbers; `CategoryMapper` and strings are refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit_converters.frontends.emit import Array
from edgekit_converters.frontends.ml_ops.base import MlNode

_TEXT = "works on strings, which no device target takes"
_REMEDY = "encode strings as numbers before the model, and export the rest"


def label_encoder(n: MlNode) -> list[str]:
    """keys → values, anything else → the default; NaN is a key like any other."""
    keys, values, default = _given(n)
    if keys.dtype.kind not in "iuf" or values.dtype.kind not in "iuf":
        raise n.refusal(_TEXT, remedy=_REMEDY, code="unsupported_type")
    e, x = n.e, n.inputs[0]
    shape = n.shape(x)
    if shape is None:
        raise n.refusal("takes a tensor of unknown rank", code="dynamic_shape")
    dtype = n.dtype(x)
    column = e.unsqueeze(x, [len(shape)])
    same = e.op("Equal", column, e.constant(keys, dtype))
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        same = e.op("Or", same, e.op("And", e.is_nan(column), e.constant(np.isnan(keys), bool)))
    weight = e.cast(same, np.float32)
    # One more column of a half: the arg max falls on it when no key fits.
    filler = e.op(
        "Add",
        e.op("Mul", e.reduce("ReduceMax", weight, [len(shape)]), e.constant(0, np.float32)),
        e.constant(0.5, np.float32),
    )
    place = e.op("ArgMax", e.op("Concat", weight, filler, axis=len(shape)), axis=len(shape), keepdims=0)
    table = np.append(values, np.asarray(default, values.dtype))
    return [e.op("Gather", e.constant(table), place, axis=0)]


def _given(n: MlNode) -> tuple[Array, Array, Any]:
    """Keys, values and default, from the attributes of any version."""
    if n.attribute("classes_strings"):
        raise n.refusal(_TEXT, remedy=_REMEDY, code="unsupported_type")
    kinds: dict[str, Any] = {"int64s": np.int64, "floats": np.float32, "strings": str, "tensor": None}
    found: dict[str, Array] = {}
    for side in ("keys", "values"):
        for kind, dtype in kinds.items():
            value = n.attribute(f"{side}_{kind}")
            if value is not None and len(value):
                found[side] = np.asarray(value, dtype)
    if set(found) != {"keys", "values"}:
        raise n.refusal("has no keys or no values", code="corrupt_source")
    values = found["values"]
    default = n.attribute("default_tensor")
    if default is None:
        name, otherwise = ("default_float", -0.0) if values.dtype.kind == "f" else ("default_int64", -1)
        default = n.attribute(name, otherwise)
    return found["keys"], values, np.asarray(default).reshape(-1)[:1]


def one_hot(n: MlNode) -> list[str]:
    """x → one column a category, on a new last axis."""
    categories = n.numbers("cats_int64s").astype(np.int64)
    if not len(categories):
        raise n.refusal(_TEXT, remedy=_REMEDY, code="unsupported_type")
    shape = n.shape(n.inputs[0])
    if shape is None:
        raise n.refusal("takes a tensor of unknown rank", code="dynamic_shape")
    e, x = n.e, n.inputs[0]
    whole = x if n.dtype(x) == np.int64 else e.cast(x, np.int64)
    same = e.op("Equal", e.unsqueeze(whole, [len(shape)]), e.constant(categories))
    return [e.cast(same, np.float32)]


def refused(n: MlNode) -> list[str]:
    """What is about strings or maps only."""
    raise n.refusal(_TEXT, remedy=_REMEDY, code="unsupported_type")


REWRITES = {
    "CategoryMapper": refused,
    "CastMap": refused,
    "DictVectorizer": refused,
    "LabelEncoder": label_encoder,
    "OneHotEncoder": one_hot,
}
