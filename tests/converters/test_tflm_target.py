"""TFLite Micro: what the wheel computes, how much memory it takes, and what it must never be given."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from benchmarks.quantization_inputs import MODELS
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.engine.pool import Pool
from edgekit_converters.errors import Refusal
from edgekit_converters.targets import load_target
from edgekit_converters.targets.tflite.lower import Options, build
from edgekit_converters.targets.tflite.lower.restrict import Restriction
from edgekit_converters.targets.tflite.runner import LiteRtSession
from edgekit_converters.targets.tflm import TflmTarget, arena, content
from tests.conftest import require_package
from tests.converters import tflm_files as tflm
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import canonical, residual, samples
from tests.converters.tflite_ops import floats, parsed

require_package("tflite_micro", "tflm")

ARENAS = {"ad01": 3_984, "kws": 24_272, "resnet": 55_984, "vww": 103_680}
"""Bytes that TFLM uses for MLPerf Tiny's reference int8 files."""
TARGET = TflmTarget()
FRESH = samples(n=8, seed=5)


@pytest.mark.parametrize(("precision", "steps"), [("int8", 1), ("int16x8", 8), ("fp32", 1)])
def test_the_wheel_runs_what_was_written_and_litert_agrees(
    precision: str, steps: int, tmp_path: Path
) -> None:
    built = TARGET.build(tflm.job_of(canonical(residual), tmp_path, precision), tmp_path)
    (port,) = built.outputs
    ours = TARGET.run(tmp_path, built, FRESH)[port.name]
    theirs = LiteRtSession(tmp_path / built.main, built, kernels="builtin").run(FRESH)[port.name]
    scale = 1e-6 if port.quantization is None else port.quantization.scale
    assert np.abs(ours - theirs).max() <= (steps + 0.01) * scale
    assert ours.std() > 0.01
    assert built.requires.runtime == "tflm"
    assert built.requires.arena_kb == -(-built.facts["arena"]["needed"] // 1024)
    assert built.requires.flash_kb == -(-(tmp_path / built.main).stat().st_size // 1024)


@pytest.mark.parametrize("name", sorted(ARENAS))
def test_the_users_own_int8_file_runs_as_it_is(name: str, zoo: Path, tmp_path: Path) -> None:
    built = TARGET.build(tflm.job_of_file(zoo / MODELS[name][1]), tmp_path)
    assert built.facts["arena"]["total"] == ARENAS[name]


@pytest.mark.parametrize(
    "name", ["ad01", "kws", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet", "vww"))]
)
def test_our_file_takes_no_more_arena_than_the_reference_and_each_op_is_within_a_step(
    name: str, zoo: Path, tmp_path: Path, workers: Pool
) -> None:
    require_package("tensorflow", "tf")
    built = TARGET.build(tflm.job_of_zoo(name, zoo, tmp_path, workers), tmp_path)
    taken = built.facts["arena"]
    assert taken["total"] <= ARENAS[name]
    assert taken["total"] == taken["head"] + taken["tail"] <= taken["needed"]
    data = (tmp_path / built.main).read_bytes()
    of = tflm.tensors(data, tflm.quantized_input(data, MODELS[name][2](zoo)[1][0]))
    for op, alone, feeds in tflm.single_operators(data):
        given = [of(index) for index in feeds.values()]
        found = tflm.in_tflm(alone, given).astype(np.int64)
        for kernels in (tflm.BUILTIN, tflm.REFERENCE):
            assert np.abs(found - tflm.in_litert(alone, given, kernels)).max() <= 1, op


def test_memory_is_what_tflm_accepts_and_a_smaller_arena_is_refused(tmp_path: Path) -> None:
    built = TARGET.build(tflm.job_of(canonical(residual), tmp_path), tmp_path)
    data, needed = (tmp_path / built.main).read_bytes(), built.facts["arena"]["needed"]
    arena.opened(data, needed)
    with pytest.raises(Refusal, match="needs more than an arena of") as caught:
        arena.opened(data, needed - arena.ALIGNMENT)
    assert caught.value.code == "arena_too_small"


def test_a_hybrid_file_is_refused(tmp_path: Path) -> None:
    refused = _refused(_written(Options(weights="int8"), tmp_path))
    assert refused.code == "unsupported"
    assert "FULLY_CONNECTED has float activations and integer weights" in refused.message


def test_float16_weights_are_refused(tmp_path: Path) -> None:
    refused = _refused(_written(Options(weights="float16"), tmp_path))
    assert refused.code == "unsupported"
    assert "float16" in refused.message


def test_an_operator_that_tflm_has_not_is_refused_by_name(tmp_path: Path) -> None:
    def gelu(g: GraphBuilder) -> tuple[str, list[int]]:
        return g.op("Gelu", "x"), [3, 8, 8]

    data = build(canonical(gelu)).data
    refused = _refused(data)
    assert refused.code == "unsupported_op"
    assert "has no GELU" in refused.message


def test_more_samples_at_once_are_refused() -> None:
    model = schema.ModelT.InitFromPackedBuf(build(canonical(residual)).data)
    graph = model.subgraphs[0]
    graph.tensors[int(graph.inputs[0])].shape = np.array([4, 3, 8, 8], np.int32)
    assert _refused(tflm.file_of(model)).code == "fixed_batch"


def test_tensors_without_elements_are_refused_which_tflm_would_get_wrong() -> None:
    graph = (
        "g (float[1, 0, 4] x) => (float[1, 4] y) <int64[1] a = {1}> { y = ReduceMin <keepdims = 0> (x, a) }"
    )
    refused = _refused(build(hub.canonical(parsed(graph)).model).data)
    assert refused.code == "unsupported_attribute"
    assert "REDUCE_MIN has a tensor without elements" in refused.message


def test_what_only_loading_shows_is_refused_in_tflms_own_words() -> None:
    model = schema.ModelT.InitFromPackedBuf(build(canonical(residual)).data)
    softmax = model.subgraphs[0].operators[-1]
    softmax.builtinOptions = None
    softmax.builtinOptionsType = 0
    model.subgraphs[0].tensors[int(softmax.outputs[0])].type = schema.TensorType.INT32
    with pytest.raises(Refusal, match=r"does not take the file: .*softmax") as caught:
        arena.measure(tflm.file_of(model))
    assert caught.value.code == "runtime_refused"


def test_without_the_wheel_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    absent: Any = lambda name, *rest: None if name == "tflite_micro" else there(name, *rest)  # noqa: E731
    for module in ("edgekit_converters.targets.tflm", "edgekit_converters.targets.tflm.build"):
        monkeypatch.setattr(f"{module}.find_spec", absent)
    assert TARGET.kernel_sets == ()
    built = TARGET.build(tflm.job_of(canonical(residual), tmp_path), tmp_path)
    assert built.facts["arena"] is None
    assert built.requires.arena_kb is None
    assert built.requires.flash_kb is not None
    assert "A guess: the tflite-micro wheel was not installed" in (tmp_path / "main.cc").read_text()
    assert "not measured" in (tmp_path / "README.md").read_text()


def test_a_type_that_one_kernel_lacks_is_said_in_another_operator() -> None:
    """TFLM's EXPAND_DIMS takes no int32: the largest place of Hardmax has its axis back by a RESHAPE."""
    model = hub.canonical(parsed("g (float[1, 3, 4] x) => (float[1, 3, 4] y) { y = Hardmax <axis = 1> (x) }"))
    made = build(model.model, options=Options(grammar=Restriction(load_rules("tflm-0"))))
    assert "EXPAND_DIMS" not in made.facts["ops"]
    sample = floats(1, 3, 4)
    expected = (sample == sample.max(axis=1, keepdims=True)).astype(np.float32)
    np.testing.assert_array_equal(tflm.in_tflm(made.data, [sample]), expected)


def test_a_graph_whose_sums_tflm_gets_wrong_keeps_them_in_float(tmp_path: Path) -> None:
    assert load_rules("tflm-0").rule("ReduceSum") is None
    sums = [item for item in load_rules("tflm-0").allow if "SUM" in item.ops]
    assert [item.types for item in sums] == [("float32",)]


def test_the_target_is_found_by_its_name() -> None:
    target = load_target("tflm")
    assert target.kernel_sets == ("reference",)
    assert target.version().startswith("0.dev")


def _written(options: Options, folder: Path) -> bytes:
    def dense(g: GraphBuilder) -> tuple[str, list[int]]:
        flat = g.op("Reshape", "x", g.constant(np.array([-1, 192], np.int64)))
        return g.op("Gemm", flat, g.weight(192, 32), g.weight(32)), [32]

    return build(canonical(dense), options=options).data


def _refused(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        content.require(content.read(data), load_rules("tflm-0"))
    return caught.value
