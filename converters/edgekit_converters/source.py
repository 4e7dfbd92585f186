"""Recognising a model file by its content, and giving it a digest.

The name's ending is only a hint: a file is what its first bytes say. What is recognised but not
supported is named, so that the user knows what was understood.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgekit.digest import digest_of_files, sha256_file
from edgekit.errors import SourceError
from edgekit_converters.values import Source

SUPPORTED = "Keras 3 (.keras), Keras HDF5 (.h5), TensorFlow SavedModel (a folder) and ONNX (.onnx)"
_LIMIT = 2 << 30
_FOREIGN = {
    ".tflite": "a TFLite FlatBuffer",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML package",
    ".pt2": "a PyTorch exported program",
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".pkl": "a pickle, which can run code when loaded",
    ".joblib": "a pickle, which can run code when loaded",
    ".caffemodel": "a Caffe model",
    ".prototxt": "a Caffe model",
    ".json": "JSON",
    ".xml": "XML",
}


def recognise(path: Path) -> Source:
    """Find out what `path` is.

    Raises:
        SourceError: missing, empty, over 2 GiB, corrupt, or of a kind that is not supported.
    """
    if not path.exists():
        raise SourceError("no such file or folder", where=str(path), remedy="check the path of the model")
    kind = _folder_kind(path) if path.is_dir() else _file_kind(path)
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    beside = _external_data(path) if kind == "onnx" else []
    files += beside
    size = sum(item.stat().st_size for item in files)
    if size > _LIMIT:
        raise SourceError(
            f"{size / 2**30:.1f} GiB, at most 2 GiB can be converted",
            where=str(path),
            remedy="split the model, or store its weights in 16 bits",
            code="source_too_large",
        )
    if path.is_dir() or beside:
        # A file is named without its own name, so that renaming it does not change what it is.
        base = path if path.is_dir() else path.parent
        named = [
            ("" if item == path else item.relative_to(base).as_posix(), sha256_file(item)) for item in files
        ]
        digest = digest_of_files(named).removeprefix("sha256:")
    else:
        digest = sha256_file(path)
    return Source(path=str(path.resolve()), kind=kind, digest=digest, bytes=size)


def _external_data(path: Path) -> list[Path]:
    """Files beside an ONNX file that hold its weights: they are part of what the model is.

    What is missing or leads out of the folder is left to the frontend, which refuses it.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError):
        return []
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    places = {ExternalDataInfo(item).location for item in tensors if uses_external_data(item)}
    found = (path.parent / place for place in sorted(places) if ".." not in Path(place).parts)
    return [item for item in found if item.is_file() and path.parent in item.parents]


def _folder_kind(path: Path) -> str:
    if (path / "saved_model.pb").is_file():
        return "savedmodel"
    if path.suffix == ".mlpackage":
        raise _unsupported(path, _FOREIGN[".mlpackage"])
    raise _unsupported(path, "a folder without saved_model.pb")


def _file_kind(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise SourceError(f"cannot read: {error.strerror}", where=str(path)) from error
    if not head:
        raise SourceError("the file is empty", where=str(path), remedy="export the model again")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if head[4:8] == b"TFL3":
        raise _unsupported(path, _FOREIGN[".tflite"])
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if head[:1] == b"\x80" and path.suffix != ".onnx":
        raise _unsupported(path, _FOREIGN[".pkl"])
    if path.suffix in (".keras", ".h5", ".hdf5"):
        raise SourceError(
            "not a Keras file: neither a zip archive nor HDF5",
            where=str(path),
            remedy="the file is damaged or something else; save the model again",
            code="corrupt_source",
        )
    if path.suffix == ".onnx":
        return "onnx"
    raise _unsupported(path, _FOREIGN.get(path.suffix, "nothing that is known"))


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise SourceError(
            f"a damaged archive: {error}",
            where=str(path),
            remedy="copy or save the model again",
            code="corrupt_source",
        ) from error
    if broken is not None:
        raise SourceError(
            f"a damaged archive: {broken} has a wrong checksum",
            where=str(path),
            remedy="copy or save the model again",
            code="corrupt_source",
        )
    if {"config.json", "model.weights.h5"} <= names:
        return "keras"
    raise _unsupported(path, _FOREIGN.get(path.suffix, "a zip archive that is not a Keras model"))


def _unsupported(path: Path, what: str) -> SourceError:
    return SourceError(
        f"recognised as {what}; supported are {SUPPORTED}", where=str(path), code="unsupported_source"
    )
