"""``--budget`` through the engine: real builds, a device's figures for the very bytes, boards apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.documents import BenchFigures, Measurement, Measurements
from edgekit.errors import DataError, RefusedError
from edgekit.package import load_package
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request, Result
from tests.converters.graphs import GraphBuilder, save, small_cnn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
PROFILES = ("x86-64-onnx", "rpi5")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, calibration data, and validation data that it gets right."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("budget")
    path = save(small_cnn(), folder / "cnn.onnx")
    samples = np.random.default_rng(1).uniform(0, 1, (64, 3, 8, 8)).astype(np.float32)
    answers = onnxruntime.InferenceSession(path).run(None, {"x": samples})[0]
    np.savez(folder / "calibration.npz", x=samples)
    np.savez(folder / "validation.npz", x=samples, labels=np.argmax(answers, axis=1))
    return path


def run(model: Path, out: Path, cache: Path, workers: Pool, budget: str | None, **options: Any) -> Result:
    """Convert for a budget."""
    request = Request(
        source=model,
        out=out,
        cache=cache,
        budget=budget,
        calibration=model.parent / "calibration.npz",
        validation=model.parent / "validation.npz",
        **{"profiles": PROFILES, "allow_breach": True, **options},
    )
    return convert(request, pool=workers)


def measurement(result: Result, variant_id: str, median_us: float, **changes: Any) -> Measurement:
    """A device's figures for a variant of a package."""
    variant = result.manifest.variant(variant_id)
    figures = BenchFigures(
        median_us=median_us,
        p90_us=median_us,
        p99_us=median_us,
        n=10,
        threads=1,
        memory_mb=50.0,
        runtime="litert",
        runtime_version="2.3.0",
        backend="xnnpack",
    )
    given = {
        "release": result.manifest.ref,
        "variant": variant_id,
        "digest": variant.digest,
        "profile": variant.profile,
        "target": variant.target,
        "precision": variant.precision,
        "device": "pi-7",
        "hardware": variant.profile,
        "on_target": True,
        "at": 1.0,
        **changes,
    }
    return Measurement(**given, figures=figures)


def test_one_variant_a_profile_ships_and_the_rest_is_shown(
    model: Path, tmp_path: Path, cache: Path, workers: Pool
) -> None:
    result = run(model, tmp_path / "p", cache, workers, "latency<1s,size<1MB,top1>=0.5")
    assert [item.profile for item in result.manifest.variants] == list(PROFILES)
    assert result.manifest.refused == ()
    search = result.report["search"]
    tried = {item["id"] for item in search["candidates"]}
    assert {"rpi5-tflite-int8", "rpi5-tflite-fp16", "rpi5-tflite-fp32", "rpi5-tflite-dynamic"} <= tried
    for item in search["candidates"]:
        if not item["refusal"]:
            assert item["figures"]["latency"]["from"] == "host"
            assert item["figures"]["top1"]["value"] > 0
    assert sum(item["picked"] for item in search["candidates"]) == 2
    assert [choice["picked"] for choice in search["choices"]] == [v.id for v in result.manifest.variants]
    assert "this computer's, not the board's" in search["choices"][1]["why"]


def test_a_devices_figures_count_for_the_very_bytes_and_on_target_only(
    model: Path, tmp_path: Path, cache: Path, workers: Pool
) -> None:
    everything = run(model, tmp_path / "all", cache, workers, None, profiles=("rpi5",), precisions=("all",))
    ids = [item.id for item in everything.manifest.variants]
    quick = "rpi5-tflite-fp16"
    known = [measurement(everything, name, 900.0 if name == quick else 4000.0) for name in ids]
    lies = [
        measurement(everything, "rpi5-tflite-fp32", 1.0, digest="sha256:" + "0" * 64, at=9.0),
        measurement(everything, "rpi5-tflite-fp32", 1.0, on_target=False, hardware="laptop", at=9.0),
        measurement(everything, "rpi5-tflite-fp32", 1.0, profile="rpi4", at=9.0),
    ]
    path = tmp_path / "figures.json"
    path.write_bytes(Measurements(measurements=(*known, *lies)).to_bytes())
    found = run(
        *(model, tmp_path / "p", cache, workers, "latency<1ms,top1>=0.5"),
        profiles=("rpi5",),
        measurements=(path,),
    )
    [variant] = found.manifest.variants
    assert variant.id == quick
    assert variant.digest == everything.manifest.variant(quick).digest
    [choice] = found.report["search"]["choices"]
    assert "on pi-7" in choice["why"]
    by_id = {item["id"]: item for item in found.report["search"]["candidates"]}
    honest = {"from": "target", "text": "4 ms", "value": 4000.0}
    assert by_id["rpi5-tflite-fp32"]["figures"]["latency"] == honest


