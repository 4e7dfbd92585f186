"""What models of rows of numbers share: one float32 input ``X``, computed by the library that made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekit.package import Tensor
from edgekit_converters.frontends.emit import Emitter
from edgekit_converters.frontends.trees.from_xgboost import Boosted
from edgekit_converters.frontends.trees.plain import emit_ensemble
from edgekit_converters.values import Signature

INPUT = "X"
PROBABILITIES, LABEL, SCORES, PREDICTION = "probabilities", "label", "scores", "prediction"


class TabularModel:
    """A source whose library computes rows and whose ONNX form we have.

    Args:
        signature: one input `INPUT`.
        make: gives the ONNX form.
        compute: rows (N, features) float32 → outputs by name.
        tools: versions for the report.
    """

    def __init__(
        self,
        signature: Signature,
        make: Callable[[], onnx.ModelProto],
        compute: Callable[[Any], Mapping[str, Any]],
        tools: Mapping[str, str],
    ) -> None:
        self.signature = signature
        self._make, self._compute, self._tools = make, compute, tools

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        path.write_bytes(self._make().SerializeToString(deterministic=True))
        return self._tools

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        outputs = self._compute(np.asarray(inputs[INPUT], np.float32))
        ports = {port.name: port for port in self.signature.outputs}
        return {
            name: np.asarray(value).astype(ports[name].dtype).reshape(len(value), *ports[name].shape[1:])
            for name, value in outputs.items()
        }


def signature(
    features: int,
    outputs: Mapping[str, tuple[int, ...]],
    *,
    framework: str,
    activation: str = "none",
    labels: tuple[str, ...] = (),
) -> Signature:
    """`outputs` maps names to shapes after the batch; `LABEL` is int64, the rest float32."""
    return Signature(
        inputs=(Tensor(name=INPUT, dtype="float32", shape=(-1, features)),),
        outputs=tuple(
            Tensor(name=name, dtype="int64" if name == LABEL else "float32", shape=(-1, *shape))
            for name, shape in outputs.items()
        ),
        framework=framework,
        activation=activation,
        labels=labels,
    )


def linked(e: Emitter, sums: str, link: str) -> str:
    """What a boosted model makes of its sums: see `Boosted`."""
    if link == "hinge":
        return e.cast(e.op("Greater", sums, e.constant(0, np.float32)), np.float32)
    if link == "softmax":
        return e.op("Softmax", sums, axis=1)
    kinds = {"sigmoid": "Sigmoid", "exp": "Exp"}
    return e.op(kinds[link], sums) if link in kinds else sums


def boosted_signature(boosted: Boosted, framework: str) -> Signature:
    """One output: probabilities of a classifier (one column tells two classes apart), else predictions."""
    activation = boosted.link if boosted.link in ("sigmoid", "softmax") else "none"
    name = PREDICTION if activation == "none" else PROBABILITIES
    shape = {name: (boosted.ensemble.outputs,)}
    return signature(boosted.ensemble.features, shape, framework=framework, activation=activation)


def boosted_graph(boosted: Boosted, output: str) -> onnx.ModelProto:
    """The ONNX form of a boosted model with one output."""
    e = Emitter()
    e.op("Identity", linked(e, emit_ensemble(e, INPUT, boosted.ensemble), boosted.link), out=output)
    x = (INPUT, np.float32, ("N", boosted.ensemble.features))
    return e.model([x], [(output, np.float32, ("N", boosted.ensemble.outputs))])
