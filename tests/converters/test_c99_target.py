"""The target c99: trained networks, what it refuses, and what becomes of it without a compiler."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import EdgekitError, RefusedError, SourceError
from edgekit.package import Requirements, Tensor, Variant, load_package
from edgekit_agent.serial_ask import prove
from edgekit_agent.serving.serial_client import SerialModel
from edgekit_converters.errors import Refusal
from edgekit_converters.handover.export import export_variant
from edgekit_converters.targets import load_target
from edgekit_converters.targets.c99 import C99Target
from edgekit_converters.targets.c99.arena import Buffer, plan
from edgekit_converters.targets.c99.build import write
from edgekit_converters.targets.c99.compiler import STRICT, compiler
from edgekit_converters.values import Built, Job, Source
from tests.converters.c99_files import T, file_of, files_of, micro
from tests.converters.c99_host import program, running
from tests.converters.conftest import edgekit
from tests.converters.graphs import small_cnn
from tests.converters.test_c99_ops import CASES

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler is installed")
RNG = np.random.default_rng(3)

ZOO = {
    "image_classification/pretrainedResnet_quant.tflite": 55_984,
    "keyword_spotting/kws_ref_model.tflite": 24_272,
    "visual_wake_words/vww_96_int8.tflite": 103_680,
    "anomaly_detection/ad01_int8.tflite": 3_984,
    "micro_speech/micro_speech_quantized.tflite": 7_584,
}
"""Trained networks, and the arena that TFLite Micro takes for each."""


def built(facts: Any) -> Built:
    """What a target says about `facts`, ports as integers."""
    ends = [
        tuple(
            Tensor(name=item["name"], dtype=item["dtype"], shape=tuple(item["shape"]))
            for item in facts["ports"][kind]
        )
        for kind in ("inputs", "outputs")
    ]
    needs = Requirements(runtime="c99")
    return Built(main="c99", inputs=ends[0], outputs=ends[1], requires=needs, route="", facts=facts)


@needs_compiler
@pytest.mark.parametrize("name", ZOO)
def test_a_trained_network_gives_the_wheels_bits_in_a_smaller_arena(
    name: str, zoo: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tflite_micro", reason="the tflite-micro wheel is not installed")
    data = (zoo / name).read_bytes()
    binary, facts = program(data, tmp_path)
    assert facts["arena_bytes"] < ZOO[name]
    with running(binary) as line:
        device = SerialModel(line, timeout=20)
        [source], [target] = device.description.inputs, device.description.outputs
        samples = [RNG.integers(-128, 128, source.shape).astype(np.int8) for _ in range(3)]
        for given, [wanted] in zip(samples, micro(data, [[item] for item in samples]), strict=True):
            np.testing.assert_array_equal(device.raw({source.name: given})[target.name], wanted)


@needs_compiler
def test_every_level_of_optimization_gives_the_same(zoo: Path, tmp_path: Path) -> None:
    facts = write((zoo / "keyword_spotting/kws_ref_model.tflite").read_bytes(), tmp_path / "c99", "kws")
    artifact, target = built(facts), C99Target()
    sample = {artifact.inputs[0].name: RNG.integers(-128, 128, (2, 49, 10, 1)).astype(np.int8)}
    answers = []
    for kernels in target.kernel_sets:
        session = target.open(tmp_path, artifact, kernels=kernels, threads=1)
        answers.append(session.run(sample)[artifact.outputs[0].name])
    assert len(answers) == 2
    np.testing.assert_array_equal(*answers)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    data = file_of("RELU", [T(shape=(1, 8))], [T(shape=(1, 8), zero=-128)])
    for name in ("one", "two"):
        write(data, tmp_path / name, "test")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names)
    assert "ek_conv.c" not in names, "a kernel that the model does not need"


def test_the_header_tells_the_ports_their_scales_and_the_arena(tmp_path: Path) -> None:
    ends = [T(shape=(1, 6), scale=0.25, zero=-3)], [T(shape=(1, 6), scale=0.5, zero=4)]
    facts = write(file_of("QUANTIZE", *ends), tmp_path, "test")
    header = (tmp_path / "model.h").read_text()
    assert f"#define MODEL_ARENA_BYTES {facts['arena_bytes']}" in header
    for line in (
        '#define MODEL_INPUT_0_NAME "t0"',
        "#define MODEL_INPUT_0_SCALE 2.5e-01f",
        "#define MODEL_INPUT_0_ZERO_POINT (-3)",
        "#define MODEL_INPUT_0_SHAPE {1, 6}",
        "#define MODEL_OUTPUT_0_BYTES 6",
        "#define MODEL_OUTPUT_0_SCALE 5.0e-01f",
    ):
        assert line in header.splitlines()


@needs_compiler
def test_two_models_in_one_program_do_not_meet(tmp_path: Path) -> None:
    objects = []
    for name, zero in (("left", 0), ("right", 5)):
        folder = tmp_path / name
        write(file_of("QUANTIZE", [T(shape=(1, 4))], [T(shape=(1, 4), zero=zero)]), folder, "test")
        made = tmp_path / f"{name}.o"
        command = [compiler(), *STRICT, f"-DEK_MODEL={name}", "-c", "-o", made, folder / "model.c"]
        subprocess.run([str(part) for part in command], check=True)
        objects.append(made)
    main = tmp_path / "main.c"
    main.write_text(
        "#include <stdint.h>\n"
        "void *left_input(int); void *right_input(int); int left_invoke(void); int right_invoke(void);\n"
        "const void *left_output(int); const void *right_output(int);\n"
        "int main(void) { *(int8_t *)left_input(0) = 7; *(int8_t *)right_input(0) = 7;\n"
        "left_invoke(); right_invoke();\n"
        "return *(const int8_t *)right_output(0) * 16 + *(const int8_t *)left_output(0); }\n"
    )
    kernel = tmp_path / "left" / "ek_lookup.c"
    out = tmp_path / "both"
    subprocess.run([str(part) for part in (compiler(), "-o", out, main, kernel, *objects)], check=True)
    assert subprocess.run([out], check=False).returncode == 12 * 16 + 7


REFUSED = {
    "an unknown operation": (file_of("ELU", [T(shape=(1, 4))], [T(shape=(1, 4))]), "ELU"),
    "floats inside": (
        file_of(
            "RELU",
            [T(shape=(1, 4), dtype=np.float32, scale=None)],
            [T(shape=(1, 4), dtype=np.float32, scale=None)],
        ),
        "RELU .*float32",
    ),
    "16-bit ports": (
        file_of("RELU", [T(shape=(1, 4), dtype=np.int16)], [T(shape=(1, 4), dtype=np.int16)]),
        "int16",
    ),
    "weights that are computed": (
        file_of("FULLY_CONNECTED", [T(shape=(1, 4)), T(shape=(2, 4))], [T(shape=(1, 2))]),
        "FULLY_CONNECTED .*constant weights",
    ),
    "weights with a zero point": (
        file_of(
            "FULLY_CONNECTED",
            [T(shape=(1, 4)), T(shape=(2, 4), zero=3, data=np.ones((2, 4)))],
            [T(shape=(1, 2))],
        ),
        "zero point",
    ),
    "a fused tanh": (
        file_of("ADD", [T(shape=(1, 4)), T(shape=(1, 4))], [T(shape=(1, 4))], {"fusedActivationFunction": 4}),
        "ADD .*fused activation 4",
    ),
    "parts of different scales": (
        file_of(
            "CONCATENATION", [T(shape=(1, 4)), T(shape=(1, 4), scale=0.1)], [T(shape=(1, 8))], {"axis": 1}
        ),
        "CONCATENATION .*scale",
    ),
    "a softmax of another scale": (
        file_of("SOFTMAX", [T(shape=(1, 4))], [T(shape=(1, 4), scale=0.01)], {"beta": 1.0}),
        "SOFTMAX .*1/256",
    ),
    "no scale": (file_of("RELU", [T(shape=(1, 4), scale=None)], [T(shape=(1, 4))]), "without a scale"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_kernels_do_not_compute_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    with pytest.raises(Refusal, match=words) as caught:
        write(data, tmp_path / "out", "test")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists(), "nothing is left of a refused model"


@pytest.mark.parametrize("name", CASES)
def test_an_output_of_another_shape_is_refused_not_written_out_of_bounds(name: str, tmp_path: Path) -> None:
    """The generated C believes the file's shapes, so that they are checked before it is written."""
    model = schema.ModelT.InitFromPackedBuf(CASES[name])
    graph = model.subgraphs[0]
    shape = list(graph.tensors[graph.outputs[-1]].shape)
    for axis in range(len(shape)):
        for size in (shape[axis] + 1, 0, 1 << 20):
            graph.tensors[graph.outputs[-1]].shape = [*shape[:axis], size, *shape[axis + 1 :]]
            builder = flatbuffers.Builder(1024)
            builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
            with pytest.raises((Refusal, SourceError)):
                write(bytes(builder.Output()), tmp_path, "test")