def test_nothing_that_fits_is_a_refusal_that_says_what_would(
    model: Path, tmp_path: Path, cache: Path, workers: Pool
) -> None:
    result = run(model, tmp_path / "p", cache, workers, "latency<1ns", profiles=("rpi5",))
    assert result.manifest.variants == ()
    [refusal] = result.manifest.refused
    assert (refusal.id, refusal.reason_code) == ("rpi5", "over_budget")
    assert "would fit a budget of latency" in refusal.remedy


@pytest.mark.parametrize("name", ["top5x", "rmse_"])
def test_a_metric_that_nothing_has_is_the_callers_mistake(
    model: Path, tmp_path: Path, cache: Path, workers: Pool, name: str
) -> None:
    with pytest.raises(DataError, match=name):
        run(model, tmp_path / "p", cache, workers, f"{name}>=0.5", profiles=("rpi5",))
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("text", ["{}[", '{"schema": 1, "name": "cnn", "variants": []}'])
def test_a_file_that_holds_no_measurements_is_named(
    tmp_path: Path, model: Path, cache: Path, workers: Pool, text: str
) -> None:
    path = tmp_path / "figures.json"
    path.write_text(text)
    with pytest.raises(DataError, match="no measurements"):
        run(model, tmp_path / "p", cache, workers, "size<1MB", measurements=(path,))


def large(folder: Path, weights: int) -> Path:
    """A network with so many weights."""
    g = GraphBuilder((3, 8, 8), seed=0)
    y = g.op("Flatten", "x")
    y = g.op("Gemm", y, g.weight(weights // 192, 192), transB=1)
    y = g.op("ReduceMax", y, g.constant(np.array([1], np.int64)), keepdims=1)
    return save(g.model(y, [1]), folder / "large.onnx")


def test_a_model_too_large_for_one_board_is_refused_there_and_built_for_the_other(
    tmp_path: Path, cache: Path, workers: Pool
) -> None:
    request = Request(
        source=large(tmp_path, 1_000_000),
        profiles=("cortex-m4", "x86-64-onnx"),
        precisions=("fp32",),
        out=tmp_path / "p",
        cache=cache,
        allow_breach=True,
    )
    result = convert(request, pool=workers)
    assert [item.profile for item in result.manifest.variants] == ["x86-64-onnx"]
    [refusal] = result.manifest.refused
    assert (refusal.id, refusal.reason_code) == ("cortex-m4-tflm-fp32", "too_large")
    assert "1.0 M weights" in refusal.detail


def test_a_model_far_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = large(tmp_path, 3_000_000)
    request = Request(
        source=path,
        profiles=("cortex-m4",),
        precisions=("fp32",),
        out=tmp_path / "p",
        cache=tmp_path / "cache",
    )
    asked: list[str] = []

    class Idle(Pool):
        """Workers that are not to be asked for anything."""

        def run(self, kind: str, task: str, args: Any, **more: Any) -> Any:
            asked.append(task)
            raise AssertionError(task)

    with Idle(request.limits) as idle, pytest.raises(RefusedError, match="for every board") as caught:
        convert(request, pool=idle)
    assert caught.value.exit_code == 3
    assert asked == []
    assert not (tmp_path / "p").exists()


def test_a_conversion_of_which_nothing_passes_costs_no_older_package(
    model: Path, tmp_path: Path, cache: Path, workers: Pool
) -> None:
    older = run(model, tmp_path / "out", cache, workers, None, profiles=PROFILES[:1], precisions=("fp32",))
    assert older.place == tmp_path / "out"
    options: dict[str, Any] = {"profiles": PROFILES[:1], "precisions": ("fp32",)}
    for _ in range(2):
        failed = run(model, tmp_path / "out", cache, workers, "size<10B", **options)
        assert failed.manifest.variants == ()
        assert failed.place == tmp_path / "out.refused"
    assert load_package(tmp_path / "out").digest == older.manifest.digest
    assert load_package(failed.place).digest == failed.manifest.digest
    (failed.place / "package.json").unlink()
    again = run(model, tmp_path / "out", cache, workers, "size<10B", **options)
    assert again.place == tmp_path / "out.refused1", "what is no package is not ours to replace"
