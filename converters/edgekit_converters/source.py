"""Recognising a model file by its content, and giving it a digest.

The name's ending is only a hint: a file is what its first bytes say. What is recognised but not
supported is named, so that the user knows what was understood. A pickle can run code when it is
loaded: it passes only when the user trusts it.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from edgekit.digest import digest_of, digest_of_files, sha256_file
from edgekit.errors import SourceError
from edgekit_converters.values import Source

SUPPORTED = (
    "ONNX (.onnx), Keras 3 (.keras), Keras HDF5 (.h5), TensorFlow SavedModel (a folder), TFLite (.tflite), "
    "PyTorch (.pt2, TorchScript .pt, file.py:factory), Caffe (.prototxt with .caffemodel), XGBoost (.json, "
    ".ubj), LightGBM (.txt) and, with --trust, scikit-learn (.pkl, .joblib)"
)
_LIMIT = 2 << 30
_FOREIGN = {
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML package",
    ".safetensors": "weights without a model",
    ".json": "JSON that is not an XGBoost model",
    ".ubj": "binary JSON that is not an XGBoost model",
    ".txt": "text that is not a LightGBM model",
    ".xml": "XML",
    ".py": "Python code without the name of a factory (write file.py:factory)",
}
_BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError),
    *(UnicodeDecodeError, struct.error),
)
_PICKLES = (".pkl", ".pickle", ".joblib")
_PACKED = (b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00", b"\x04\x22\x4d\x18")
"""How compressed pickles of joblib begin."""


def recognise(path: Path, *, trust: bool = False) -> Source:
    """Find out what `path` is: a file, a folder, or ``file.py:factory``.

    Args:
        path: as the user wrote it.
        trust: whether a pickle may be loaded.

    Raises:
        SourceError: missing, empty, over 2 GiB, corrupt, not trusted, or of a kind that is not supported.
    """
    factory = _factory(path)
    if factory is not None:
        files = _around(factory)
        function = path.name.rpartition(":")[2]
        # One file may hold the factories of several models.
        named = digest_of({"function": function, "files": _digest(files, factory.parent, factory)})
        return Source(
            path=f"{factory.resolve()}:{function}",
            kind="torch",
            digest=named.removeprefix("sha256:"),
            bytes=_size(files, path),
        )
    if not path.exists():
        raise SourceError("no such file or folder", where=str(path), remedy="check the path of the model")
    kind = _folder_kind(path) if path.is_dir() else _file_kind(path, trust=trust)
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    files += _beside(path, kind)
    size = _size(files, path)
    # A file is named without its own name, so that renaming it does not change what it is.
    alone = len(files) == 1 and not path.is_dir()
    base = path if path.is_dir() else path.parent
    digest = sha256_file(path) if alone else _digest(files, base, path)
    return Source(path=str(path.resolve()), kind=kind, digest=digest, bytes=size)


def caffe_pair(path: Path) -> tuple[Path, Path]:
    """The ``.prototxt`` and ``.caffemodel`` of which `path` is one: the same name, else the only other.

    Raises:
        SourceError: the other is missing, or it is not clear which it is.
    """
    text = path.suffix != ".caffemodel"
    other = ".caffemodel" if text else ".prototxt"
    found = path.with_suffix(other)
    if not found.is_file():
        candidates = sorted(path.parent.glob(f"*{other}"))
        if len(candidates) != 1:
            raise SourceError(
                f"a Caffe model needs its {other} file beside it; {len(candidates)} were found",
                where=str(path),
                remedy=f"put it there as {found.name}",
                code="missing_file",
            )
        found = candidates[0]
    return (path, found) if text else (found, path)


def _factory(path: Path) -> Path | None:
    """The Python file of ``file.py:factory``, None if `path` is no such thing."""
    name, colon, function = path.name.rpartition(":")
    if not colon or not name.endswith(".py") or path.exists():
        return None
    file = path.with_name(name)
    if not function.isidentifier():
        raise SourceError(
            f"{function!r} is no name of a function", where=str(path), remedy="write file.py:factory"
        )
    if not file.is_file():
        raise SourceError("no such file", where=str(file), remedy="check the path of the Python file")
    return file


def _around(file: Path) -> list[Path]:
    """A factory's file and what lies beside it (weights, other modules): all that may make the model."""
    beside = (item for item in file.parent.iterdir() if item.is_file() and not item.name.startswith("."))
    return [file, *sorted(item for item in beside if item != file)]


def _size(files: Sequence[Path], path: Path) -> int:
    size = sum(item.stat().st_size for item in files)
    if size > _LIMIT:
        raise SourceError(
            f"{size / 2**30:.1f} GiB, at most 2 GiB can be converted",
            where=str(path),
            remedy="split the model, or store its weights in 16 bits",
            code="source_too_large",
        )
    return size


