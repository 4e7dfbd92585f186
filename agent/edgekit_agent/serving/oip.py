"""The Open Inference Protocol's tensors in JSON: requests to numpy arrays, answers back.

Specification: Open Inference Protocol v2, inference over REST. Data are row-major, flat or nested.
Strings (``BYTES``) occur in answers only; the binary tensor extension is not offered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.package import Tensor
from edgekit_agent.errors import ModelError, RequestError
from edgekit_agent.serving.values import Prediction

Array = NDArray[Any]

DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
LABEL, CONFIDENCE = "label", "confidence"


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """A decoded request; `outputs` are the names asked for, None for all."""

    inputs: dict[str, Array]
    outputs: tuple[str, ...] | None = None
    id: str | None = None


def decode(body: bytes) -> InferRequest:
    """Read an inference request.

    Raises:
        RequestError: not JSON, or not as the protocol has it; the message names the member.
    """
    value = _json(body)
    request_id = value.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise _wrong("id", "a string was expected")
    inputs: dict[str, Array] = {}
    for index, item in enumerate(_objects(value, "inputs")):
        name, array = _tensor(item, f"inputs[{index}]")
        if name in inputs:
            raise _wrong(f"inputs[{index}].name", f"{name!r} is there twice")
        inputs[name] = array
    wanted = None
    if value.get("outputs"):
        items = _objects(value, "outputs")
        wanted = tuple(_text(item, f"outputs[{index}]", "name") for index, item in enumerate(items))
    return InferRequest(inputs=inputs, outputs=wanted, id=request_id)


def encode(slot: str, prediction: Prediction, wanted: Sequence[str] | None) -> bytes:
    """The answer as JSON: outputs, then label and confidence of classification outputs.

    Raises:
        RequestError: an output was asked for that does not exist.
        ModelError: an output holds what JSON cannot carry.
    """
    ran = prediction.ran
    outputs = {name: _output(name, np.asarray(array)) for name, array in prediction.outputs.items()}
    for name, decision in prediction.decisions.items():
        n = len(decision.labels)
        label, confidence = decision_names(name)
        outputs[label] = {"name": label, "datatype": "BYTES", "shape": [n], "data": list(decision.labels)}
        outputs[confidence] = {
            "name": confidence,
            "datatype": "FP32",
            "shape": [n],
            "data": list(decision.confidence),
        }
    if wanted is not None:
        unknown = sorted(set(wanted) - set(outputs))
        if unknown:
            raise RequestError(
                f"unknown output {', '.join(map(repr, unknown))}",
                remedy=f"the outputs are {', '.join(outputs)}",
                code="bad_outputs",
            )
        outputs = {name: outputs[name] for name in wanted}
    body: dict[str, Any] = {"model_name": ran.manifest.name, "model_version": ran.manifest.version}
    if prediction.request_id is not None:
        body["id"] = prediction.request_id
    body["parameters"] = {"slot": slot, "variant": ran.variant.id, "digest": ran.variant.digest}
    body["outputs"] = list(outputs.values())
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise ModelError("the model answered NaN or infinity", code="not_finite") from error


def decision_names(output: str) -> tuple[str, str]:
    """Names of the two extra outputs that a classification output has."""
    return f"{output}:{LABEL}", f"{output}:{CONFIDENCE}"


def metadata_tensors(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Tensors as model metadata names them."""
    return [
        {"name": item.name, "datatype": datatype_of(item.dtype), "shape": list(item.shape)}
        for item in tensors
    ]


def datatype_of(dtype: str) -> str:
    """The protocol's name of a numpy dtype."""
    return _DATATYPES.get(dtype, dtype.upper())


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}", code="bad_json") from error
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object", code="bad_json")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _objects(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = value.get(name)
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise _wrong(name, "a list of at least one object was expected")
    return items


def _text(item: Mapping[str, Any], where: str, name: str) -> str:
    text = item.get(name)
    if not isinstance(text, str):
        raise _wrong(f"{where}.{name}", "a string was expected")
    return text


def _tensor(item: Mapping[str, Any], where: str) -> tuple[str, Array]:
    name, datatype = _text(item, where, "name"), _text(item, where, "datatype")
    if datatype not in DTYPES:
        raise _wrong(f"{where}.datatype", f"{datatype!r}: one of {', '.join(DTYPES)} was expected")
    shape = item.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise _wrong(f"{where}.shape", "a list of whole numbers was expected")
    if "data" not in item:
        raise _wrong(f"{where}.data", "is missing; the binary tensor extension is not offered")
    array = typed(item["data"], np.dtype(DTYPES[datatype]), f"{where}.data")
    flat = array.ndim <= 1
    if flat and array.size == int(np.prod(shape, dtype=object)):
        return name, array.reshape(shape)
    if list(array.shape) != shape:
        raise _wrong(f"{where}.data", f"{list(array.shape)} values do not fit shape {shape}")
    return name, array


def typed(data: object, dtype: np.dtype[Any], where: str) -> Array:
    """JSON numbers or truth values as an array of `dtype`; nothing is rounded or wrapped.

    Raises:
        RequestError: ragged, texts, nulls, a fraction for an integer, a value out of its range.
    """
    if not isinstance(data, list):
        raise _wrong(where, "a list was expected")
    try:
        found = np.array(data)
    except (ValueError, OverflowError) as error:
        raise _wrong(where, "rows of one length were expected") from error
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if found.size and found.dtype.kind not in allowed:
        raise _wrong(where, f"values that fit {datatype_of(dtype.name)} were expected")
    if dtype.kind in "iu" and found.size:
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise _wrong(where, f"whole numbers within [{limits.min}, {limits.max}] were expected")
    with np.errstate(over="ignore"):
        return np.asarray(found.astype(dtype))


def _output(name: str, array: Array) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype_of(array.dtype.name),
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def _wrong(where: str, message: str) -> RequestError:
    return RequestError(message, where=where, code="bad_request")


__all__ = [
    "DTYPES",
    "InferRequest",
    "datatype_of",
    "decision_names",
    "decode",
    "encode",
    "metadata_tensors",
    "typed",
]
