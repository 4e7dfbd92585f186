"""Proving a loaded candidate on this device before it gets any traffic.

*Package probes* ask "does this device compute what the converter computed?": the model alone, on the
contract's dtypes, against recorded outputs within a tolerance. *Ground-truth probes* ask "is the
model still right?": the slot's labelled inputs, as clients would send them, through the whole
pipeline. Each item is run by itself, as a request would be. What a miss means (enforce, observe) is the
lifecycle's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.errors import DocumentError, RefusedError
from edgekit_agent.errors import ModelError, RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.installed import Installed
    from edgekit_agent.serving.host import Candidate

PACKAGE = "package"
TRUTH = "truth"
LABELS = "labels"
SLICE = "slice"


class Computes(Protocol):
    """What package probes need: a loaded candidate, or a device on a serial line."""

    @property
    def installed(self) -> Installed: ...

    def run_model(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class ProbeOutcome:
    """What probes said. `right` has one character an item, in the file's order: ``1`` right, ``0`` wrong;
    `limit` is the tolerance (package) or the accuracy (truth) asked for; `detail` figures such as
    ``max_abs``, ``accuracy``, ``failed`` (items the model could not compute)."""

    kind: str
    n: int
    right: str
    passed: bool
    limit: float
    detail: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of items that are right."""
        return self.right.count("1") / self.n


def run_package_probes(candidate: Computes, npz: Path) -> ProbeOutcome:
    """Run the variant's package probes.

    Args:
        candidate: loaded, not serving.
        npz: arrays ``in:<name>`` and ``out:<name>``, first axis = items.

    Raises:
        DocumentError: the file is damaged or does not fit the variant.
        RefusedError: the manifest has no probes for this variant, or the model cannot compute one.
    """
    from edgekit_agent.npz import read_npz

    variant = candidate.installed.variant
    probe = variant.probe
    if probe is None:
        raise RefusedError("the package has no probes for it", where=variant.id, code="no_probes")
    arrays = read_npz(npz)
    inputs = _taken(arrays, "in:", [item.name for item in variant.inputs], npz)
    expected = _taken(arrays, "out:", [item.name for item in variant.outputs], npz)
    n = _items({**{f"in:{k}": v for k, v in inputs.items()}, **expected}, npz)
    if n != probe.n:
        raise _fail(npz, f"{n} items, the manifest says {probe.n}")
    got = [_computed(candidate, inputs, index) for index in range(n)]
    return _compare(got, expected, atol=probe.atol, agreement=probe.argmax_agreement, npz=npz)


def run_truth_probes(candidate: Candidate, npz: Path, min_accuracy: float) -> ProbeOutcome:
    """Run a slot's ground-truth probes through the whole pipeline of a candidate (or of the incumbent).

    Args:
        candidate: loaded.
        npz: one array per input name, as clients send them, and ``labels``: class numbers, or the
            labels' texts; first axis = items. A member ``slice`` is left alone.
        min_accuracy: share of items that must be right.

    Raises:
        DocumentError: the file is damaged, does not fit the model or has labels no class has.
        RefusedError: the model has no classification output to be right or wrong.
    """
    from edgekit_agent.npz import read_npz

    arrays = read_npz(npz)
    arrays.pop(SLICE, None)
    labels = arrays.pop(LABELS, None)
    if labels is None:
        raise _fail(npz, f"member {LABELS!r} is missing")
    inputs = _taken(arrays, "", list(candidate.pipeline.input_names), npz)
    n = _items({**inputs, LABELS: labels}, npz)
    output = _classified(candidate)
    truth = _class_numbers(candidate, output, labels, npz)
    right, failed = "", 0
    for index in range(n):
        answer = _answer(candidate, inputs, index, output, npz)
        failed += answer is None
        right += "1" if answer == truth[index] else "0"
    accuracy = right.count("1") / n
    return ProbeOutcome(
        kind=TRUTH,
        n=n,
        right=right,
        passed=accuracy >= min_accuracy,
        limit=min_accuracy,
        detail={"accuracy": round(accuracy, 6), "failed": float(failed)},
    )


