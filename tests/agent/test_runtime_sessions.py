"""Loading and computing with the real runtimes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import UnavailableError
from edgekit.package import Tensor
from edgekit.ports import Runtime, Session
from edgekit_agent.errors import ModelError
from edgekit_agent.runtimes.litert import LiteRtRuntime
from edgekit_agent.runtimes.litert_session import read_output
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from tests.agent.models import WEIGHTS, installed, samples

KINDS = ("onnx", "tflite", "tflite-int8")


def runtime_of(kind: str) -> Runtime:
    return OnnxRuntime() if kind == "onnx" else LiteRtRuntime()


def load(folder: Path, kind: str, **options: object) -> Session:
    thing = installed(folder, kind=kind, **options)  # type: ignore[arg-type]  # passed on to the writer
    return runtime_of(kind).load(folder, thing.variant, threads=1)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_models_in_the_contracts_dtype(tmp_path: Path, kind: str) -> None:
    session = load(tmp_path, kind)
    inputs = samples(6)
    answer = session.run({"x": inputs})["y"]
    assert answer.dtype == np.float32
    assert answer.shape == (6, 3)
    np.testing.assert_allclose(answer, inputs @ WEIGHTS, atol=0.26 if kind.endswith("int8") else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_changing_size_answer_each_sample_alike(tmp_path: Path, kind: str) -> None:
    session = load(tmp_path, kind)
    inputs = samples(70)
    alone = np.concatenate([session.run({"x": inputs[i : i + 1]})["y"] for i in range(70)])
    for size in (70, 3, 1, 33):
        np.testing.assert_allclose(session.run({"x": inputs[:size]})["y"], alone[:size], atol=1e-5)


def test_a_graph_with_a_fixed_batch_is_run_piece_by_piece(tmp_path: Path) -> None:
    session = load(tmp_path, "onnx", batch=4)
    inputs = samples(10)
    np.testing.assert_allclose(session.run({"x": inputs})["y"], inputs @ WEIGHTS, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_share_a_session(tmp_path: Path, kind: str) -> None:
    session = load(tmp_path, kind)
    inputs = samples(40)
    expected = [session.run({"x": inputs[i : i + 1]})["y"] for i in range(40)]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for turn in range(200):
            i = (offset + turn) % 40
            if not np.array_equal(session.run({"x": inputs[i : i + 1]})["y"], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 50])
def test_a_corrupt_file_is_refused_with_a_remedy(tmp_path: Path, kind: str, content: bytes) -> None:
    thing = installed(tmp_path, kind=kind)
    (tmp_path / thing.variant.files[0].path).write_bytes(content)
    with pytest.raises(UnavailableError) as caught:
        runtime_of(kind).load(tmp_path, thing.variant)
    assert caught.value.code == "model_refused"
    assert caught.value.remedy


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_tensor_the_file_has_not_is_named(tmp_path: Path, kind: str) -> None:
    from dataclasses import replace

    thing = installed(tmp_path, kind=kind)
    other = (*thing.variant.inputs, Tensor(name="ghost", dtype="float32", shape=(-1, 4)))
    if kind == "onnx":
        with pytest.raises(UnavailableError, match="no tensor 'ghost'"):
            OnnxRuntime().load(tmp_path, replace(thing.variant, inputs=other))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_failing_run_is_held_against_the_model(tmp_path: Path, kind: str) -> None:
    session = load(tmp_path, kind)
    with pytest.raises(ModelError) as caught:
        session.run({"x": np.zeros((2, 5), np.float32)})
    assert caught.value.code == "runtime_failed"
    good = samples(2)
    np.testing.assert_allclose(session.run({"x": good})["y"], good @ WEIGHTS, atol=1e-5)


def test_the_backend_is_what_really_computes(tmp_path: Path) -> None:
    assert load(tmp_path / "a", "onnx").backend == "CPUExecutionProvider"
    assert load(tmp_path / "b", "tflite").backend == "xnnpack"


def test_versions_are_told_without_importing_runtime_or_numpy() -> None:
    program = (
        "import sys\n"
        "from edgekit_agent.runtimes.litert import LiteRtRuntime\n"
        "from edgekit_agent.runtimes.onnxruntime import OnnxRuntime\n"
        "assert LiteRtRuntime().version() and OnnxRuntime().version()\n"
        "heavy = {'numpy', 'ai_edge_litert', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_zoo_models_run_in_litert(zoo: Path) -> None:
    from edgekit.package import File, Requirements, Variant, Verification

    for name, shape, out in (
        ("image_classification/pretrainedResnet_quant.tflite", (-1, 32, 32, 3), (-1, 10)),
        ("mobilenet/mobilenet_v2_1.0_224_quant.tflite", (-1, 224, 224, 3), (-1, 1001)),
    ):
        variant = Variant(
            id="zoo",
            digest="",
            profile="host",
            target="tflite",
            precision="int8",
            files=(File(path=name, sha256="", bytes=0),),
            requires=Requirements(runtime="litert"),
            inputs=(Tensor(name="image", dtype="float32", shape=shape),),
            outputs=(Tensor(name="scores", dtype="float32", shape=out),),
            verification=Verification(method="executed", verdict="pass"),
        )
        session = LiteRtRuntime().load(zoo, variant)
        batch = np.random.default_rng(0).uniform(0, 1, (3, *shape[1:])).astype(np.float32)
        together = session.run({"image": batch})["scores"]
        alone = np.concatenate([session.run({"image": batch[i : i + 1]})["scores"] for i in range(3)])
        assert together.shape == (3, out[1])
        assert np.all(together.sum(axis=1) > 0.5)
        np.testing.assert_allclose(together, alone, atol=0.05)


class _Empty:
    """LiteRT 2.3 on an output of which nothing is left, or which was never computed."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def get_tensor(self, index: int) -> None:
        raise ValueError("Invalid tensor size.")

    def get_output_details(self) -> list[dict[str, object]]:
        return [{"index": 7, "shape": np.array(self._shape, np.int32), "dtype": np.float32}]


def test_an_output_of_which_nothing_is_left_is_an_empty_array() -> None:
    found = read_output(_Empty((0, 3)), 7)
    assert found.shape == (0, 3)
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="Invalid tensor size"):
        read_output(_Empty((2, 3)), 7)
