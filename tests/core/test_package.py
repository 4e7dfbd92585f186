"""The manifest: what is written is read, what was tampered with is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.digest import sha256_hex
from edgekit.errors import DocumentError, StorageError
from edgekit.package import (
    Distribution,
    File,
    Manifest,
    Probe,
    Quantization,
    Reference,
    Refusal,
    Requirements,
    Tensor,
    Variant,
    Verification,
    load_package,
    parse_manifest,
    split_ref,
    variant_digest,
)

_ID = "rpi4-tflite-int8"


def write_package(folder: Path) -> Manifest:
    """A small package on disk with made-up bytes (never loaded by a runtime here)."""
    model, probe = b"model bytes", b"probe bytes"
    files = (File(path=f"variants/{_ID}/model.tflite", sha256=sha256_hex(model), bytes=len(model)),)
    probes = File(path=f"probes/{_ID}.npz", sha256=sha256_hex(probe), bytes=len(probe))
    variant = Variant(
        id=_ID,
        digest=variant_digest(_ID, files),
        profile="rpi4",
        target="tflite",
        precision="int8",
        files=files,
        requires=Requirements(runtime="litert", min_runtime="2.3.0", machines=("aarch64",)),
        inputs=(
            Tensor(
                name="image",
                dtype="float32",
                shape=(-1, 8, 8, 1),
                artifact_name="serving_default_image:0",
                quantization=Quantization(scale=0.0625, zero_point=-128),
            ),
        ),
        outputs=(Tensor(name="digit", dtype="float32", shape=(-1, 10)),),
        verification=Verification(method="executed", verdict="pass", runtime="litert", n=540),
        probe=Probe(file=probes, n=4, atol=0.01, argmax_agreement=1.0),
    )
    manifest = Manifest(
        name="digits",
        version="1.0.0",
        source={"format": "keras", "sha256": "0" * 64},
        contract={"name": "digits"},
        variants=(variant,),
        refused=(Refusal(id="x", reason_code="tool_failed", detail="d", remedy="r"),),
        reference=Reference(outputs={"digit": Distribution(kind="classes", counts=(1,) * 10)}),
    )
    for path, data in ((files[0].path, model), (probes.path, probe), ("package.json", manifest.to_bytes())):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return manifest


def test_a_package_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = write_package(tmp_path)
    assert load_package(tmp_path) == manifest
    assert parse_manifest(manifest.to_bytes()).digest == manifest.digest


def test_a_flipped_byte_in_any_file_is_found(tmp_path: Path) -> None:
    manifest = write_package(tmp_path)
    for item in manifest.all_files():
        path = tmp_path / item.path
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(DocumentError, match="not the one") as caught:
            load_package(tmp_path)
        assert caught.value.code == "digest_mismatch"
        path.write_bytes(whole)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    manifest = write_package(tmp_path)
    (tmp_path / manifest.variants[0].files[0].path).unlink()
    with pytest.raises(StorageError, match=r"model\.tflite"):
        load_package(tmp_path)


def _broken(change: str) -> dict[str, Any]:
    folder_free: dict[str, Any] = json.loads(_bytes())
    variant = folder_free["variants"][0]
    match change:
        case "path leaves the folder":
            variant["files"][0]["path"] = "../../etc/passwd"
        case "digest":
            variant["digest"] = "sha256:" + "0" * 64
        case "verdict":
            variant["verification"]["verdict"] = "great"
        case "method":
            variant["verification"]["method"] = "believed"
        case "no files":
            variant["files"] = []
        case "twice":
            folder_free["variants"].append(variant)
        case "sha":
            variant["files"][0]["sha256"] = "XYZ"
        case "name":
            folder_free["name"] = "../x"
        case "schema":
            folder_free["schema"] = 2
    return folder_free


def _bytes() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_package(Path(folder)).to_bytes()


@pytest.mark.parametrize(
    "change",
    ["path leaves the folder", "digest", "verdict", "method", "no files", "twice", "sha", "name", "schema"],
)
def test_a_hostile_manifest_is_refused(change: str) -> None:
    with pytest.raises(DocumentError):
        parse_manifest(json.dumps(_broken(change)).encode())


@pytest.mark.parametrize("ref", ["digits", "@1", "digits@", "a/b@1", "digits@1/2", "digits@..", " @ "])
def test_a_bad_reference_is_refused(ref: str) -> None:
    with pytest.raises(DocumentError):
        split_ref(ref)
    assert split_ref("digits@1.0.0+abc") == ("digits", "1.0.0+abc")
