"""A bundle holds what its SoC's tools want, computes in the SoC's arithmetic, and claims no more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.digest import sha256_file
from edgekit.package import Tensor
from edgekit_converters import targets
from edgekit_converters.engine.tasks import execute
from edgekit_converters.errors import Refusal
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.quantize.analysis import snr
from edgekit_converters.targets.tidl import TidlTarget, tools
from edgekit_converters.targets.tidl.session import EMULATION
from edgekit_converters.values import Built, Job
from tests.converters.graphs import small_cnn
from tests.converters.test_tidl_tools import stand_in
from tests.converters.tidl_bundles import RULES, Stored, build, stored

X = Tensor(name="x", dtype="float32", shape=(-1, 3, 8, 8))
Y = Tensor(name="t9", dtype="float32", shape=(-1, 4))
TODAY = ("am62a", "am67a", "am68a", "am69a", "tda4vm")
LEGACY = ("am5729", "am5749")


def images(count: int, seed: int = 1) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored(small_cnn(), images(60), (X,), (Y,), tmp_path_factory.mktemp("cnn"))


@pytest.fixture(scope="module")
def bundles(cnn: Stored, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Built]]:
    """The network for every SoC."""
    folder = tmp_path_factory.mktemp("bundles")
    return {soc: (folder / soc, build(cnn, soc, folder / soc)) for soc in RULES}


def files(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {re.sub(r"frame_\d+", "frame", name) for name in found}


def weights(folder: Path) -> dict[str, Any]:
    """Integer weights of the emulation."""
    held = onnx.load(folder / EMULATION).graph.initializer
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in held}
    return {name: item for name, item in arrays.items() if item.ndim > 1 and item.dtype.kind == "i"}


def all_scales(folder: Path) -> Any:
    model = onnx.load(folder / EMULATION)
    held = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return np.concatenate([np.atleast_1d(held[node.input[1]]) for node in pairs])


COMMON = {
    "calibration/frame.bin",
    "calibration/frames.npz",
    "calibration/frames.txt",
    "compile/import.txt",
    "compile/quant_params.prototxt",
    "emulation/model.onnx",
    "model/model.onnx",
    "param.yaml",
    "report/partition.json",
    "report/partition.md",
}


@pytest.mark.parametrize("soc", TODAY)
def test_a_bundle_has_every_file_that_todays_tools_want(soc: str, bundles: Any) -> None:
    folder, built = bundles[soc]
    assert files(folder) == COMMON | {"compile/compile.py", "compile/options.json"}
    assert (folder / built.main).is_file()
    lines = (folder / "calibration" / "frames.txt").read_text().split()
    assert len(lines) == 50
    assert all((folder / line).stat().st_size == 3 * 8 * 8 * 4 for line in lines)
    with np.load(folder / "calibration" / "frames.npz") as held:
        assert (np.fromfile(folder / lines[7], np.float32).reshape(3, 8, 8) == held["x"][7]).all()


@pytest.mark.parametrize("soc", LEGACY)
def test_a_legacy_bundle_has_the_files_of_the_old_import_tool_instead(soc: str, bundles: Any) -> None:
    folder, built = bundles[soc]
    assert files(folder) == COMMON | {"calibration/sample.bin", "model/import.onnx"}
    given = dict(line.split(" = ") for line in (folder / "compile/import.txt").read_text().splitlines()[1:])
    assert {
        key: given[key] for key in ("modelType", "quantizationStyle", "quantRoundAdd", "numParamBits")
    } == {
        "modelType": "2",
        "quantizationStyle": "1",
        "quantRoundAdd": "50",
        "numParamBits": "12",
    }
    assert [given[key] for key in ("inNumChannels", "inHeight", "inWidth")] == ["3", "8", "8"]
    assert (folder / given["inputNetFile"]).is_file()
    assert (folder / given["sampleInData"]).stat().st_size == 3 * 8 * 8
    assert built.requires.min_runtime == "6.0"


@pytest.mark.parametrize("soc", RULES)
def test_the_emulation_is_near_the_source_and_says_that_nothing_was_compiled(
    soc: str, bundles: Any, cnn: Stored
) -> None:
    folder, built = bundles[soc]
    fresh = images(40, seed=9)
    expected = OnnxSession(cnn.hub).run(fresh)["t9"]
    session = TidlTarget().open(folder, built, kernels="as written", threads=1)
    assert snr(expected, session.run(fresh)["t9"]) > 20
    assert session.backend.endswith(", not compiled")
    assert built.facts["label"] == "emulated, not compiled"
    assert "not compiled" in built.route
    assert built.requires.runtime == "tidl"
    assert any("emulated, not compiled" in note for note in built.facts["notes"])


def test_the_engine_records_what_ran_as_emulated_by_us(bundles: Any, tmp_path: Path) -> None:
    folder, built = bundles["am68a"]
    (tmp_path / "data.npz").write_bytes((folder / "calibration" / "frames.npz").read_bytes())
    out = tmp_path / "out.npz"
    done = execute("tidl", str(folder), built.to_dict(), str(tmp_path / "data.npz"), str(out))
    assert done is not None
    assert (done["method"], done["runtime"]) == ("emulated", "edgekit")
    assert done["backend"] == "QDQ emulation of AM68A (J721S2, TDA4VL/AL), not compiled"
    assert "tidl" in targets.known_targets()


@pytest.mark.parametrize("soc", RULES)
def test_what_the_tools_read_computes_what_the_source_computes(soc: str, bundles: Any, cnn: Stored) -> None:
    folder, built = bundles[soc]
    fresh = images(8, seed=4)
    expected = OnnxSession(cnn.hub).run(fresh)["t9"]
    name = "model/import.onnx" if soc in LEGACY else built.main
    assert np.allclose(OnnxSession(folder / name).run(fresh)["t9"], expected, atol=1e-6)
    assert built.facts["rewrite_error"] < 1e-5


def test_the_arithmetic_is_the_socs(bundles: Any) -> None:
    fractions = np.frexp(all_scales(bundles["tda4vm"][0]))[0]
    assert (fractions == 0.5).all()
    for soc in ("am62a", "am68a", "am5729"):
        assert not (np.frexp(all_scales(bundles[soc][0]))[0] == 0.5).all()
    zeros = {
        soc: [
            onnx.numpy_helper.to_array(item)
            for item in onnx.load(bundles[soc][0] / EMULATION).graph.initializer
            if item.name.endswith("_zero_point")
        ]
        for soc in ("tda4vm", "am68a", "am5729")
    }
    # Symmetric: 0, or the least where a tensor is never negative (an unsigned integer's 0).
    symmetric = {float(value) for soc in ("tda4vm", "am5729") for item in zeros[soc] for value in item.flat}
    assert symmetric == {0.0, -128.0}
    assert any(value not in symmetric for item in zeros["am68a"] for value in item.flat)
    kinds = {soc: {str(item.dtype) for item in weights(bundles[soc][0]).values()} for soc in RULES}
    assert kinds["am68a"] == kinds["tda4vm"] == {"int8"}
    assert kinds["am5729"] == {"int16"}
    assert max(int(np.abs(item).max()) for item in weights(bundles["am5729"][0]).values()) == 2047


def test_the_emulation_has_integers_exactly_where_the_accelerator_computes(bundles: Any) -> None:
    folder, built = bundles["am62a"]
    assert [item["reason_code"] for item in built.facts["arm"]] == ["no_lookup_activation"]
    model = onnx.load(folder / EMULATION)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    assert softmax.output[0] == "t9"  # float to the end: no pair behind it
    kinds = ("Conv", "Gemm", "Add", "MaxPool", "GlobalAveragePool")
    work = [node for node in model.graph.node if node.op_type in kinds]
    assert len(work) == 6
    assert all(makers[node.input[0]] == "DequantizeLinear" for node in work)


def test_options_are_the_socs_and_deny_what_the_report_refuses(bundles: Any) -> None:
    found = {soc: json.loads((bundles[soc][0] / "compile/options.json").read_text()) for soc in TODAY}
    kinds = {soc: item["advanced_options:quantization_scale_type"] for soc, item in found.items()}
    assert kinds == {"am62a": 4, "am67a": 4, "am68a": 4, "am69a": 4, "tda4vm": 1}
    assert found["tda4vm"]["advanced_options:calibration_iterations"] == 100
    assert all(item["advanced_options:calibration_frames"] >= 20 for item in found.values())
    assert all(item["max_num_subgraphs"] == 16 for item in found.values())
    report = json.loads((bundles["am62a"][0] / "report/partition.json").read_text())
    assert found["am62a"]["deny_list:layer_name"] == ", ".join(item["node"] for item in report["arm"]) == "t9"
    assert "deny_list:layer_name" not in found["am68a"]
    # Ranges of ours are taken only where they are symmetric and the network runs whole.
    given = {soc for soc, item in found.items() if "advanced_options:quant_params_proto_path" in item}
    assert given == {"tda4vm"}


def test_quantization_parameters_are_whole(bundles: Any) -> None:
    text = (bundles["tda4vm"][0] / "compile/quant_params.prototxt").read_text()
    layers = text.split("layers {")
    assert f"num_layers: {len(layers) - 1}\n" in layers[0]
    assert "quant_type: SYMMETRIC" in layers[0]
    assert len(layers) - 1 == 10
    for layer in layers[1:]:
        for low, high in re.findall(r"min: (\S+)\n\s+max: (\S+)", layer):
            assert -1e30 < float(low) <= float(high) < 1e30
        bias = re.search(r"bias \{.*?size: (\d+)(.*?)\}", layer, re.DOTALL)
        if bias is not None:
            assert bias[2].count("value:") == int(bias[1])
    assert "ASYMMETRIC" in (bundles["am68a"][0] / "compile/quant_params.prototxt").read_text()


def test_a_layer_that_eight_bits_harm_is_moved_to_sixteen_and_named_to_the_tools(
    cnn: Stored, bundles: Any, tmp_path: Path
) -> None:
    built = build(cnn, "tda4vm", tmp_path / "better", snr_db=50.0)
    moved = built.facts["layers_16_bit"]
    assert moved
    given = json.loads((tmp_path / "better/compile/options.json").read_text())
    assert given["advanced_options:output_feature_16bit_names_list"] == ", ".join(moved)
    assert {str(item.dtype) for item in weights(tmp_path / "better").values()} >= {"int16"}
    wide = sum(item.size for item in weights(tmp_path / "better").values() if item.dtype == np.int16)
    assert built.facts["quantization"]["rescue"]["more_bytes"] == wide
    assert not built.facts["arm"]
    assert (np.frexp(all_scales(tmp_path / "better"))[0] == 0.5).all()
    fresh = images(40, seed=9)
    expected = OnnxSession(cnn.hub).run(fresh)["t9"]
    plain, finer = (
        snr(expected, TidlTarget().run(folder, made, fresh)["t9"])
        for folder, made in (bundles["tda4vm"], (tmp_path / "better", built))
    )
    assert finer > plain + 3


def test_two_processes_write_the_same_bytes(cnn: Stored, bundles: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.converters.tidl_bundles import *\n"
        "given = Stored(hub=Path(sys.argv[1]), samples=Path(sys.argv[2]), ranges=Path(sys.argv[3]),\n"
        "    inputs=(Tensor(name='x', dtype='float32', shape=(-1, 3, 8, 8)),),\n"
        "    outputs=(Tensor(name='t9', dtype='float32', shape=(-1, 4)),))\n"
        "build(given, 'am62a', Path(sys.argv[4]))\n"
    )
    command = [sys.executable, "-c", code, *map(str, (cnn.hub, cnn.samples, cnn.ranges, tmp_path / "again"))]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, cwd=Path.cwd())
    first, second = (
        {
            path.relative_to(folder).as_posix(): sha256_file(path)
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (bundles["am62a"][0], tmp_path / "again")
    )
    assert first == second


def test_few_frames_are_doubted_and_large_ones_are_fewer(cnn: Stored, tmp_path: Path) -> None:
    few = stored(small_cnn(), images(12), (X,), (Y,), tmp_path)
    built = build(few, "am68a", tmp_path / "few")
    assert built.facts["calibration_frames"] == 12
    assert any("12 calibration frames" in note for note in built.facts["notes"])


def test_what_tis_own_emulation_would_give_is_compared_with_ours(bundles: Any, tmp_path: Path) -> None:
    """The outputs compared are ours, shifted by hand: TI's emulation is not here."""
    folder, built = bundles["am68a"]
    copy = tmp_path / "bundle"
    shutil.copytree(folder, copy)
    assert tools.host_difference(copy) is None
    with np.load(folder / "calibration" / "frames.npz") as frames:
        ours = TidlTarget().run(folder, built, dict(frames))["t9"]
    shift = 0.1 * np.float32(np.ptp(ours))
    for given, found in ((ours, 0.0), (ours + shift, 0.1)):
        np.savez(copy / tools.HOST_OUTPUTS, t9=given)
        assert tools.host_difference(copy) == pytest.approx(found, rel=0.01)
    np.savez(copy / tools.HOST_OUTPUTS, t9=ours[:3])
    with pytest.raises(Refusal, match="gives no 't9'"):
        tools.host_difference(copy)


