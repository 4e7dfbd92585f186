"""Finished packages: checked again, compared, handed over; what was tampered with is named."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click import Command
from click.testing import CliRunner

from edgekit.errors import EdgekitError, UsageError
from edgekit.package import load_package
from edgekit_converters.cli_package import diff, export, verify
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.handover.export import export_variant
from edgekit_converters.report.sbom import bill_of_materials
from edgekit_converters.review.diff import differences
from tests.converters.graphs import save, small_cnn


@pytest.fixture(scope="module")
def made(workers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review")
    (folder / "model.toml").write_text('[model]\nname = "cnn"\nversion = "1"\nlicence = "MIT"\n')
    random = np.random.default_rng(0).random((64, 3, 8, 8), np.float32)
    np.savez(folder / "cal.npz", random)
    _convert(workers, folder, "package", save(small_cnn(), folder / "cnn.onnx"))
    return folder


def _convert(workers: Pool, folder: Path, name: str, source: Path) -> None:
    request = Request(
        source=source,
        profiles=("x86-64-onnx", "rpi4", "iphone-15"),
        targets=("onnx", "tflite", "coreml"),
        precisions=("fp32", "fp16"),
        contract=folder / "model.toml",
        calibration=folder / "cal.npz",
        out=folder / name,
        cache=folder / "cache",
        allow_breach=True,
    )
    convert(request, pool=workers)


def checks(package: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(verify, [str(package), "--json", *more], catch_exceptions=False)
    return done.exit_code, json.loads(done.output)


def test_a_whole_package_is_good_and_its_probes_ran(made: Path) -> None:
    code, found = checks(made / "package")
    assert (code, found["good"]) == (0, True)
    ran = [item for item in found["checks"] if item["check"] == "probes"]
    assert {item["result"] for item in ran} == {"ok"}
    assert len(ran) == len(load_package(made / "package").variants) >= 3


def test_a_flipped_byte_is_named_and_nothing_of_it_is_run(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "package", tmp_path / "copy")
    victim = load_package(copy).variants[0].files[0].path
    data = bytearray((copy / victim).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / victim).write_bytes(data)
    code, found = checks(copy)
    bad = [item["subject"] for item in found["checks"] if item["result"] == "failed"]
    assert (code, bad) == (3, [victim])
    assert not any(item["check"] == "probes" for item in found["checks"])


def test_what_the_report_says_of_a_variants_file_leads_nowhere_else(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "package", tmp_path / "copy")
    path = copy / "report" / "report.json"
    report = json.loads(path.read_text())
    for name in report["variants"]:
        report["variants"][name]["main"] = "../../../other/model.onnx"
    path.write_text(json.dumps(report))
    assert checks(copy)[1]["good"]
    shutil.rmtree(copy / "report")
    code, found = checks(copy)
    assert code == 0
    assert {item["result"] for item in found["checks"] if item["check"] == "probes"} == {"ok"}


def test_probes_that_another_model_made_fail(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "package", tmp_path / "copy")
    manifest = json.loads((copy / "package.json").read_text())
    first, *_ = [item for item in manifest["variants"] if item["target"] == "onnx"]
    first["probe"]["atol"] = 1e-30
    probe = copy / first["probe"]["file"]["path"]
    with np.load(probe) as archive:
        arrays = {name: archive[name] + (0.5 if name.startswith("out:") else 0) for name in archive.files}
    np.savez(probe, **arrays)
    from edgekit.digest import sha256_file

    first["probe"]["file"] |= {"sha256": sha256_file(probe), "bytes": probe.stat().st_size}
    (copy / "package.json").write_text(json.dumps(manifest))
    code, found = checks(copy)
    bad = [item["subject"] for item in found["checks"] if item["result"] == "failed"]
    assert (code, bad) == (3, [first["id"]])


def test_the_conversion_done_anew_gives_the_same_bytes(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(made / "cache"))
    data = ["--calibration", str(made / "cal.npz"), "--contract", str(made / "model.toml")]
    code, found = checks(made / "package", "--source", str(made / "cnn.onnx"), *data)
    assert code == 0
    again = [item for item in found["checks"] if item["check"] == "again"]
    assert {item["result"] for item in again} == {"ok"}


def test_two_packages_differ_in_what_was_changed(made: Path, workers: Pool) -> None:
    model = small_cnn()
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(weights * np.float32(1.5), model.graph.initializer[0].name)
    )
    _convert(workers, made, "other", save(model, made / "other.onnx"))
    old, new = load_package(made / "package"), load_package(made / "other")
    assert differences(old, old) == ()
    what = [item.what for item in differences(old, new)]
    assert "source sha256" in what
    assert any(item.startswith("variant") and item.endswith(" digest") for item in what)
    assert not any(item.startswith("profile") for item in what)
    shown = CliRunner().invoke(diff, [str(made / "package"), str(made / "other")], catch_exceptions=False)
    assert "source sha256:" in shown.output


def test_the_bill_of_materials_names_every_file_and_tool(made: Path) -> None:
    manifest = load_package(made / "package")
    bill = json.loads((made / "package" / "report" / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    uuid.UUID(bill["serialNumber"].removeprefix("urn:uuid:"))
    hashes = {c["hashes"][0]["content"] for c in bill["components"] if c["type"] == "file"}
    assert hashes == {f.sha256 for v in manifest.variants for f in v.files}
    assert any(c.get("purl", "").startswith("pkg:pypi/onnxruntime@") for c in bill["components"])
    model = bill["metadata"]["component"]
    assert (model["type"], model["licenses"]) == ("machine-learning-model", [{"license": {"id": "MIT"}}])
    refs = [item["bom-ref"] for item in bill["components"]]
    assert len(refs) == len(set(refs))
    assert breaches(bill) == []


TOP = {
    "$schema",
    "bomFormat",
    "specVersion",
    "serialNumber",
    "version",
    "metadata",
    "components",
    "dependencies",
}
COMPONENT = {"type", "bom-ref", "name", "version", "hashes", "licenses", "purl", "properties", "modelCard"}
KINDS = {"application", "file", "library", "machine-learning-model"}


def breaches(bill: dict[str, Any]) -> list[str]:
    """Where a bill breaks what CycloneDX 1.6 says of the parts that ours use (its schema took them, too)."""
    model = bill["metadata"]["component"]
    everything = [model, *bill["components"], *bill["metadata"]["tools"]["components"]]
    found = [f"unknown {key}" for key in bill.keys() - TOP]
    for item in everything:
        found += [f"{item['name']}: {key}" for key in item.keys() - COMPONENT - {"description", "supplier"}]
        found += [] if item["type"] in KINDS and item["name"] else [f"{item} has no type or name"]
        for mark in item.get("hashes", ()):
            good = mark["alg"] == "SHA-256" and re.fullmatch(r"[0-9a-f]{64}", mark["content"])
            found += [] if good else [f"{item['name']}: {mark}"]
        if not re.fullmatch(r"(pkg:(pypi|npm)/[a-z0-9._-]+@[\w.+-]+)?", item.get("purl", "")):
            found.append(f"{item['name']}: {item['purl']}")
        licences = item.get("licenses", [])
        shapes = [sorted(part) + sorted(part.get("license", ())) for part in licences]
        allowed = (["license", "id"], ["license", "name"], ["expression"])
        found += [f"{item['name']}: {shape}" for shape in shapes if shape not in allowed]
    known = {model["bom-ref"], *(item["bom-ref"] for item in bill["components"])}
    for item in bill["dependencies"]:
        found += [f"nothing is {ref}" for ref in {item["ref"], *item["dependsOn"]} - known]
    return found


def test_tools_have_licences_and_other_runtimes_a_place_of_their_own(made: Path) -> None:
    manifest = load_package(made / "package")
    first = manifest.variants[0]
    page = replace(first.verification, runtime="ort-web", runtime_version="1.30.0")
    bill = bill_of_materials(replace(manifest, variants=(replace(first, verification=page),)))
    parts = {item["name"]: item for item in bill["components"]}
    assert parts["ort-web"]["purl"] == "pkg:npm/onnxruntime-web@1.30.0"
    assert parts["onnxruntime"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert parts["edgekit-converters"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert breaches(bill) == []


@pytest.mark.parametrize(
    ("platform", "source", "artifact"),
    [
        ("ios", "EdgekitModel.swift", "model.mlpackage"),
        ("android", "EdgekitModel.kt", "model.tflite"),
    ],
)
def test_an_app_gets_artifact_constants_wrapper_and_vectors(
    made: Path, tmp_path: Path, platform: str, source: str, artifact: str
) -> None:
    done = CliRunner().invoke(
        export,
        [str(made / "package"), "--platform", platform, "--out", str(tmp_path / "app")],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    manifest = load_package(made / "package")
    facts = json.loads((tmp_path / "app" / "model.json").read_text())
    variant = manifest.variant(facts["variant"])
    assert (tmp_path / "app" / artifact).exists()
    assert "prepared, not compiled" in (tmp_path / "app" / source).read_text()
    assert variant.digest in (tmp_path / "app" / source).read_text()
    vectors = json.loads((tmp_path / "app" / "vectors.json").read_text())
    assert variant.probe is not None
    with np.load(made / "package" / variant.probe.file.path) as probes:
        for index, case in enumerate(vectors["cases"]):
            for kind, mark in (("inputs", "in:"), ("outputs", "out:")):
                for name, values in case[kind].items():
                    assert np.array_equal(np.asarray(values, np.float32), probes[mark + name][index])
    assert vectors["atol"] == variant.probe.atol


TWO = """
[model]
name = "two"
version = "1"
[[inputs]]
name = "picture"
meaning = "image"
layout = "NHWC"
preprocess = { scale = 0.00392156862745098, resize = [4, 4], color = "rgb" }
[[inputs]]
name = "tokens"
dtype = "int32"
range = [0, 9]
"""


@pytest.fixture(scope="module")
def two(workers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a model with an image and whole numbers as inputs, numbers and classes as outputs."""
    folder = tmp_path_factory.mktemp("two")
    random = np.random.default_rng(0)
    weights = {"table": random.standard_normal((10, 3)), "mix": random.standard_normal((3, 4))}
    nodes = [
        onnx.helper.make_node("ReduceMean", ["picture"], ["colour"], axes=[1, 2], keepdims=0),
        onnx.helper.make_node("Gather", ["table", "tokens"], ["words"]),
        onnx.helper.make_node("ReduceMean", ["words"], ["word"], axes=[1], keepdims=0),
        onnx.helper.make_node("Add", ["colour", "word"], ["sum"]),
        onnx.helper.make_node("MatMul", ["sum", "mix"], ["scores"]),
        onnx.helper.make_node("ArgMax", ["scores"], ["kind"], axis=1, keepdims=0),
    ]
    port, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    inputs = [port("picture", kinds.FLOAT, ["N", 4, 4, 3]), port("tokens", kinds.INT32, ["N", 5])]
    outputs = [port("scores", kinds.FLOAT, ["N", 4]), port("kind", kinds.INT64, ["N"])]
    constants = [
        onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    ]
    graph = onnx.helper.make_graph(nodes, "two", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.toml").write_text(TWO)
    request = Request(
        source=save(model, folder / "two.onnx"),
        profiles=("android-arm64", "iphone-15"),
        precisions=("fp32",),
        contract=folder / "model.toml",
        out=folder / "package",
        cache=folder / "cache",
    )
    convert(request, pool=workers)
    return folder / "package"


def test_an_app_gets_every_input_by_its_name_and_in_its_own_numbers(two: Path, tmp_path: Path) -> None:
    export_variant(two, "android", tmp_path / "android")
    export_variant(two, "ios", tmp_path / "ios")
    kotlin = (tmp_path / "android" / "EdgekitModel.kt").read_text()
    swift = (tmp_path / "ios" / "EdgekitModel.swift").read_text()
    for place, (name, dtype, shape) in enumerate(
        [("picture", "float32", "1 x 4 x 4 x 3"), ("tokens", "int32", "1 x 5")], 1
    ):
        assert f'put(inputs, "{name}", input{place})  // {dtype}, {shape}' in kotlin
    assert 'taken(outputs, "kind")' in kotlin
    assert "DataType.INT64 -> buffer.getLong()" in kotlin
    assert swift.count("type: .float32") == swift.count("type: .int32") == 1
    facts = json.loads((tmp_path / "android" / "model.json").read_text())
    picture, tokens = facts["inputs"]
    assert (picture["meaning"], picture["preprocess"]["resize"], tokens["range"]) == ("image", [4, 4], [0, 9])
    case = json.loads((tmp_path / "android" / "vectors.json").read_text())["cases"][0]
    assert np.shape(case["inputs"]["picture"]) == (4, 4, 3)
    assert all(isinstance(value, int) and 0 <= value <= 9 for value in case["inputs"]["tokens"])
    assert np.argmax(case["outputs"]["scores"]) == case["outputs"]["kind"]


def test_labels_cannot_break_out_of_the_generated_sources() -> None:
    from edgekit_converters.handover.export import _literal

    assert _literal('a"b\n', dollar=False) == '"a\\"b"'
    assert _literal("cost $HOME", dollar=True) == '"cost \\$HOME"'
    assert _literal("\\(x)", dollar=False) == '"\\\\(x)"'


def test_an_unknown_platform_or_a_folder_in_the_way_is_an_error(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown platform"):
        export_variant(made / "package", "ois", tmp_path / "app")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    with pytest.raises(EdgekitError, match="not empty"):
        export_variant(made / "package", "ios", tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "keep"


@pytest.mark.parametrize(
    ("command", "said"),
    [(verify, ["HERE"]), (diff, ["HERE", "HERE"]), (export, ["HERE", "--platform", "c99", "--out", "new"])],
    ids=["verify", "diff", "export"],
)
def test_what_is_no_package_is_a_usage_error(tmp_path: Path, command: Command, said: list[str]) -> None:
    words = [item.replace("HERE", str(tmp_path)) for item in said]
    with pytest.raises(UsageError, match=r"no package\.json") as caught:
        CliRunner().invoke(command, words, catch_exceptions=False)
    assert caught.value.exit_code == 2


def test_a_file_that_nobody_named_is_no_part_of_a_good_package(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "package", tmp_path / "copy")
    variant = load_package(copy).variants[0]
    (copy / variant.folder / "more.bin").write_bytes(b"?")
    (copy / "report" / "mine.txt").write_text("the report is outside of the digest")
    code, found = checks(copy)
    bad = [item["subject"] for item in found["checks"] if item["result"] == "failed"]
    assert (code, bad) == (3, [f"{variant.folder}/more.bin"])


def test_another_source_is_told_before_anything_is_converted(made: Path, tmp_path: Path) -> None:
    """Without the calibration data, which are asked for only where the source is the same."""
    other = save(small_cnn(seed=9), tmp_path / "cnn.onnx")
    code, found = checks(made / "package", "--source", str(other))
    bad = [
        (item["check"], item["result"]) for item in found["checks"] if item["check"] in ("source", "again")
    ]
    assert (code, bad) == (3, [("source", "failed")])
