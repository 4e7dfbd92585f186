"""From a source to a Core ML package: built in its worker, emulated, judged; its face, sizes and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.package import Tensor
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.source import recognise
from edgekit_converters.values import Built, Job, Signature
from tests.converters.graphs import Array, GraphBuilder, save, small_cnn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def pool(workers: Pool) -> Pool:
    return workers


def wide_cnn(classes: int = 10) -> onnx.ModelProto:
    """Weights large enough to be worth compressing."""
    g = GraphBuilder((3, 16, 16))
    y = g.op("Relu", g.op("Conv", "x", g.weight(32, 3, 3, 3), g.weight(32), pads=[1, 1, 1, 1]))
    y = g.op("Relu", g.op("Conv", y, g.weight(32, 32, 3, 3, scale=0.05), g.weight(32), strides=[2, 2]))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    y = g.op("Gemm", y, g.weight(classes, 32), g.weight(classes), transB=1)
    return g.model(g.op("Softmax", y, axis=-1), [classes])


def make_job(
    pool: Pool, model: onnx.ModelProto, folder: Path, precision: str = "fp32", **options: Any
) -> Job:
    source = recognise(save(model, folder / "model.onnx"))
    signature = Signature.from_dict(pool.run("plain", "describe", {"source": asdict(source)}))
    hub = str(folder / "hub.onnx")
    ports = [*signature.inputs, *signature.outputs]
    shapes = {item.name: list(item.shape) for item in signature.inputs}
    args = {"raw": source.path, "out": hub, "renames": {p.name: p.name for p in ports}, "shapes": shapes}
    pool.run("plain", "canonicalise", args)
    return Job(
        target="coreml",
        precision=precision,
        source=source,
        hub=hub,
        inputs=signature.inputs,
        outputs=tuple(Tensor(name=o.name, dtype=o.dtype, shape=o.shape) for o in signature.outputs),
        options={"deployment_target": "iOS17", **options},
    )


def build(pool: Pool, job: Job, folder: Path) -> Built:
    found = pool.run("coremltools", "build", {"job": job.to_dict(), "folder": str(folder)})
    return Built.from_dict(found)


def emulate(pool: Pool, built: Built, folder: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    save_arrays(folder / "in.npz", inputs)
    args = {"target": "coreml", "folder": str(folder), "artifact": built.to_dict()}
    ports = {"data": str(folder / "in.npz"), "out": str(folder / "out.npz")}
    pool.run("coremltools", "execute", {**args, **ports})
    return dict(load_arrays(folder / "out.npz"))


def samples(n: int = 8, *shape: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(5).random((n, *(shape or (3, 16, 16))), np.float32)}


def bytes_of(folder: Path) -> dict[str, bytes]:
    root = folder / "model.mlpackage"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 5e-3), ("w8", 2e-2)])
def test_the_saved_package_computes_what_its_source_does(
    precision: str, limit: float, pool: Pool, tmp_path: Path
) -> None:
    job = make_job(pool, wide_cnn(), tmp_path, precision)
    built = build(pool, job, tmp_path)
    expected = OnnxSession(tmp_path / "model.onnx").run(samples())
    found = emulate(pool, built, tmp_path, samples())
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() < limit


def test_a_package_is_the_same_bytes_twice(pool: Pool, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        build(pool, make_job(pool, wide_cnn(), folder, "fp16"), folder)
    first, second = (bytes_of(folder) for folder in folders)
    assert first == second
    assert len(first) == 3


def test_compression_that_leaves_the_weights_as_they_were_is_refused(pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, small_cnn(), tmp_path, "w8")
    with pytest.raises(Refusal, match="nothing to compress") as caught:
        build(pool, job, tmp_path)
    assert caught.value.code == "nothing_quantized"


def test_compression_that_the_phones_system_does_not_know_is_refused(pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, wide_cnn(), tmp_path, "int4")
    with pytest.raises(Refusal, match="iOS 18") as caught:
        build(pool, job, tmp_path)
    assert caught.value.code == "needs_newer_runtime"


@pytest.mark.parametrize(
    ("precision", "share"), [("int4", 0.4), ("palettized4", 0.4), ("palettized2", 0.25), ("sparse75", 0.4)]
)
def test_a_compressed_package_is_smaller_by_its_bits(
    precision: str, share: float, pool: Pool, tmp_path: Path
) -> None:
    job = make_job(pool, wide_cnn(), tmp_path, precision, deployment_target="iOS18")
    facts = build(pool, job, tmp_path).facts
    assert facts["weight_bytes"] < share * facts["weight_bytes_before"]
    assert facts["compressed_weights"] >= 1


def test_an_unknown_deployment_target_is_named(pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, wide_cnn(), tmp_path, deployment_target="iOS14")
    with pytest.raises(Refusal, match="iOS14") as caught:
        build(pool, job, tmp_path)
    assert caught.value.code == "unknown_deployment_target"


def test_an_image_input_takes_pixels_and_gives_the_same_numbers(pool: Pool, tmp_path: Path) -> None:
    steps = {"color": "bgr", "scale": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    spec = {"name": "x", "meaning": "image", "shape": [-1, 3, 16, 16], "layout": "NCHW", "preprocess": steps}
    job = make_job(pool, wide_cnn(), tmp_path, image_inputs=True)
    built = build(pool, replace(job, contract={"inputs": [spec]}), tmp_path)
    expected = OnnxSession(tmp_path / "model.onnx").run(samples())
    found = emulate(pool, built, tmp_path, samples())
    np.testing.assert_allclose(found[built.outputs[0].name], next(iter(expected.values())), atol=1e-4)
    image = built.facts["images"]["x"]
    assert image["color"] == "bgr"
    np.testing.assert_allclose(image["bias"], [-2, -2, -2])


def test_an_image_without_colour_order_stays_a_tensor(pool: Pool, tmp_path: Path) -> None:
    spec = {"name": "x", "meaning": "image", "shape": [-1, 3, 16, 16], "preprocess": {"scale": 0.1}}
    job = make_job(pool, wide_cnn(), tmp_path, image_inputs=True)
    assert build(pool, replace(job, contract={"inputs": [spec]}), tmp_path).facts["images"] == {}


def test_class_labels_name_the_probabilities_and_change_none_of_them(pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, wide_cnn(), tmp_path, class_labels=True)
    output = job.outputs[0].name
    labels = [f"class {i}" for i in range(10)]
    spec = {"name": output, "shape": [-1, 10], "activation": "softmax", "labels": labels}
    built = build(pool, replace(job, contract={"outputs": [spec]}), tmp_path)
    assert built.outputs[0].artifact_name == "classLabel_probs"
    expected = OnnxSession(tmp_path / "model.onnx").run(samples())
    found = emulate(pool, built, tmp_path, samples())
    np.testing.assert_allclose(found[output], expected[output], atol=1e-5)


def test_a_range_of_batches_is_one_package(pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, wide_cnn(), tmp_path, batch=[1, 8])
    built = build(pool, job, tmp_path)
    expected = OnnxSession(tmp_path / "model.onnx").run(samples(5))
    found = emulate(pool, built, tmp_path, samples(5))
    np.testing.assert_allclose(found[built.outputs[0].name], next(iter(expected.values())), atol=1e-5)


def test_a_core_ml_variant_is_emulated_on_real_inputs_and_gets_probes(
    pool: Pool, cache: Path, tmp_path: Path
) -> None:
    model = save(wide_cnn(), tmp_path / "cnn.onnx")
    arrays = samples(300)
    labels = next(iter(OnnxSession(model).run(arrays).values())).argmax(1)
    np.savez(tmp_path / "val.npz", x=arrays["x"], labels=labels)
    np.savez(tmp_path / "cal.npz", x=arrays["x"][:100])
    request = Request(
        source=model,
        profiles=("iphone-15-pro",),
        precisions=("fp16", "int8"),
        calibration=tmp_path / "cal.npz",
        validation=tmp_path / "val.npz",
        out=tmp_path / "out",
        cache=cache,
    )
    manifest = convert(request, pool=pool).manifest
    found = {item.precision: item for item in manifest.variants}
    assert sorted(found) == ["fp16", "int8"], manifest.refused
    for variant in found.values():
        check = variant.verification
        assert (check.method, check.verdict, check.on_target) == ("emulated", "pass", False)
        assert variant.probe is not None
        assert "reference evaluator" in (check.backend or "")


def test_what_core_ml_cannot_hold_never_stops_the_others(pool: Pool, cache: Path, tmp_path: Path) -> None:
    g = GraphBuilder((3, 8, 8))
    y = g.op("Reshape", "x", g.constant(np.array([0, 3, 2, 4, 2, 4], np.int64)))
    y = g.op(
        "Reshape", g.op("Transpose", y, perm=[0, 3, 1, 2, 5, 4]), g.constant(np.array([0, -1], np.int64))
    )
    request = Request(
        source=save(g.model(y, [192]), tmp_path / "six.onnx"),
        profiles=("x86-64-onnx", "iphone-15"),
        precisions=("fp32",),
        out=tmp_path / "out",
        cache=cache,
    )
    manifest = convert(request, pool=pool).manifest
    assert [item.id for item in manifest.variants] == ["x86-64-onnx-onnx-fp32"]
    assert [item.reason_code for item in manifest.refused] == ["rank_above_five"]
