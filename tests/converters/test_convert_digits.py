"""The main job on real input, looked at from outside: one conversion of the trained digits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.package import Manifest, Variant, load_package
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.npz import load_arrays
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.targets import load_target
from edgekit_converters.values import Built
from tests.converters.conftest import (
    HOST_PROFILES,
    PRECISIONS,
    REPOSITORY,
    edgekit,
    precision_options,
    profile_options,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def manifest(package: Path) -> Manifest:
    return load_package(package)


def built(variant: Variant) -> Built:
    main = "model.tflite" if variant.target == "tflite" else "model.onnx"
    return Built(
        main=main,
        inputs=variant.inputs,
        outputs=variant.outputs,
        requires=variant.requires,
        route=variant.route,
    )


def test_one_source_becomes_every_variant(manifest: Manifest) -> None:
    ids = {item.id for item in manifest.variants}
    expected = {f"rpi4-tflite-{p}" for p in ("fp32", "fp16", "dynamic", "int8")}
    expected |= {f"jetson-orin-nano-onnx-{p}" for p in ("fp32", "int8")}
    expected |= {f"jetson-orin-nano-tensorrt-{p}" for p in ("fp32", "fp16", "int8")}
    expected |= {"iphone-15-coreml-fp16", "x86-64-litert-tflite-int8", "x86-64-onnx-onnx-fp32"}
    assert expected <= ids
    assert manifest.refused == ()
    assert manifest.ref == "digits@1.0.0"


def test_every_executed_variant_keeps_the_accuracy_of_the_source(manifest: Manifest) -> None:
    for variant in manifest.variants:
        check = variant.verification
        if check.method != "executed":
            continue
        top1 = check.metrics["top1"]
        assert check.verdict == "pass", variant.id
        assert top1["source"] >= 0.97
        assert top1["n"] == check.n == 400
        lost_at_most = max(1, round(0.003 * top1["n"]))
        assert top1["lost"] - top1["gained"] <= lost_at_most, variant.id


def test_what_ran_is_named_beside_every_verdict(manifest: Manifest) -> None:
    for variant in manifest.variants:
        check = variant.verification
        by = {"coreml": "edgekit", "tensorrt": "onnxruntime"}.get(variant.target)
        assert check.method == ("executed" if by is None else "emulated")
        assert check.runtime in ((by,) if by else ("litert", "onnxruntime"))
        assert check.runtime_version
        assert check.backend
        assert check.machine


def test_on_target_is_said_only_of_this_machines_profiles(manifest: Manifest) -> None:
    claimed = {item.profile for item in manifest.variants if item.verification.on_target}
    assert claimed <= {*HOST_PROFILES, "arm64-litert", "arm64-onnx"}


def test_int8_is_int8_inside_and_at_the_boundary(package: Path, manifest: Manifest) -> None:
    from ai_edge_litert.interpreter import Interpreter

    variant = manifest.variant("rpi4-tflite-int8")
    interpreter = Interpreter(model_path=str(package / variant.files[0].path))
    interpreter.allocate_tensors()
    ports = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert {item["dtype"] for item in ports} == {np.int8}
    assert [item["name"] for item in ports] == ["image", "probabilities"]
    assert variant.inputs[0].quantization is not None
    assert variant.outputs[0].quantization is not None
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}
    }


def test_smaller_precisions_are_smaller(manifest: Manifest) -> None:
    size = {item.id: item.size for item in manifest.variants}
    assert size["rpi4-tflite-int8"] < 0.4 * size["rpi4-tflite-fp32"]
    assert size["rpi4-tflite-fp16"] < 0.6 * size["rpi4-tflite-fp32"]
    assert size["x86-64-onnx-onnx-int8"] < 0.5 * size["x86-64-onnx-onnx-fp32"]


def test_onnx_int8_is_a_qdq_graph_with_symmetric_per_channel_weights(
    package: Path, manifest: Manifest
) -> None:
    variant = manifest.variant("x86-64-onnx-onnx-int8")
    graph = onnx.load(package / variant.files[0].path).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("DequantizeLinear") > kinds.count("QuantizeLinear") > 3
    weights = [
        item for item in graph.initializer if item.data_type == onnx.TensorProto.INT8 and len(item.dims) > 1
    ]
    assert weights
    assert all(np.abs(onnx.numpy_helper.to_array(item)).max() <= 127 for item in weights)


@pytest.mark.parametrize("name", ["rpi4-tflite-int8", "rpi4-tflite-fp16", "x86-64-onnx-onnx-int8"])
@pytest.mark.parametrize("kernels", [0, 1])
def test_package_probes_hold_on_every_kernel_set(
    package: Path, manifest: Manifest, name: str, kernels: int
) -> None:
    variant = manifest.variant(name)
    assert variant.probe is not None
    arrays = load_arrays(package / variant.probe.file.path)
    target = load_target(variant.target)
    session = target.open(
        package / variant.folder, built(variant), kernels=target.kernel_sets[kernels], threads=2
    )
    assert session is not None
    got = session.run({"image": arrays["in:image"]})["probabilities"]
    expected = arrays["out:probabilities"]
    assert variant.probe.n == len(expected) == 16
    assert np.abs(got.astype(np.float64) - expected).max() <= variant.probe.atol
    assert (got.argmax(1) == expected.argmax(1)).all()


def test_package_probes_tell_another_model(package: Path, manifest: Manifest) -> None:
    variant = manifest.variant("rpi4-tflite-int8")
    assert variant.probe is not None
    arrays = load_arrays(package / variant.probe.file.path)
    session = load_target("tflite").open(
        package / variant.folder, built(variant), kernels="xnnpack", threads=1
    )
    assert session is not None
    got = session.run({"image": 1 - arrays["in:image"]})["probabilities"]
    assert np.abs(got - arrays["out:probabilities"]).max() > variant.probe.atol


def test_requirements_name_runtime_and_machines(manifest: Manifest) -> None:
    needs = manifest.variant("rpi4-tflite-int8").requires
    assert (needs.runtime, needs.machines) == ("litert", ("aarch64",))
    assert manifest.variant("iphone-15-coreml-fp16").requires.machines == ("iPhone15,4", "iPhone15,5")
    assert manifest.variant("x86-64-onnx-onnx-fp32").requires.runtime == "onnxruntime"


def test_reference_distributions_cover_the_validation_data(manifest: Manifest) -> None:
    reference = manifest.reference
    assert sum(reference.outputs["probabilities"].counts) == 400
    assert len(reference.outputs["probabilities"].counts) == 10
    assert sum(reference.confidence["probabilities"].counts) == 400
    assert sum(reference.inputs["image"].counts) == 400 * 64


def test_measurements_stand_outside_the_digest_and_name_it(package: Path, manifest: Manifest) -> None:
    figures = json.loads((package / "measurements.json").read_text())
    assert figures["package"] == manifest.digest
    int8 = figures["variants"]["x86-64-litert-tflite-int8"]
    assert int8["latency_us"]["median"] > 0
    assert int8["memory_mb"]["peak"] > 0
    assert b"latency" not in manifest.to_bytes().split(b'"contract"')[0]


def test_the_manifest_names_no_path_of_this_machine(manifest: Manifest, package: Path, digits: Path) -> None:
    assert str(digits).encode() not in manifest.to_bytes()
    assert manifest.contract["data"] == {"calibration": "calibration.npz", "validation": "validation.npz"}
    text = (package / "report" / "report.json").read_text()
    assert str(digits / "calibration.npz") not in text


def test_the_digits_as_onnx_reach_tflite_int8_as_well(
    package: Path, digits: Path, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    request = Request(
        source=package / "variants" / "x86-64-onnx-onnx-fp32" / "model.onnx",
        profiles=("x86-64-litert", "iphone-15"),
        precisions=PRECISIONS,
        contract=digits / "model.toml",
        out=tmp_path / "out",
        cache=cache,
    )
    manifest = convert(request, pool=workers).manifest
    assert manifest.refused == ()
    executed = [item.verification for item in manifest.variants if item.target == "tflite"]
    assert len(executed) == 4
    for check in executed:
        assert check.verdict == "pass"
        assert check.metrics["top1"]["lost"] - check.metrics["top1"]["gained"] <= 1


def test_the_digits_as_saved_model_convert_to_the_same_answers(
    digits: Path, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    code = "import keras, sys; keras.saving.load_model(sys.argv[1]).export(sys.argv[2], verbose=False)"
    folder = tmp_path / "saved"
    subprocess.run(
        [sys.executable, "-c", code, digits / "model.keras", folder], check=True, capture_output=True
    )
    request = Request(
        source=folder,
        profiles=("x86-64-litert", "x86-64-onnx"),
        contract=digits / "model.toml",
        out=tmp_path / "out",
        cache=cache,
    )
    manifest = convert(request, pool=workers).manifest
    assert manifest.source["kind"] == "savedmodel"
    assert {item.verification.verdict for item in manifest.variants} == {"pass"}
    assert len(manifest.variants) == 5


def test_the_model_that_is_wrong_in_the_field_converts_cleanly(
    digits: Path, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    train = REPOSITORY / "examples" / "digits" / "train.py"
    options = ["--out", str(tmp_path), "--inverted", "--version", "2.0.0", "--epochs", "5"]
    subprocess.run([sys.executable, str(train), *options], check=True, capture_output=True)
    request = Request(
        source=tmp_path / "model.keras", profiles=("x86-64-onnx",), out=tmp_path / "out", cache=cache
    )
    manifest = convert(request, pool=workers).manifest
    assert manifest.ref == "digits@2.0.0"
    assert {item.verification.verdict for item in manifest.variants} == {"pass"}
    true = load_arrays(digits / "validation.npz")
    session = OnnxSession(tmp_path / "out" / manifest.variant("x86-64-onnx-onnx-fp32").files[0].path)
    accuracy = (session.run({"image": true["image"]})["probabilities"].argmax(1) == true["labels"]).mean()
    assert accuracy < 0.5


def test_two_processes_and_two_caches_write_the_same_bytes(
    package: Path, digits: Path, tmp_path: Path
) -> None:
    model = tmp_path / "elsewhere" / "model.keras"
    shutil.copytree(digits, model.parent)
    again = tmp_path / "again"
    edgekit(
        "convert",
        model,
        *profile_options("x86-64-litert", "x86-64-onnx", "rpi4", "jetson-orin-nano", "iphone-15"),
        *precision_options(),
        "--out",
        again,
        cache=tmp_path / "cache",
    )
    for path in sorted(item for item in package.rglob("*") if item.is_file()):
        relative = path.relative_to(package)
        if relative.parts[0] in ("variants", "probes", "package.json"):
            assert (again / relative).read_bytes() == path.read_bytes(), relative


def test_a_second_run_reads_the_cache_and_replaces_the_package(
    package: Path, digits: Path, cache: Path
) -> None:
    before = (package / "package.json").read_bytes()
    options: list[Any] = [*precision_options(), "--out", package, "--json"]
    names = ("x86-64-litert", "x86-64-onnx", "rpi4", "jetson-orin-nano", "iphone-15")
    done = edgekit("convert", digits / "model.keras", *profile_options(*names), *options, cache=cache)
    result = json.loads(done.out)
    assert (package / "package.json").read_bytes() == before
    assert result["package"] == load_package(package).digest
    assert result["measurements"]["seconds"] < 5
    assert {item["id"] for item in result["variants"]} == {item.id for item in load_package(package).variants}
