"""Embedded and batch mode: the library's `Model`, and files in, files out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit_agent
from edgekit.digest import canonical_json
from edgekit.errors import DataError, DocumentError, RefusedError, UnavailableError, UsageError
from edgekit.package import Manifest
from edgekit_agent import Model, RequestError
from edgekit_agent.config import Config
from edgekit_agent.detect import detect
from edgekit_agent.serving.batch import run_batch
from tests.agent.models import LABELS, classes_of, installed, samples


def package(folder: Path, *, kind: str = "onnx", **changes: Any) -> Path:
    """A package on disk whose one variant is for this machine (or as `changes` of the variant say)."""
    thing = installed(folder, kind=kind)
    profiles = detect(Config()).facts.profiles
    variant = replace(thing.variant, **{"profile": profiles[0] if profiles else "none", **changes})
    write(folder, replace(thing.manifest, variants=(variant,)))
    return folder


def write(folder: Path, manifest: Manifest) -> None:
    (folder / "package.json").write_bytes(canonical_json(manifest.to_dict()))


def test_the_public_names_are_pinned_and_light() -> None:
    assert set(edgekit_agent.__all__) == {"Decision", "Model", "ModelError", "Prediction", "RequestError"}
    assert all(getattr(edgekit_agent, name) for name in edgekit_agent.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = edgekit_agent.nothing
    program = (
        "import sys, edgekit_agent\n"
        "assert not {'numpy', 'asyncio', 'edgekit', 'paho', 'json'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("kind", ["onnx", "tflite", "tflite-int8"])
def test_a_package_is_opened_by_its_variant_and_predicts(tmp_path: Path, kind: str) -> None:
    with Model.open(package(tmp_path, kind=kind), f"host-{kind}") as model:
        assert (model.name, model.version, model.variant.id) == ("animals", "1", f"host-{kind}")
        answer = model.predict({"x": samples(5)}, request_id="a")
        assert list(answer.decisions["y"].classes) == classes_of(samples(5))
        assert answer.request_id == "a"
        single = model.predict(samples(1)[0].tolist())
        assert single.decisions["y"].labels == [LABELS[0]]
        assert model.predict(samples(2).astype(np.float64)).outputs["y"].shape == (2, 3)


def test_without_a_variant_the_one_for_this_machine_is_chosen(tmp_path: Path) -> None:
    if not detect(Config()).facts.profiles:
        pytest.skip("no hardware profile matches this machine")
    with Model.open(package(tmp_path)) as model:
        assert model.variant.id == "host-onnx"


def test_a_package_for_other_machines_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="made for rpi4"):
        Model.open(package(tmp_path, profile="rpi4"))


def test_an_unknown_variant_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="host-onnx"):
        Model.open(package(tmp_path), "ghost")


def test_a_runtime_that_is_not_here_is_named(tmp_path: Path) -> None:
    from edgekit.package import Requirements

    with pytest.raises(UnavailableError, match="coreml"):
        Model.open(package(tmp_path, requires=Requirements(runtime="coreml")), "host-onnx")


def test_a_flipped_byte_is_never_loaded(tmp_path: Path) -> None:
    folder = package(tmp_path)
    path = next(folder.glob("variants/*/model.onnx"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DocumentError) as caught:
        Model.open(folder, "host-onnx")
    assert caught.value.code == "digest_mismatch"


@pytest.mark.parametrize("wrong", [[1, 2], "text", None, {"z": [1, 2, 3, 4]}, [[1, 2, 3, 4], [5]], [{}]])
def test_wrong_values_are_request_errors(tmp_path: Path, wrong: Any) -> None:
    with Model.open(package(tmp_path), "host-onnx") as model, pytest.raises(RequestError):
        model.predict(wrong)


def batch_model(folder: Path) -> Model:
    return Model.open(package(folder / "package"), "host-onnx")


def test_batch_answers_an_npz_in_pieces_and_reports_accuracy(tmp_path: Path) -> None:
    inputs = samples(150)
    labels = np.array(classes_of(inputs))
    labels[:15] = (labels[:15] + 1) % 3
    np.savez(tmp_path / "data.npz", anything=inputs, labels=labels)
    with batch_model(tmp_path) as model:
        summary = run_batch(model, tmp_path / "data.npz", tmp_path / "out")
    assert (summary.files, summary.samples, summary.accuracy) == (1, 150, 0.9)
    with np.load(tmp_path / "out" / "data.npz", allow_pickle=False) as answers:
        assert answers["y"].shape == (150, 3)
        assert answers["y:class"].tolist() == classes_of(inputs)
        assert answers["y:confidence"].shape == (150,)


def test_batch_answers_a_folder_of_json_and_csv(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    rows = samples(3).tolist()
    (source / "a.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    (source / "b.json").write_text(json.dumps([{"inputs": {"x": row}} for row in rows]))
    (source / "notes.txt").write_text("not data")
    with batch_model(tmp_path) as model:
        summary = run_batch(model, source, tmp_path / "out", form="json")
    assert (summary.files, summary.samples, summary.accuracy) == (2, 6, None)
    for name in ("a", "b"):
        answers = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert [item["decisions"]["y"]["class"] for item in answers] == classes_of(samples(3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"1,2,x,4", "cannot be read"),
        ("a.csv", b"1,2", "sample 0"),
        ("a.json", b"{", "cannot be read"),
        ("a.json", b'{"inputs": {"z": 1}}', "sample 0"),
        ("a.txt", b"", "no .npz"),
    ],
)
def test_batch_names_the_file_and_sample_that_do_not_fit(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with batch_model(tmp_path) as model, pytest.raises(DataError, match=message):
        run_batch(model, tmp_path / name, tmp_path / "out")


def test_batch_never_overwrites_its_source_or_an_answer(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=samples(1))
    (tmp_path / "data.csv").write_text("1,2,3,4")
    with batch_model(tmp_path) as model:
        with pytest.raises(DataError, match="overwrite"):
            run_batch(model, tmp_path / "data.npz", tmp_path)
        (tmp_path / "sub").mkdir()
        for name in ("data.npz", "data.csv"):
            (tmp_path / name).rename(tmp_path / "sub" / name)
        with pytest.raises(DataError, match="overwrite"):
            run_batch(model, tmp_path / "sub", tmp_path / "out")
