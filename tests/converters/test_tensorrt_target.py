"""TensorRT's ONNX holds to what its parser takes, and the script on the device builds an engine only once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.rules import load_rules
from edgekit_converters.errors import Refusal
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.quantize.pipeline import for_target
from edgekit_converters.quantize.running import serialize
from edgekit_converters.targets.tensorrt import TensorrtTarget, graph, script
from edgekit_converters.targets.tensorrt.opset import lowered
from edgekit_converters.targets.triton import TritonTarget
from edgekit_converters.targets.triton.check import parsed
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import samples
from tests.converters.triton_jobs import job_of
from tests.converters.trt_devices import Device

TEN, EIGHT = "tensorrt-10.3", "tensorrt-8.2"
FRESH = samples(16, seed=7)


def test_int8_is_symmetric_with_float_biases_and_half_for_the_rest(tmp_path: Path) -> None:
    made = graph.make(job_of(tmp_path, precision="int8"), TEN)
    model = onnx.load_from_string(made.data)
    assert list(graph.faults(model, 20)) == []
    assert model.opset_import[0].version == 20
    kinds = [item.op_type for item in model.graph.node]
    assert kinds.count("QuantizeLinear") >= 4
    assert "Cast" in kinds
    constants = {item.name: item for item in model.graph.initializer}
    biases = [node.input[2] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {constants[name].data_type for name in biases} == {TensorProto.FLOAT16}
    ports = [*model.graph.input, *model.graph.output]
    assert {item.type.tensor_type.elem_type for item in ports} == {TensorProto.FLOAT}
    assert made.facts["quantization"]["weighted_ops"] == [4, 4]


def asymmetric(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    replace(model, node.input[2], np.array(3, np.int8))


def unsigned(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    replace(model, node.input[2], np.array(0, np.uint8))


def many_scales(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    replace(model, node.input[1], np.ones(8, np.float32))


def of_another_axis(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    conv = next(item for item in model.graph.node if item.op_type == "Conv")
    weight = next(item for item in model.graph.node if item.output[0] == conv.input[1])
    next(item for item in weight.attribute if item.name == "axis").i = 1


def biased(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    conv = next(item for item in model.graph.node if item.op_type == "Conv")
    weight = next(item for item in model.graph.node if item.output[0] == conv.input[1])
    conv.input[2] = weight.output[0]


def newer(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def replace(model: onnx.ModelProto, name: str, value: Any) -> None:
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(value, name))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (asymmetric, "a zero point that is not 0"),
        (unsigned, "only int8 is symmetric"),
        (many_scales, "activations have one scale a tensor"),
        (of_another_axis, "Conv has its channels on 0"),
        (biased, "a quantized bias"),
        (newer, "opset 21, it reads 20"),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_graph_that_tensorrt_refuses_is_found(spoil: Any, said: str, tmp_path: Path) -> None:
    model = onnx.load_from_string(graph.make(job_of(tmp_path, precision="int8"), TEN).data)
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    spoil(first, model)
    assert any(said in item for item in graph.faults(model, 20))


def test_a_source_with_asymmetric_integers_is_refused_with_a_remedy(tmp_path: Path) -> None:
    job = job_of(tmp_path, precision="int8")
    rules, ranges = load_rules("onnx-1.31"), Path(str(job.ranges))
    model, _ = for_target(ir.load(job.hub), ranges, rules, "int8")
    Path(job.hub).write_bytes(serialize(model))
    with pytest.raises(Refusal, match="only int8 is symmetric") as caught:
        graph.make(job, TEN)
    assert caught.value.code == "symmetric_only"
    assert "float source" in str(caught.value.remedy)


@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-6), ("fp16", 5e-3), ("int8", 0.05)])
def test_what_stands_in_computes_the_float_graph(precision: str, close: float, tmp_path: Path) -> None:
    job = job_of(tmp_path, precision=precision)
    built = TensorrtTarget().build(job, tmp_path)
    session = TensorrtTarget().open(tmp_path, built, kernels="as-written", threads=1)
    found = session.run(FRESH)
    expected = OnnxSession(Path(job.hub)).run(FRESH)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, atol=close)
    assert session.ran["method"] == "emulated"
    assert "TensorRT did not run" in session.backend


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    job = job_of(tmp_path, precision="int8")
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        TensorrtTarget().build(job, tmp_path / name)
        found.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"model.onnx", "build_engine.sh"}


def reduced(g: GraphBuilder) -> tuple[str, list[int]]:
    """What opset 13 says otherwise (axes as attributes) or not at all (LayerNormalization, HardSwish)."""
    y = g.op("Relu", g.op("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1]))
    y = g.op("ReduceMean", y, g.constant(np.array([2, 3], np.int64)), keepdims=0)
    y = g.op("LayerNormalization", y, g.weight(8), g.weight(8))
    return g.op("HardSwish", g.op("Gemm", y, g.weight(8, 4), g.weight(4))), [4]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_first_jetsons_parser_gets_opset_13_and_the_same_numbers(precision: str, tmp_path: Path) -> None:
    job = job_of(tmp_path, reduced, precision=precision, rules=EIGHT)
    made = graph.make(job, EIGHT)
    model = onnx.load_from_string(made.data)
    assert model.opset_import[0].version == 13
    allowed = {name for entry in load_rules(EIGHT).allow for name in entry.ops}
    assert {item.op_type for item in model.graph.node} <= allowed
    found = OnnxSession(made.data, optimized=False).run(FRESH)
    for name, value in OnnxSession(Path(job.hub)).run(FRESH).items():
        np.testing.assert_allclose(found[name], value, atol=1e-5 if precision == "fp32" else 2e-2)


def test_an_operator_newer_than_the_parser_is_named() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], name="bend")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "g", ports[:1], ports[1:]), opset_imports=[helper.make_opsetid("", 21)]
    )
    assert lowered(model, 20).opset_import[0].version == 20
    with pytest.raises(Refusal, match="Gelu at bend") as caught:
        lowered(model, 13)
    assert caught.value.code == "opset_too_new"


def determinant(g: GraphBuilder) -> tuple[str, list[int]]:
    """An operator that the parser does not read and nothing spells out."""
    return g.op("Det", g.op("Relu", "x")), [3]


def test_what_the_parser_does_not_read_is_refused_on_a_board_and_left_to_cuda_behind_triton(
    tmp_path: Path,
) -> None:
    with pytest.raises(Refusal, match="Det") as caught:
        graph.make(job_of(tmp_path, determinant, rules=TEN), TEN)
    assert caught.value.code == "unsupported_op"
    made = graph.make(job_of(tmp_path, determinant, rules="triton-10.3"), "triton-10.3")
    assert "Det" in made.facts["no_engine"]
    assert "Det" in [node.op_type for node in onnx.load_from_string(made.data).graph.node]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    folder = tmp_path / "variant"
    folder.mkdir()
    TensorrtTarget().build(job_of(tmp_path, precision="fp16"), folder)
    return Device(tmp_path / "machine", folder)


def test_the_script_is_sound_bash(device: Device) -> None:
    path = device.folder / script.SCRIPT
    subprocess.run(["bash", "-n", path], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, path], check=True)


def test_an_engine_is_built_once_and_kept(device: Device) -> None:
    first = device.build()
    second = device.build()
    assert len(device.calls) == 1
    assert first.stdout == second.stdout
    assert Path(first.stdout.strip()).read_text() == "engine\n"
    assert "kept" in second.stderr
    device.build("--force")
    assert len(device.calls) == 2


@pytest.mark.parametrize(("fact", "value"), [("trt", "100700"), ("cc", "8.6"), ("driver", "550.1")])
def test_another_gpu_tensorrt_or_driver_builds_anew(device: Device, fact: str, value: str) -> None:
    before = device.build("--key").stdout
    device.build()
    device.facts[fact] = value
    assert device.build("--key").stdout != before
    device.build()
    assert len(device.calls) == 2
    assert len(list(device.cache.glob("*.plan"))) == 2


def test_another_model_or_other_options_build_anew(device: Device) -> None:
    device.build()
    device.build("--", "--builderOptimizationLevel=5")
    model = device.folder / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    device.build()
    assert len(device.calls) == 3
    assert device.calls[1].endswith("--builderOptimizationLevel=5")


def test_the_key_names_what_an_engine_hangs_on(device: Device) -> None:
    assert device.build("--key").stdout.strip().endswith("-cc8.7-trt10.3.0-driver540.4.0")
    assert device.calls == []


@pytest.mark.parametrize(
    ("rules", "version", "said", "unsaid"),
    [
        (EIGHT, "8201", ["--fp16", "--buildOnly"], ["--stronglyTyped", "--skipInference"]),
        (TEN, "100300", ["--stronglyTyped", "--skipInference"], ["--fp16", "--buildOnly"]),
        (TEN, "110401", ["--skipInference"], ["--fp16", "--stronglyTyped", "--buildOnly"]),
    ],
)
def test_each_tensorrt_is_asked_in_its_own_words(
    rules: str, version: str, said: list[str], unsaid: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "variant"
    folder.mkdir()
    TensorrtTarget().build(job_of(tmp_path, precision="fp16", rules=rules), folder)
    device = Device(tmp_path / "machine", folder)
    device.facts["trt"] = version
    device.build()
    words = device.calls[0].split()
    assert set(said) <= set(words)
    assert not set(unsaid) & set(words)
    assert "--maxShapes=x:8x3x8x8" in words


def test_a_build_that_fails_leaves_no_engine_and_says_why(device: Device) -> None:
    failed = device.build(check=False, FAKE_FAIL="1")
    assert failed.returncode == 1
    assert "no kernel found" in failed.stderr
    assert list(device.cache.glob("*.plan*")) == list(device.cache.glob("*.plan.log"))
    device.build()
    assert len(list(device.cache.glob("*.plan"))) == 1


def test_a_tensorrt_too_old_for_the_file_builds_nothing(device: Device) -> None:
    device.facts["trt"] = "8201"
    refused = device.build(check=False)
    assert refused.returncode == 1
    assert "too old" in refused.stderr
    assert device.calls == []


def test_what_the_machine_does_not_say_can_be_said(device: Device) -> None:
    device.facts |= {"cc": "", "driver": ""}
    silent = device.build("--key", check=False)
    assert silent.returncode == 1
    assert "EDGEKIT_" in silent.stderr
    told = device.build("--key", EDGEKIT_COMPUTE_CAPABILITY="5.3", EDGEKIT_DRIVER="32.7")
    assert "-cc5.3-" in told.stdout


def test_a_batch_that_the_file_fixes_gets_no_shapes(tmp_path: Path) -> None:
    job = job_of(tmp_path, residual_of_one, precision="fp16", batch=1)
    built = TensorrtTarget().build(job, tmp_path)
    assert built.facts["max_batch"] == 0
    assert "Shapes" not in (tmp_path / script.SCRIPT).read_text()


def residual_of_one(g: GraphBuilder) -> tuple[str, list[int]]:
    """A head whose reshape holds for one sample only."""
    y = g.op("Conv", "x", g.weight(4, 3, 3, 3), g.weight(4))
    y = g.op("Reshape", y, g.constant(np.array([1, 4 * 36], np.int64)))
    return g.op("Gemm", y, g.weight(4 * 36, 3), g.weight(3)), [3]


def test_plans_are_offered_to_triton_by_compute_capability(tmp_path: Path) -> None:
    folder = tmp_path / "variant"
    folder.mkdir()
    job = job_of(tmp_path, precision="fp16", rules="triton-10.3", options={"accelerator": "tensorrt"})
    TritonTarget().build(job, folder)
    device = Device(tmp_path / "machine", folder)
    place = folder / "plan_repository" / "little_net"
    for capability in ("8.7", "8.6", "8.7"):
        device.facts["cc"] = capability
        device.build()
    assert sorted(item.name for item in (place / "1").iterdir()) == ["model.cc8.6.plan", "model.cc8.7.plan"]
    written = (place / "config.pbtxt").read_text()
    assert written.count("cc_model_filenames") == 2
    found = parsed([place / "config.pbtxt"])
    if found is not None:  # the sidecar is installed
        assert found[0]["cc_model_filenames"] == {"8.6": "model.cc8.6.plan", "8.7": "model.cc8.7.plan"}
