"""Calibration and validation data: reading npz files or folders, and checking them against a model.

An npz holds one array per input name (a single array needs no matching name), optionally ``labels``
and ``slice``. A folder holds several such npz files, joined in the order of their names, or one
``<input>.npy`` per input. Nothing is ever unpickled. Checks name the file, the array and the remedy.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.digest import sha256_file, sha256_hex
from edgekit.errors import DataError
from edgekit.package import Tensor

Array = NDArray[Any]
_SPECIAL = ("labels", "slice")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples by input name (first axis n), with labels and slice names where given.

    `digest` is hex over the files; `origin` is ``file`` or ``synthetic``.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    slices: Array | None = None
    where: str = ""
    digest: str = ""
    origin: str = "file"
    warnings: tuple[str, ...] = field(default=())

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(next(iter(self.inputs.values())).shape[0])

    def at(self, places: Sequence[int]) -> Dataset:
        """The samples at these places alone."""
        rows = list(places)
        return replace(
            self,
            inputs={name: value[rows] for name, value in self.inputs.items()},
            labels=None if self.labels is None else self.labels[rows],
            slices=None if self.slices is None else self.slices[rows],
        )


def read_dataset(path: Path, inputs: Sequence[Tensor], ranges: Mapping[str, tuple[float, float]]) -> Dataset:
    """Read and check data for a model with these `inputs`.

    Args:
        path: an npz file or a folder.
        inputs: the contract's inputs; -1 in a shape stands for the batch.
        ranges: the contract's (low, high) by input name, where it gives one.

    Raises:
        DataError: unreadable, empty, of the wrong dtype, shape, length or scale, or not finite.
    """
    arrays, files = _read(path)
    named = _match(arrays, inputs, path)
    for spec in inputs:
        _check(named[spec.name], spec, ranges.get(spec.name), f"{path}: {spec.name}")
    sizes = {name: len(array) for name, array in named.items()}
    if len(set(sizes.values())) != 1:
        raise DataError(
            f"the inputs have different numbers of samples: {sizes}",
            where=str(path),
            remedy="give every input the same samples, in the same order",
            code="wrong_length",
        )
    n = next(iter(sizes.values()))
    for name in _SPECIAL:
        if name in arrays and (arrays[name].ndim == 0 or len(arrays[name]) != n):
            got = arrays[name].shape[0] if arrays[name].ndim else "no axis"
            raise DataError(
                f"{n} samples need {n} {name}, not {got}",
                where=f"{path}: {name}",
                remedy="give one entry for each sample, in the same order",
                code="wrong_length",
            )
    _check_kind(arrays.get("labels"), path)
    return Dataset(
        inputs=named,
        labels=arrays.get("labels"),
        slices=arrays.get("slice"),
        where=str(path),
        digest=sha256_hex("".join(sha256_file(item) for item in files).encode()),
    )


def _check_kind(labels: Array | None, path: Path) -> None:
    """Labels are numbers, whatever the task; finite ones."""
    if labels is None:
        return
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
        raise DataError(
            f"{labels.dtype} is no kind of label" if labels.dtype.kind not in "biuf" else "NaN or infinity",
            where=f"{path}: labels",
            remedy="give class numbers from 0 in the order of the model's output, or the true values",
            code="wrong_labels",
        )


def check_labels(data: Dataset, classes: int) -> None:
    """Labels of a classifier: whole numbers within [0, classes).

    Raises:
        DataError: of another kind or out of range.
    """
    labels = data.labels
    if labels is None:
        return
    where = f"{data.where}: labels"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"one whole number a sample was expected, not {labels.dtype} {labels.shape}",
            where=where,
            remedy="store class numbers, labels.astype('int64'), one a sample; for other labels write "
            "the task into the contract (outputs.task)",
            code="wrong_labels",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"labels within [0, {classes - 1}] were expected, found [{low}, {high}]",
            where=where,
            remedy="labels are class numbers from 0 in the order of the model's output",
            code="wrong_labels",
        )


def synthetic(
    inputs: Sequence[Tensor], ranges: Mapping[str, tuple[float, float]], n: int, seed: int
) -> Dataset:
    """Seeded random inputs within the contract's ranges (else within [0, 1])."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for spec in inputs:
        low, high = ranges.get(spec.name, (0.0, 1.0))
        shape = (n, *spec.shape[1:])
        dtype = np.dtype(spec.dtype)
        if dtype.kind in "iu":
            arrays[spec.name] = random.integers(int(low), max(int(low) + 1, int(high)), shape).astype(dtype)
        else:
            arrays[spec.name] = random.uniform(low, high, shape).astype(dtype)
    return Dataset(inputs=arrays, where="synthetic", digest=f"seed-{seed}-{n}", origin="synthetic")


def calibration_warnings(data: Dataset, reference: Dataset | None) -> tuple[str, ...]:
    """Codes of what looks wrong with calibration data: too few, constant, duplicate, another scale."""
    found: list[str] = []
    if data.n < 32:
        found.append("too_few_samples")
    for array in data.inputs.values():
        flat = array.reshape(data.n, -1)
        if float(flat.min()) == float(flat.max()):
            found.append("constant_samples")
        elif data.n > 1 and len({row.tobytes() for row in flat}) <= data.n // 2:
            found.append("duplicate_samples")
    for name, array in data.inputs.items() if reference is not None else ():
        assert reference is not None
        ours, theirs = (float(np.abs(item).max()) for item in (array, reference.inputs[name]))
        if min(ours, theirs) > 0 and max(ours, theirs) / min(ours, theirs) > 16:
            found.append("scale_differs_from_validation")
    return tuple(dict.fromkeys(found))