def _digest(files: Sequence[Path], base: Path, path: Path) -> str:
    named = [("" if item == path else item.relative_to(base).as_posix(), sha256_file(item)) for item in files]
    return digest_of_files(named).removeprefix("sha256:")


def _beside(path: Path, kind: str) -> list[Path]:
    """Other files that are part of the model."""
    if kind == "onnx":
        return _external_data(path)
    if kind == "caffe":
        return [item for item in caffe_pair(path) if item != path]
    if kind == "torchscript":  # the contract says its inputs, which it does not know itself
        return [item for item in (path.with_name("model.toml"),) if item.is_file()]
    return []


def _external_data(path: Path) -> list[Path]:
    """Files beside an ONNX file that hold its weights: they are part of what the model is.

    What is missing or leads out of the folder is left to the frontend, which refuses it.
    """
    return [item for item in weight_files(path) if item.is_file()]


def weight_files(path: Path) -> list[Path]:
    """The files within an ONNX file's folder that it says its weights lie in, there or not."""
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
    return [item for item in found if path.parent in item.parents]


def _folder_kind(path: Path) -> str:
    if (path / "saved_model.pb").is_file():
        return "savedmodel"
    if path.suffix == ".mlpackage":
        raise _unsupported(path, _FOREIGN[".mlpackage"])
    raise _unsupported(path, "a folder without saved_model.pb")


def _file_kind(path: Path, *, trust: bool) -> str:
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise SourceError(f"cannot read: {error.strerror}", where=str(path)) from error
    if not head:
        raise SourceError("the file is empty", where=str(path), remedy="export the model again")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if _is_pickle(head, path.suffix):
        return _trusted(path, trust=trust)
    if path.suffix in (".keras", ".h5", ".hdf5"):
        raise SourceError(
            "not a Keras file: neither a zip archive nor HDF5",
            where=str(path),
            remedy="the file is damaged or something else; save the model again",
            code="corrupt_source",
        )
    return _kind_of_text(path, head) or _kind_by_suffix(path)


def _kind_of_text(path: Path, head: bytes) -> str | None:
    """Formats that begin with words."""
    if head.startswith(b"{") and b"learner" in head and path.suffix != ".onnx":
        return "xgboost"
    if head.startswith((b"tree\n", b"tree\r\n")):
        return "lightgbm"
    words = head.split(b"#", 1)[0] if path.suffix != ".prototxt" else b""
    if path.suffix == ".prototxt" or b"layer {" in words or b"layers {" in words:
        return "caffe"
    return None


def _kind_by_suffix(path: Path) -> str:
    """Formats without a mark at their beginning (protobuf): what the name says."""
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix == ".caffemodel":
        return "caffe"
    if path.suffix in (".pt", ".pth", ".pt2"):
        raise SourceError(
            "not a PyTorch file: no zip archive",
            where=str(path),
            remedy="the file is damaged, or older than PyTorch 1.6; save the model again",
            code="corrupt_source",
        )
    raise _unsupported(path, _FOREIGN.get(path.suffix, "nothing that is known"))


def _is_pickle(head: bytes, suffix: str) -> bool:
    if head[:1] == b"\x80" and suffix != ".onnx" and len(head) > 1 and head[1] <= 5:
        return True
    return suffix in _PICKLES and (head.startswith(_PACKED) or suffix != ".joblib" or head[:1] == b"\x80")


def _trusted(path: Path, *, trust: bool) -> str:
    if trust:
        return "sklearn"
    raise SourceError(
        "recognised as a pickle, which runs whatever code is in it when it is loaded",
        where=str(path),
        remedy="if you made it yourself or know who did, give --trust; otherwise ask for the model as ONNX",
        code="needs_trust",
    )


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            broken = archive.testzip()
    except _BROKEN_ZIP as error:
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
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in inner:
        return "torch"
    if any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "data.pkl" in inner:
        raise SourceError(
            "recognised as a PyTorch pickle: weights, or a module that needs its own code",
            where=str(path),
            remedy="save the program: torch.export.save(torch.export.export(module, inputs), 'model.pt2'), "
            "or give file.py:factory",
            code="unsupported_source",
        )
    if "schema.json" in names:
        raise _unsupported(path, "a skops file")
    raise _unsupported(path, _FOREIGN.get(path.suffix, "a zip archive that is not a Keras model"))


def _unsupported(path: Path, what: str) -> SourceError:
    return SourceError(
        f"recognised as {what}; supported are {SUPPORTED}", where=str(path), code="unsupported_source"
    )
