"""What inference gives back; shared by the host, the pipeline and every way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekit.ports import Arrays
from edgekit_agent.installed import Installed
from edgekit_agent.windows import Observations


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a classification output says, sample by sample.

    `classes` are the argmaxes, `confidence` their probabilities, `labels` the names: the contract's
    label, or its number where there are none, or the fallback (``abstain`` if none is named) where
    the confidence is below the contract's threshold.
    """

    classes: Sequence[int]
    confidence: Sequence[float]
    labels: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One batch through the pipeline: outputs after postprocessing, decisions, milliseconds per stage,
    and the bins it fell into."""

    outputs: Arrays
    decisions: Mapping[str, Decision]
    stages: tuple[tuple[str, float], ...]
    observations: Observations


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An answer: numpy `outputs` by name (first axis = batch), `decisions` of classification outputs,
    `ran` = what computed it, `stages` = milliseconds per stage."""

    outputs: Arrays
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    ran: Installed
    request_id: str | None = None
    stages: tuple[tuple[str, float], ...] = ()


__all__ = ["Decision", "Prediction", "Result"]