def _compare(
    got: list[Mapping[str, Any]],
    expected: Mapping[str, NDArray[Any]],
    *,
    atol: float,
    agreement: float | None,
    npz: Path,
) -> ProbeOutcome:
    import numpy as np

    n = len(got)
    worst = np.zeros(n)
    same = np.ones(n, bool)
    for name, reference in expected.items():
        measured = np.concatenate([item[name] for item in got])
        if measured.shape != reference.shape:
            raise _fail(npz, f"out:{name} has shape {reference.shape}, the model gives {measured.shape}")
        wide, target = measured.astype(np.float64), reference.astype(np.float64)
        gap = np.abs(wide - target).reshape(n, -1).max(axis=1)
        worst = np.maximum(worst, np.where(np.isfinite(gap), gap, np.inf))
        if agreement is not None and wide.ndim > 1:
            same &= (wide.argmax(-1) == target.argmax(-1)).reshape(n, -1).all(axis=1)
    fine = worst <= atol
    agreed = float(same.mean())
    return ProbeOutcome(
        kind=PACKAGE,
        n=n,
        right="".join("1" if item else "0" for item in fine),
        passed=bool(fine.all()) and (agreement is None or agreed >= agreement),
        limit=atol,
        detail={"max_abs": float(min(worst.max(), 1e300)), "argmax_agreement": round(agreed, 6)},
    )


def _computed(candidate: Computes, inputs: Mapping[str, NDArray[Any]], index: int) -> Mapping[str, Any]:
    try:
        return candidate.run_model({name: array[index : index + 1] for name, array in inputs.items()})
    except ModelError as error:
        raise RefusedError(
            f"the model fails on package probe {index}: {error.message}",
            where=candidate.installed.variant.id,
            code="probe_failed",
        ) from error


def _answer(
    candidate: Candidate, inputs: Mapping[str, NDArray[Any]], index: int, output: str, npz: Path
) -> int | None:
    """The class the model names for one item, None when it fails on it."""
    sample = {
        name: candidate.pipeline.convert(name, array[index : index + 1]) for name, array in inputs.items()
    }
    try:
        return int(candidate.run(sample).decisions[output].classes[0])
    except ModelError:
        return None
    except RequestError as error:
        raise _fail(npz, f"item {index}: {error}") from error


def _taken(
    arrays: Mapping[str, NDArray[Any]], prefix: str, names: list[str], npz: Path
) -> dict[str, NDArray[Any]]:
    """The arrays called prefix + name, exactly these; a NaN is refused."""
    import numpy as np

    there = {name for name in arrays if name.startswith(prefix)}
    wanted = {prefix + name for name in names}
    if there != wanted:
        raise _fail(npz, f"arrays {sorted(wanted)} were expected, not {sorted(there)}")
    found = {name: arrays[prefix + name] for name in names}
    for name, array in found.items():
        if array.dtype.kind not in "biuf":
            raise _fail(npz, f"{prefix}{name}: numbers were expected, not {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _fail(npz, f"{prefix}{name} holds NaN or infinity")
    return found


def _items(arrays: Mapping[str, NDArray[Any]], npz: Path) -> int:
    """The number of items, the same in all arrays and at least one."""
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise _fail(npz, f"the same number of items in every array was expected, not {sizes}")
    return next(iter(sizes.values()))


def _classified(candidate: Candidate) -> str:
    outputs = list(candidate.pipeline.classes)
    if not outputs:
        raise RefusedError(
            "ground-truth probes need an output whose task is classification in the contract",
            where=candidate.installed.ref,
            code="no_classes",
        )
    return outputs[0]


def _class_numbers(candidate: Candidate, output: str, labels: NDArray[Any], npz: Path) -> list[int]:
    """Labels as class numbers; texts are looked up in the contract."""
    if labels.ndim != 1:
        raise _fail(npz, f"{LABELS}: one label an item was expected, not shape {labels.shape}")
    if labels.dtype.kind == "U":
        names = candidate.pipeline.labels(output)
        unknown = sorted(set(labels.tolist()) - set(names))
        if unknown:
            raise _fail(npz, f"{LABELS}: {', '.join(unknown[:5])} are not among the contract's labels")
        return [names.index(text) for text in labels.tolist()]
    if labels.dtype.kind not in "iu":
        raise _fail(npz, f"{LABELS}: class numbers or texts were expected, not {labels.dtype}")
    size = candidate.pipeline.classes[output]
    if labels.min() < 0 or labels.max() >= size:
        raise _fail(npz, f"{LABELS}: numbers within 0…{size - 1} were expected")
    return [int(number) for number in labels]


def _fail(npz: Path, message: str) -> DocumentError:
    return DocumentError(message, where=npz.name, code="bad_probes")


__all__ = ["PACKAGE", "TRUTH", "ProbeOutcome", "run_package_probes", "run_truth_probes"]