@pytest.mark.parametrize("cut", [0, 7, 100, 300])
def test_a_damaged_file_is_an_error_of_the_source(cut: int, tmp_path: Path) -> None:
    data = file_of("RELU", [T(shape=(1, 8))], [T(shape=(1, 8))])
    with pytest.raises(SourceError):
        write(data[:cut], tmp_path, "test")


def test_without_a_compiler_the_variant_is_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CC", "")
    target = load_target("c99")
    assert target.kernel_sets == ()
    facts = write(file_of("RELU", [T(shape=(1, 8))], [T(shape=(1, 8))]), tmp_path / "c99", "test")
    assert target.open(tmp_path, built(facts), kernels="O2", threads=1) is None
    assert (tmp_path / "c99" / "model.c").exists()


def test_a_compiler_that_fails_is_a_refusal_with_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'no space on the device' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("EDGEKIT_CC", str(broken))
    facts = write(file_of("RELU", [T(shape=(1, 8))], [T(shape=(1, 8))]), tmp_path / "c99", "test")
    with pytest.raises(Refusal, match="no space on the device") as caught:
        C99Target().open(tmp_path, built(facts), kernels="O2", threads=1)
    assert caught.value.code == "tool_failed"


@pytest.mark.parametrize("seed", range(20))
def test_buffers_that_live_together_never_overlap_and_little_is_wasted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers = []
    for key in range(12):
        first = int(rng.integers(0, 20))
        last = first + int(rng.integers(0, 6))
        buffers.append(Buffer(key=key, size=int(rng.integers(1, 5000)), first=first, last=last))
    found = plan(buffers)
    for one, other in itertools.combinations(buffers, 2):
        if one.meets(other):
            a, b = found.offsets[one.key], found.offsets[other.key]
            assert a + one.size <= b or b + other.size <= a
    needed = max(sum(item.size for item in buffers if item.first <= at <= item.last) for at in range(26))
    assert needed <= found.size <= 1.4 * needed
    assert all(offset % 4 == 0 for offset in found.offsets.values())