# What is refused.


def test_without_calibration_there_is_no_bundle(cnn: Stored, tmp_path: Path) -> None:
    job = Job(
        target="tidl", precision="int8", source=cnn.source, hub=str(cnn.hub), inputs=(X,), outputs=(Y,),
        options={"soc": "am62a"}, rules=RULES["am62a"],
    )  # fmt: skip
    with pytest.raises(Refusal, match="calibration") as caught:
        TidlTarget().build(job, tmp_path)
    assert caught.value.code == "needs_calibration"


def test_tools_that_fail_refuse_the_variant_and_end_nothing_else(
    cnn: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter is a stand-in that crashes; TI's is not here."""
    found = stand_in(tmp_path, "os.kill(os.getpid(), 6)")
    monkeypatch.setenv(tools.FOLDER, str(found.folder))
    monkeypatch.setenv(tools.PYTHON, str(found.python))
    (route,) = TidlTarget().routes("onnx", "int8")
    assert route.name == "compiled by tools"
    with pytest.raises(Refusal, match="signal 6") as caught:
        build(cnn, "am68a", tmp_path / "bundle")
    assert caught.value.code == "tool_failed"
    assert build(cnn, "am5729", tmp_path / "legacy").facts["compiled"] is False
    monkeypatch.delenv(tools.PYTHON)
    assert TidlTarget().routes("onnx", "int8") == (replace(route, name=""),)