def _read(path: Path) -> tuple[dict[str, Array], list[Path]]:
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise DataError("no such file or folder", where=str(path), remedy="give an npz file or a folder")
    return _read_npz(path), [path]


def _read_folder(path: Path) -> tuple[dict[str, Array], list[Path]]:
    packs = sorted(path.glob("*.npz"))
    singles = sorted(path.glob("*.npy"))
    if packs:
        parts = [_read_npz(item) for item in packs]
        names = set(parts[0])
        if any(set(part) != names for part in parts):
            raise DataError(
                "the npz files hold different arrays",
                where=str(path),
                remedy="give every file the same arrays: they are joined in the order of their names",
            )
        try:
            joined = {name: np.concatenate([part[name] for part in parts]) for name in sorted(names)}
        except ValueError as error:
            raise DataError(f"the npz files do not fit together: {error}", where=str(path)) from error
        return joined, packs
    if singles:
        return {item.stem: _read_npy(item) for item in singles}, singles
    raise DataError(
        "the folder holds no .npz or .npy file",
        where=str(path),
        remedy="save samples with numpy.savez(file, input_name=array)",
        code="empty_data",
    )


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        # From memory: numpy leaves the file open when the archive in it is damaged.
        content = path.read_bytes()
        if not content.startswith(b"PK"):  # numpy would take it for a pickle, or for a single array
            raise DataError(
                "not an npz archive",
                where=str(path),
                remedy="save it with numpy.savez(file, name=array)",
                code="unreadable_data",
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise _unreadable(path, error) from error
    if not arrays:
        raise DataError("the archive is empty", where=str(path), code="empty_data")
    return arrays


def _read_npy(path: Path) -> Array:
    try:
        loaded: Array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    return loaded


def _unreadable(path: Path, error: Exception) -> DataError:
    pickled = "allow_pickle" in str(error)
    why = "holds Python objects, which are never unpickled" if pickled else f"cannot be read: {error}"
    return DataError(
        why, where=str(path), remedy="save plain arrays with numpy.savez", code="unreadable_data"
    )


def safe_name(name: str) -> str:
    """An input's or output's name as every runtime takes it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _match(arrays: Mapping[str, Array], inputs: Sequence[Tensor], path: Path) -> dict[str, Array]:
    candidates = {name: array for name, array in arrays.items() if name not in _SPECIAL}
    names = [spec.name for spec in inputs]
    # The user may know the inputs by the source's own names.
    safe = {safe_name(name): array for name, array in candidates.items()}
    candidates = safe | candidates if len(safe) == len(candidates) else candidates
    if all(name in candidates for name in names):
        return {name: candidates[name] for name in names}
    if len(inputs) == 1 and len(safe) == 1:
        return {names[0]: next(iter(safe.values()))}
    raise DataError(
        f"arrays {sorted(arrays.keys() - set(_SPECIAL))} found, {names} expected",
        where=str(path),
        remedy="name the arrays like the model's inputs: numpy.savez(file, "
        + ", ".join(f"{name}=..." for name in names)
        + ")",
        code="missing_input",
    )


def _check(array: Array, spec: Tensor, limits: tuple[float, float] | None, where: str) -> None:
    if array.ndim == 0 or array.shape[0] == 0 or array.size == 0:
        raise DataError(
            "no samples", where=where, remedy="give at least one, better 100 or more", code="empty_data"
        )
    if str(array.dtype) != spec.dtype:
        raise DataError(
            f"dtype {array.dtype}, the model takes {spec.dtype}",
            where=where,
            remedy=f"store the samples as the model takes them, array.astype('{spec.dtype}') after scaling",
            code="wrong_dtype",
        )
    expected = spec.shape[1:]
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(expected, array.shape[1:], strict=True)
    )
    if not fits:
        shown = ", ".join(["n", *map(str, expected)])
        raise DataError(
            f"shape {array.shape}, ({shown}) was expected",
            where=where,
            remedy=_turned(array.shape, expected) or "the first axis counts the samples",
            code="wrong_shape",
        )
    if array.dtype.kind == "f":
        _check_values(array, limits, where)


def _turned(shape: tuple[int, ...], expected: tuple[int, ...]) -> str | None:
    """The advice for images of the other layout."""
    for order, name in (((0, 3, 1, 2), "channels-first"), ((0, 2, 3, 1), "channels-last")):
        if len(shape) == 4 and tuple(shape[axis] for axis in order[1:]) == tuple(expected):
            return f"the model takes {name} images: array.transpose{order}"
    return None


def _check_values(array: Array, limits: tuple[float, float] | None, where: str) -> None:
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"NaN or infinity in sample {int(np.flatnonzero(bad)[0])} ({int(bad.sum())} of {len(array)})",
            where=where,
            remedy="remove or repair these samples",
            code="not_finite",
        )
    if limits is None:
        return
    low, high = float(array.min()), float(array.max())
    slack = 0.01 * (limits[1] - limits[0])
    if low < limits[0] - slack or high > limits[1] + slack:
        raise DataError(
            f"values within [{low:g}, {high:g}], the contract says [{limits[0]:g}, {limits[1]:g}]",
            where=where,
            remedy="give samples as the model takes them (after preprocessing), or correct inputs.range",
            code="wrong_scale",
        )
