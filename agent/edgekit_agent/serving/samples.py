"""Samples of the streams: one JSON object or one line of CSV in, one JSON object out.

In: ``{"id": …, "inputs": {"<name>": values, …}}``, where `values` are nested or flat lists in the
contract's order and a single sample needs no batch axis; with one input ``"inputs"`` may be the values
themselves; or the Open Inference Protocol's list of tensors. A CSV line is the one input's values.

Out: ``{"id", "model", "version", "variant", "outputs": {name: values}, "decisions": {name: {"label",
"class", "confidence"}}}`` (lists instead of single values for a batch), or ``{"id", "error", "code"}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgekit.errors import EdgekitError
from edgekit_agent.errors import RequestError
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.values import Decision, Prediction


def answer_json(host: ModelHost, slot: str, payload: bytes) -> tuple[bytes, bool]:
    """Compute one JSON sample: the answer, and whether it is a prediction (not an error)."""
    sample_id: Any = None
    try:
        try:
            sample_id, values = _parse(payload)
        except RequestError as error:
            host.reject(slot, error.code)
            raise
        return _encode(host.infer_values(slot, values), sample_id), True
    except EdgekitError as error:
        return _error(error, sample_id), False


def answer_csv(host: ModelHost, slot: str, line: str) -> tuple[bytes, bool]:
    """Compute one line of comma-separated numbers; the answer as for JSON."""
    try:
        try:
            values = [float(cell) if _has_point(cell) else int(cell) for cell in line.split(",")]
        except ValueError as error:
            host.reject(slot, "bad_csv")
            raise RequestError(
                "numbers with commas between them, or a JSON object, were expected", code="bad_csv"
            ) from error
        return _encode(host.infer_values(slot, values), None), True
    except EdgekitError as error:
        return _error(error, None), False


def malformed(message: str, code: str) -> bytes:
    """An answer to what is no sample at all."""
    return _error(RequestError(message, code=code), None)


def plain(prediction: Prediction) -> dict[str, Any]:
    """A prediction as JSON-ready values; a batch of one without its batch axis."""
    ran = prediction.ran
    return {
        "model": ran.manifest.name,
        "version": ran.manifest.version,
        "variant": ran.variant.id,
        "outputs": {name: _single(array.tolist()) for name, array in prediction.outputs.items()},
        "decisions": {name: _decision(item) for name, item in prediction.decisions.items()},
    }


def _parse(payload: bytes) -> tuple[Any, Any]:
    try:
        value = json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not valid JSON: {error}", code="bad_json") from error
    if isinstance(value, list):
        return None, value
    if not isinstance(value, dict) or "inputs" not in value:
        raise RequestError('a JSON object with "inputs" was expected', code="bad_json")
    return value.get("id"), _named(value["inputs"])


def _named(inputs: Any) -> Any:
    """Values by name; the protocol's list of tensors is brought into that form."""
    if not (isinstance(inputs, list) and inputs and all(isinstance(item, dict) for item in inputs)):
        return inputs
    from edgekit_agent.serving.oip import decode

    return decode(json.dumps({"inputs": inputs}).encode()).inputs


def _encode(prediction: Prediction, sample_id: Any) -> bytes:
    named = {} if sample_id is None else {"id": sample_id}
    return json.dumps({**named, **plain(prediction)}, separators=(",", ":")).encode()


def _error(error: EdgekitError, sample_id: Any) -> bytes:
    named = {} if sample_id is None else {"id": sample_id}
    return json.dumps({**named, "error": str(error), "code": error.code}, separators=(",", ":")).encode()


def _decision(item: Decision) -> Mapping[str, Any]:
    return {
        "label": _single(list(item.labels)),
        "class": _single(list(item.classes)),
        "confidence": _single(list(item.confidence)),
    }


def _single(values: Any) -> Any:
    return values[0] if isinstance(values, list) and len(values) == 1 else values


def _has_point(cell: str) -> bool:
    return not cell.strip().lstrip("+-").isdigit()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


__all__ = ["answer_csv", "answer_json", "malformed", "plain"]