def test_an_operand_that_is_needed_later_is_not_written_over(tmp_path: Path) -> None:
    ends = [T(shape=(1, 1000))], [T(shape=(1, 1000)), T(shape=(1, 1000))]
    once = write(files_of([("RELU", [0], None), ("RELU", [-1], None)], *ends), tmp_path, "test")
    twice = write(files_of([("RELU", [0], None), ("ADD", [-1, 0], {})], *ends), tmp_path, "test")
    assert (once["arena_bytes"], twice["arena_bytes"]) == (1000, 2000)


@needs_compiler
def test_an_onnx_model_becomes_verified_c_for_a_microcontroller(cache: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    onnx.save(small_cnn(seed=1), tmp_path / "m.onnx")
    for name in ("cal", "val"):
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(0, 1, (60, 3, 8, 8)).astype(np.float32))
    options = ["--calibration", tmp_path / "cal.npz", "--validation", tmp_path / "val.npz"]
    where = ["--profile", "cortex-m4", "--target", "c99", "--out", tmp_path / "out", "--json"]
    edgekit("convert", tmp_path / "m.onnx", *options, *where, cache=cache)
    manifest = load_package(tmp_path / "out")
    [variant] = manifest.variants
    assert (variant.id, variant.verification.verdict) == ("cortex-m4-c99-int8", "pass")
    assert variant.verification.method == "executed"
    assert variant.requires.runtime == "c99"
    names = {item.path.rpartition("/")[2] for item in variant.files}
    assert {"model.c", "model.h", "model_weights.h", "ek_conv.c", "ek_depthwise.c", "ek_serial.c"} <= names
    _proven_over_its_serial_line(tmp_path, variant)


def _proven_over_its_serial_line(tmp_path: Path, variant: Variant) -> None:
    """What is exported compiles with its own Makefile, knows its digest, and passes the package's probes."""
    export_variant(tmp_path / "out", "c99", tmp_path / "firmware")
    source = tmp_path / "firmware" / "c99"
    subprocess.run(["make", "-s", "-C", source, f"CC={compiler()}"], check=True)
    with running(source / "model") as line:
        device = SerialModel(line, timeout=10)
        assert device.description.digest == variant.digest.removeprefix("sha256:")
        outcome = prove(device, tmp_path / "out")
        assert variant.probe is not None
        assert (outcome.passed, outcome.n) == (True, variant.probe.n)
        other = tmp_path / "other"
        shutil.copytree(tmp_path / "out", other)
        (other / "package.json").write_bytes(
            (other / "package.json").read_bytes().replace(variant.digest.encode(), b"sha256:" + b"0" * 64)
        )
        with pytest.raises((RefusedError, EdgekitError)):
            prove(device, other)


def test_a_quantized_tflite_file_becomes_c_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(file_of("RELU", [T(shape=(1, 8), zero=3)], [T(shape=(1, 8), zero=-128)]))
    ports = [Tensor(name=name, dtype="int8", shape=(-1, 8)) for name in ("in", "out")]
    job = Job(
        target="c99",
        precision="int8",
        source=Source(path=str(path), kind="tflite", digest="0" * 64, bytes=1),
        hub="",
        inputs=(ports[0],),
        outputs=(ports[1],),
        options={"route": "as_is"},
    )
    target = C99Target()
    assert [route.name for route in target.routes("tflite", "int8")] == ["as_is", "hub"]
    made = target.build(job, tmp_path)
    assert made.facts["ops"] == {"RELU": 1}
    assert (made.requires.arena_kb, made.requires.flash_kb) == (1, 1), (
        "known, so that a board may be too small"
    )
    assert made.route == "tflite as it is, with a signature > C99"
    assert '"in"' in (tmp_path / made.main / "model.h").read_text()
