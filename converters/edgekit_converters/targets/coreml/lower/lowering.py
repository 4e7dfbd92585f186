"""`lower` and `save`: the whole way from the hub's graph to the package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import coremltools as ct
import onnx_ir as ir

from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.coreml.lower import boundary, package, program
from edgekit_converters.targets.coreml.lower.boundary import Port
from edgekit_converters.targets.coreml.lower.compress import SCHEMES, compress
from edgekit_converters.targets.coreml.lower.interface import Interface
from edgekit_converters.targets.coreml.lower.registry import RULES, accepts

SUPPORTED: frozenset[str] = frozenset(RULES)
"""The ONNX ops that are lowered as they are; the hub decomposes others into these."""


_HALF = ("fp16", "int8", *SCHEMES)
"""Precisions that compute in float16."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A program ready to be saved, and the map between its tensors and the source's."""

    program: Any
    target: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    interface: Interface
    facts: Mapping[str, Any]

    @property
    def min_runtime(self) -> str:
        """The iOS version that the program needs."""
        return f"{self.target.name.removeprefix('iOS')}.0"

    def to_artifact(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The source's inputs as the program takes them, by its names."""
        return boundary.to_program(self.inputs, arrays)

    def from_artifact(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The program's outputs as the source would have given them, by its names."""
        return boundary.from_program(self.outputs, arrays)


def target_of(name: str) -> Any:
    """coremltools' target called `name`, ``iOS15`` to ``iOS26``.

    Raises:
        Refusal: ``unknown_deployment_target``.
    """
    found = getattr(ct.target, name, None)
    if found is None or not name.startswith("iOS") or int(name[3:]) < 15:
        raise Refusal(
            f"coremltools has no ML Program deployment target {name!r}",
            remedy="iOS15, iOS16, iOS17, iOS18 or iOS26",
            code="unknown_deployment_target",
        )
    return found


def lower(
    model: ir.Model,
    *,
    deployment_target: str = "iOS17",
    precision: str = "fp32",
    interface: Interface | None = None,
) -> Lowered:
    """Build the MIL program for a canonical graph.

    Args:
        model: from `hub.canonical`; for ``int8`` with its quantize/dequantize pairs.
        deployment_target: ``iOS15`` to ``iOS26``.
        precision: ``fp32``, ``fp16``, ``int8`` (W8A8), or a weight compression of `compress.SCHEMES`.
        interface: images, class labels, ranges of free sizes.

    Raises:
        Refusal: with a reason code and the node named.
    """
    target, face = target_of(deployment_target), interface or Interface()
    legal = hub.legalise(program.without_empty_inputs(model), SUPPORTED, accepts)
    inputs, outputs = program.ports_of(legal, face)
    built = program.build(legal, inputs, outputs, target=target, interface=face)
    pairs = any(node.op_type == "QuantizeLinear" for node in legal.graph)
    package.optimise(built, half=precision in _HALF, quantized=pairs)
    facts = compress(built, precision, int(target.name[3:])) if precision in SCHEMES else {}
    if face.probabilities is not None:
        outputs = tuple(_probabilities(port, face) for port in outputs)
    return Lowered(
        program=built,
        target=target,
        inputs=inputs,
        outputs=outputs,
        interface=face,
        facts={**_facts(built), **facts},
    )


def _probabilities(port: Port, interface: Interface) -> Port:
    """The output that becomes a classifier's dictionary of probabilities."""
    if port.name != interface.probabilities:
        return port
    return replace(port, artifact_name=f"{package.LABEL}_probs")


def _facts(built: Any) -> dict[str, Any]:
    kinds = Counter(op.op_type for op in built.functions["main"].operations if op.op_type != "const")
    return {"ops": dict(sorted(kinds.items())), "op_count": sum(kinds.values())}


def save(lowered: Lowered, path: Path, *, description: str = "") -> None:
    """Write the package.

    Raises:
        Refusal: coremltools cannot write the program, or the saved one has other ports.
    """
    face = lowered.interface
    classifier = None
    outputs = [port.artifact_name for port in lowered.outputs]
    if face.probabilities is not None:
        place = next(i for i, port in enumerate(lowered.outputs) if port.name == face.probabilities)
        original = lowered.program.functions["main"].outputs[place].name
        classifier = ct.ClassifierConfig([*face.labels], package.LABEL, original)
        outputs = [package.LABEL, outputs.pop(place), *outputs]
    package.write(
        lowered.program, path, target=lowered.target, classifier=classifier, description=description
    )
    package.read_back(path, [port.artifact_name for port in lowered.inputs], outputs)
