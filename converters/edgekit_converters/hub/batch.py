"""Whether the samples of a batch are computed apart from each other.

Devices run one sample at a time. A model that, say, subtracts the mean of its batch computes
something else there than on the evaluation data, and no converter can know which is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.errors import SourceError
from edgekit_converters.onnx_session import REFUSALS, OnnxSession

_NODE = re.compile(r"while running (\S+) node\. Name:'([^']*)'")
_SAMPLES = 8
_LIMIT = 1e-3


def mixes_batch(session: OnnxSession, inputs: Mapping[str, Any]) -> str | None:
    """The output for which samples alone give other results than together; None when none does.

    Args:
        session: of a model whose batch is free; with a fixed one there is nothing to compare.
        inputs: samples by input name, the batch first.
    """
    first = {name: value[:_SAMPLES] for name, value in inputs.items()}
    count = len(next(iter(first.values())))
    if session.fixed or count < 2:
        return None
    together = session.step(first)
    try:
        alone = [session.step({k: v[i : i + 1] for k, v in first.items()}) for i in range(count)]
    except REFUSALS:
        return next(iter(together))
    for name, whole in together.items():
        parts = np.concatenate([item[name] for item in alone])
        if parts.shape != whole.shape or not _close(whole, parts):
            return name
    return None


def run_error(
    model: Path | bytes, inputs: Mapping[str, Any], error: BaseException, *, where: str | None = None
) -> SourceError:
    """What onnxruntime's `error` on `inputs` means, with the node: most often a constant in the graph (a
    Reshape's sizes, a token that is joined to the samples) fixes the batch, which the ports leave free."""
    named = _with_names(model)
    said = _failure(named, {name: value[:2] for name, value in inputs.items()}) or str(error)
    alone = _failure(named, {name: value[:1] for name, value in inputs.items()})
    found = _NODE.search(said)
    node = f"{found[1]} {found[2]!r}" if found else "a node"
    if alone is None:
        return SourceError(
            f"{node}: a constant in the graph fixes the batch; it takes one sample, and no two at once",
            where=where,
            remedy="export the model with a batch of one, or without constants that count the samples",
            code="fixed_batch",
        )
    plain = _plain(said)
    if any(word in plain.lower() for word in ("dimension", "shape")):
        return SourceError(
            f"{node}: its sizes do not fit these samples; most likely a constant in the graph counts them "
            f"({plain})",
            where=where,
            remedy="export the model with a free batch, or a batch of one",
            code="fixed_batch",
        )
    return SourceError(
        f"{node}: onnxruntime cannot compute it for these samples: {plain}",
        where=where,
        remedy="give samples that the model is made for (--calibration, --validation, inputs.range)",
        code="source_fails",
    )


def _with_names(model: Path | bytes) -> bytes:
    """The model with a name for every node: the first tensor that it makes."""
    proto = onnx.load(model) if isinstance(model, Path) else onnx.load_from_string(model)
    for node in proto.graph.node:
        node.name = next((item for item in node.output if item), node.name)
    data: bytes = proto.SerializeToString()
    return data


def _failure(model: bytes, inputs: Mapping[str, Any]) -> str | None:
    """What onnxruntime says of one call, None when it is content."""
    try:
        OnnxSession(model, optimized=False).step(inputs)
    except REFUSALS as error:
        return str(error)
    return None


def _plain(said: str) -> str:
    """The runtime's sentence without its source places and codes."""
    text = said.rpartition("Status Message: ")[2]
    return " ".join(re.sub(r"\S+\.(?:h|cc):\d+|\S*::\S*\([^)]*\)", "", text).split())[:200]


def _close(whole: Any, parts: Any) -> bool:
    """Equal but for the order of additions."""
    if whole.dtype.kind != "f":
        return float(np.mean(whole != parts)) < _LIMIT
    finite = whole[np.isfinite(whole)].astype(np.float64)
    reach = float(np.ptp(finite)) if finite.size else 0.0
    allowed = _LIMIT * reach + 1e-6
    return bool(np.allclose(whole, parts, rtol=_LIMIT, atol=allowed, equal_nan=True))
