"""Batch mode: files of samples in, files of predictions out.

A source is an ``.npz`` (one array per input name; a single array needs no matching name; with
``labels`` the accuracy is reported), a ``.json`` (one sample, or a list of samples, as streams take
them) or a ``.csv`` (a sample a line), or a folder of these. Answers get the source's stem; ``.npz``
holds outputs and, per classification output, ``<name>:class`` and ``<name>:confidence``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.files import atomic_write, read_bytes
from edgekit_agent.errors import RequestError
from edgekit_agent.npz import read_npz
from edgekit_agent.serving.model import Model
from edgekit_agent.serving.samples import plain
from edgekit_agent.serving.values import Prediction

FORMATS = ("npz", "json")
SUFFIXES = (".npz", ".json", ".csv")
PIECE = 64
_LABELS = "labels"
_MAX_TEXT = 256 << 20


@dataclass(frozen=True, kw_only=True)
class BatchSummary:
    """What was done: files and samples, accuracy where there were labels, and where the answers lie."""

    files: int
    samples: int
    written: tuple[Path, ...] = ()
    accuracy: float | None = None
    model: str = ""
    variant: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "files": self.files,
            "samples": self.samples,
            "written": [str(path) for path in self.written],
            "accuracy": self.accuracy,
            "model": self.model,
            "variant": self.variant,
        }


@dataclass(kw_only=True)
class _Tally:
    samples: int = 0
    right: int = 0
    labelled: int = 0
    written: list[Path] = field(default_factory=list)


def run_batch(model: Model, source: Path, out: Path, *, form: str = "npz") -> BatchSummary:
    """Compute everything in `source` and write the answers below `out`.

    Args:
        model: an open model.
        source: a file, or a folder of files (not looked into deeper).
        out: folder for the answers; made if missing.
        form: ``npz`` or ``json``.

    Raises:
        DataError: nothing to compute, or a file that does not fit the model; files before it are written.
        StorageError: an answer cannot be written.
    """
    if form not in FORMATS:
        raise DataError(f"{form!r}: one of {', '.join(FORMATS)} was expected", where="format")
    tally = _Tally()
    sources = _sources(source)
    for path in sources:
        target = out / f"{path.stem}.{form}"
        if target.resolve() == path.resolve() or target in tally.written:
            raise DataError(
                "the answer would overwrite another file", where=str(target), remedy="choose another folder"
            )
        answers = list(_answers(model, path, tally))
        _write(target, answers, form)
        tally.written.append(target)
    return BatchSummary(
        files=len(sources),
        samples=tally.samples,
        written=tuple(tally.written),
        accuracy=tally.right / tally.labelled if tally.labelled else None,
        model=f"{model.name}@{model.version}",
        variant=model.variant.id,
    )


def _sources(source: Path) -> list[Path]:
    if source.is_dir():
        found = sorted(path for path in source.iterdir() if path.suffix in SUFFIXES)
    else:
        found = [source] if source.is_file() and source.suffix in SUFFIXES else []
    if not found:
        raise DataError(
            f"no {', '.join(SUFFIXES)} file is there",
            where=str(source),
            remedy="name a file or a folder of them",
        )
    return found


def _answers(model: Model, path: Path, tally: _Tally) -> Iterator[Prediction]:
    """Predictions of one file, in pieces."""
    try:
        if path.suffix == ".npz":
            yield from _from_npz(model, path, tally)
            return
        for index, sample in enumerate(_samples(path)):
            try:
                prediction = model.predict(sample)
            except RequestError as error:
                raise DataError(f"sample {index}: {error}", where=str(path)) from error
            tally.samples += 1
            yield prediction
    except RequestError as error:
        raise DataError(str(error), where=str(path)) from error


def _from_npz(model: Model, path: Path, tally: _Tally) -> Iterator[Prediction]:
    arrays = dict(read_npz(path))
    labels = arrays.pop(_LABELS, None)
    arrays.pop("slice", None)
    if len(arrays) == 1 and len(model.inputs) == 1:
        arrays = {model.inputs[0].name: next(iter(arrays.values()))}
    sizes = {len(array) if array.ndim else 0 for array in arrays.values()}
    if labels is not None:
        sizes.add(labels.shape[0] if labels.ndim == 1 else 0)
    if len(sizes) != 1 or 0 in sizes:
        raise DataError("the same number of samples in every array was expected", where=str(path))
    for start in range(0, sizes.pop(), PIECE):
        prediction = model.predict({name: array[start : start + PIECE] for name, array in arrays.items()})
        n = len(next(iter(prediction.outputs.values())))
        tally.samples += n
        if labels is not None:
            _count(prediction, labels[start : start + n], tally)
        yield prediction


def _count(prediction: Prediction, labels: NDArray[Any], tally: _Tally) -> None:
    decision = next(iter(prediction.decisions.values()), None)
    if decision is not None:
        told = decision.labels if labels.dtype.kind == "U" else decision.classes
        tally.right += sum(a == b for a, b in zip(told, labels.tolist(), strict=True))
        tally.labelled += len(labels)


def _samples(path: Path) -> Iterator[Any]:
    text = read_bytes(path, limit=_MAX_TEXT)
    try:
        if path.suffix == ".csv":
            for line in text.decode("utf-8").splitlines():
                if line.strip():
                    yield [float(cell) for cell in line.split(",")]
            return
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    for item in value if isinstance(value, list) else [value]:
        yield item["inputs"] if isinstance(item, Mapping) and "inputs" in item else item


def _write(target: Path, answers: list[Prediction], form: str) -> None:
    if form == "json":
        atomic_write(target, json.dumps([plain(item) for item in answers], allow_nan=False).encode())
        return
    arrays: dict[str, NDArray[Any]] = {}
    for name in answers[0].outputs if answers else ():
        arrays[name] = np.concatenate([np.asarray(item.outputs[name]) for item in answers])
    for name in answers[0].decisions if answers else ():
        arrays[f"{name}:class"] = np.concatenate([item.decisions[name].classes for item in answers])
        arrays[f"{name}:confidence"] = np.concatenate([item.decisions[name].confidence for item in answers])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes the names for allow_pickle
    atomic_write(target, buffer.getvalue())


__all__ = ["FORMATS", "BatchSummary", "run_batch"]
