"""From the command line to a package: TI's boards get both variants, and the bundle says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quantization_inputs import MODELS
from edgekit.documents import DeviceFacts
from edgekit.package import load_package
from edgekit.select import choose_variant, variant_table
from edgekit_converters import frontends, hub
from edgekit_converters.npz import save_arrays
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.quantize import calibration
from edgekit_converters.quantize.analysis import snr
from edgekit_converters.source import recognise
from edgekit_converters.targets.tidl import TidlTarget
from edgekit_converters.values import EXACT
from tests.conftest import require_package
from tests.converters.conftest import edgekit
from tests.converters.graphs import save, small_cnn
from tests.converters.tidl_bundles import Stored, build

ALIASES = ("am62a", "am5729")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small network for two boards, default variants; the package and what the command said."""
    folder = tmp_path_factory.mktemp("tidl")
    random = np.random.default_rng(0)
    model = save(small_cnn(), folder / "model.onnx")
    for name in ("calibration", "validation"):
        rows = random.standard_normal((64, 3, 8, 8)).astype(np.float32)
        save_arrays(folder / f"{name}.npz", {"x": rows})
    profiles = [part for name in ALIASES for part in ("--profile", name)]
    data = ["--calibration", folder / "calibration.npz", "--validation", folder / "validation.npz"]
    done = edgekit("convert", model, *profiles, *data, "--out", folder / "package", cache=folder / "cache")
    return folder / "package", done.out


def test_a_boards_short_name_gives_the_arm_variant_and_the_bundle(converted: tuple[Path, str]) -> None:
    manifest = load_package(converted[0])
    assert {variant.id for variant in manifest.variants} == {
        f"ti-{name}-{target}-int8" for name in ALIASES for target in ("tflite", "tidl")
    }
    for variant in manifest.variants:
        if variant.target == "tidl":
            assert variant.verification.method == "emulated"
            assert variant.verification.verdict == "pass"
            assert variant.verification.on_target is False
            assert (variant.verification.backend or "").endswith(", not compiled")
            assert "not compiled" in variant.route


def test_the_command_and_the_report_say_that_nothing_was_compiled(converted: tuple[Path, str]) -> None:
    folder, said = converted
    rows = [line for line in said.splitlines() if line.startswith("ti-") and "tidl-int8 " in line]
    assert len(rows) == 2
    assert all("emulated, not compiled" in line for line in rows)
    assert "ti-am62a-tidl-int8: 8 of 9 nodes run on the accelerator of AM62A" in said
    assert "not compiled" in (folder / "report" / "index.html").read_text()
    report = json.loads((folder / "report" / "report.json").read_text())
    assert any("not compiled" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("runtimes", "chosen"),
    [
        ({"litert": "2.3.0"}, "ti-am62a-tflite-int8"),
        ({"tidl": "11.0"}, "ti-am62a-tidl-int8"),
        ({"onnxruntime": "1.31.1"}, None),
    ],
)
def test_a_device_without_the_runtime_never_gets_the_bundle(
    converted: tuple[Path, str], runtimes: Mapping[str, str], chosen: str | None
) -> None:
    facts = DeviceFacts(
        machine="aarch64",
        agent="0.1.0",
        python="3.11",
        os="linux",
        memory_mb=4096,
        runtimes=runtimes,
        profiles=("ti-am62a",),
    )
    entry = choose_variant(variant_table(load_package(converted[0])), facts).entry
    assert (None if entry is None else entry.id) == chosen


# MLPerf Tiny, every SoC.

SOFTMAX = {"Softmax": "no_lookup_activation"}
ARM: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "ad01": {"am62a": {}, "am67a": {}, "am68a": {}, "tda4vm": {}, "am5729": {}},
    "resnet": {"am62a": SOFTMAX, "am67a": {}, "am68a": {}, "tda4vm": {}, "am5729": {}},
    "kws": {
        "am62a": SOFTMAX,
        "am67a": {},
        "am68a": {},
        "tda4vm": {},
        "am5729": {"Conv": "legacy_kernel", "Relu": "kept_in_float"},
    },
    "vww": {"am62a": SOFTMAX, "tda4vm": {}, "am5729": {}},
}
"""What stays on the Arm cores, and why, by model and SoC; the layout that the legacy caller sees to aside."""
LEAST = {"resnet": 15.0, "ad01": 35.0, "kws": 20.0, "vww": 28.0}
"""dB at the output on fresh inputs, held below what was measured."""


def stored(path: Path, rows: Any, folder: Path) -> Stored:
    """A source's hub, calibrated on `rows`."""
    source = recognise(path)
    loaded = frontends.load(source)
    signature = loaded.signature
    loaded.export(folder / "raw.onnx")
    names = [item.name for item in (*signature.inputs, *signature.outputs)]
    shapes = {item.name: list(item.shape) for item in signature.inputs}
    hub.canonicalise(folder / "raw.onnx", folder / "hub.onnx", dict(zip(names, names, strict=True)), shapes)
    x = signature.inputs[0]
    save_arrays(folder / "samples.npz", {x.name: rows.reshape(-1, *x.shape[1:])})
    calibration.calibrate(folder / "hub.onnx", folder / "samples.npz", folder / "ranges.npz")
    return Stored(
        hub=folder / "hub.onnx",
        samples=folder / "samples.npz",
        ranges=folder / "ranges.npz",
        inputs=signature.inputs,
        outputs=signature.outputs,
        source=source,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(ARM))
def test_mlperf_tiny_is_cut_rewritten_and_emulated_for_every_soc(
    name: str, zoo: Path, tmp_path: Path
) -> None:
    require_package("tensorflow", "tf")
    path, _, inputs = MODELS[name]
    rows, fresh_rows = inputs(zoo)
    given = stored(zoo / path, rows[:48], tmp_path)
    output, x = given.outputs[0].name, given.inputs[0]
    fresh = {x.name: fresh_rows.reshape(-1, *x.shape[1:])}
    expected = OnnxSession(given.hub).run(fresh)[output]
    for soc, outside in ARM[name].items():
        built = build(given, soc, tmp_path / soc)
        found = {item["op"]: item["reason_code"] for item in built.facts["arm"]}
        assert {op: code for op, code in found.items() if code != "layout_by_caller"} == outside, soc
        assert built.facts["rewrite_error"] < EXACT
        assert snr(expected, TidlTarget().run(tmp_path / soc, built, fresh)[output]) > LEAST[name]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_digits_keep_their_accuracy_in_every_socs_arithmetic(digits: Path, tmp_path: Path) -> None:
    with np.load(digits / "calibration.npz") as rows, np.load(digits / "validation.npz") as held:
        given = stored(digits / "model.keras", rows["image"], tmp_path)
        images, labels = held["image"], held["labels"]
    fed = {given.inputs[0].name: images}
    output = given.outputs[0].name

    def right(outputs: Mapping[str, Any]) -> float:
        return float((outputs[output].argmax(1) == labels).mean())

    source = right(OnnxSession(given.hub).run(fed))
    for soc in ("am62a", "am67a", "am68a", "am69a", "tda4vm", "am5729", "am5749"):
        built = build(given, soc, tmp_path / soc)
        assert built.facts["subgraphs"] == 1, soc
        assert right(TidlTarget().run(tmp_path / soc, built, fed)) >= source - 0.01
