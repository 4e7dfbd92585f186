"""The values that travel between the stages; all of them go through JSON to the worker processes.

Nothing here imports numpy or anything foreign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.package import Quantization, Requirements, Tensor

EXACT = 1e-4
"""What two float computations of the same thing may differ by, as a share of the output's range."""
OTHER_KERNELS = ("tflm", "c99")
"""Targets whose kernels on this machine are not those of the board: their times here say nothing of it."""
_WORKERS = {"keras": "tensorflow", "savedmodel": "tensorflow", "torch": "torch", "torchscript": "torch"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The model as given. `kind` is a frontend's name; `digest` is hex over all its bytes."""

    path: str
    kind: str
    digest: str
    bytes: int

    @property
    def worker(self) -> str:
        """The kind of worker that can load it."""
        return _WORKERS.get(self.kind, "plain")


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs of a model, -1 for the batch; `framework` names what it was made with.

    `task` and `activation` are guesses from the last layer, to be overruled by the contract.
    `tolerance` is how far the ONNX form may be from the source, as a share of the output's range: more
    where the source computes with integers. `labels` are the first output's class names, if the source
    knows them.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    framework: str = ""
    activation: str = "none"
    tolerance: float = EXACT
    labels: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Signature:
        """Back from `to_dict`."""
        return cls(
            inputs=tuple(tensor(item) for item in value["inputs"]),
            outputs=tuple(tensor(item) for item in value["outputs"]),
            framework=value["framework"],
            activation=value["activation"],
            tolerance=value.get("tolerance", EXACT),
            labels=tuple(value.get("labels", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a target needs to build one artifact.

    `source` and `hub` are paths (the hub is the canonical float ONNX graph in the contract's names),
    `inputs` and `outputs` the contract's tensors, in the source's order; `calibration` an npz by
    input name and `ranges` the stored calibration of the hub, or None; `contract` the contract's
    inputs and outputs (JSON) where the options ask for an artifact that shows them to its users;
    `rules` names the profile's rules for this target (`edgekit.rules`), empty for the target's usual ones.
    """

    target: str
    precision: str
    source: Source
    hub: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    calibration: str | None = None
    ranges: str | None = None
    contract: Mapping[str, Any] = field(default_factory=dict)
    rules: str = ""
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Job:
        """Back from `to_dict`."""
        return cls(
            **{
                **value,
                "source": Source(**value["source"]),
                "inputs": tuple(tensor(item) for item in value["inputs"]),
                "outputs": tuple(tensor(item) for item in value["outputs"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a target wrote (an `edgekit.ports.Artifact`).

    `main` is the file or folder a runtime opens, relative to the variant's folder; `facts` what
    really happened (counts of integer ops and weights), `route` how it was made.
    """

    main: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    requires: Requirements
    route: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Built:
        """Back from `to_dict`."""
        needs = dict(value["requires"])
        needs["machines"] = tuple(needs["machines"])
        needs["cpu_features"] = tuple(needs["cpu_features"])
        return cls(
            **{
                **value,
                "inputs": tuple(tensor(item) for item in value["inputs"]),
                "outputs": tuple(tensor(item) for item in value["outputs"]),
                "requires": Requirements(**needs),
            }
        )


def tensor(value: Mapping[str, Any]) -> Tensor:
    """A Tensor back from ``asdict``."""
    quantization = value.get("quantization")
    return Tensor(
        name=value["name"],
        dtype=value["dtype"],
        shape=tuple(value["shape"]),
        artifact_name=value.get("artifact_name"),
        quantization=Quantization(**quantization) if quantization else None,
    )
