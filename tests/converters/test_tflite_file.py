"""The file itself: layouts, names, precisions, sizes, versions, and what stays out of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower import writer
from edgekit_converters.targets.tflite.lower.runtimes import litert_of, runtime_of
from tests.converters.graphs import GraphBuilder, save, small_cnn
from tests.converters.tflite_files import agree, answers, compiled, model_of, random, reference

IMAGE = (3, 8, 8)


def test_a_plain_cnn_costs_one_transpose_at_its_entry() -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Relu", g.op("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1]))
        z = g.op("Conv", y, g.weight(8, 8, 3, 3), pads=[1, 1, 1, 1])
        y = g.op("MaxPool", g.op("Concat", g.op("Add", y, z), y, axis=1), kernel_shape=[2, 2], strides=[2, 2])
        y = g.op("Mul", y, g.weight(16, 1, 1))
        return g.op("Gemm", g.op("Flatten", y), g.weight(256, 5), g.weight(5))

    assert agree(build, IMAGE).facts["transposes"] == 1


def test_an_image_that_comes_channels_last_costs_none() -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Transpose", "x", perm=[0, 3, 1, 2])
        y = g.op("Conv", y, g.weight(4, 3, 3, 3))
        return g.op("Transpose", g.op("Relu", y), perm=[0, 2, 3, 1])

    file = agree(build, (8, 8, 3))
    assert file.facts["transposes"] == 0
    assert file.inputs[0].shape == (2, 8, 8, 3)


def test_a_flattened_image_read_twice_is_put_in_order_once() -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Flatten", g.op("Conv", "x", g.weight(4, 3, 1, 1)))
        return g.op("Concat", g.op("Gemm", y, g.weight(256, 5)), g.op("Relu", y), axis=1)

    assert agree(build, IMAGE).facts["transposes"] == 2


def test_the_source_layout_is_kept_at_the_boundary() -> None:
    file = agree(lambda g: g.op("Conv", "x", g.weight(4, 3, 3, 3)), IMAGE)
    assert file.inputs[0].shape == (2, 3, 8, 8)
    assert file.outputs[0].shape == (2, 4, 6, 6)


def test_a_free_batch_stays_free() -> None:
    model = small_cnn()
    file = compiled(model)
    assert file.inputs[0].shape[0] is None
    machine = Interpreter(model_content=file.data)
    assert machine.get_input_details()[0]["shape_signature"][0] == -1
    for n in (1, 5):
        feed = random(n, *IMAGE)
        for found in answers(file, feed).values():
            np.testing.assert_allclose(found, reference(model, feed), rtol=1e-4, atol=1e-5)


def test_ports_have_the_models_own_names_and_each_a_tensor_of_its_own() -> None:
    def build(g: GraphBuilder) -> str:
        return g.op("Reshape", "x", g.constant(np.array([0, 3, 8, 8], np.int64)))

    file = compiled(model_of(build, IMAGE, 2))
    signature = Interpreter(model_content=file.data).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["x"], "outputs": ["t0"]}
    feed = random(2, *IMAGE)
    np.testing.assert_array_equal(answers(file, feed)["builtin"], feed)


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert compiled(small_cnn()).data == compiled(small_cnn()).data


@pytest.mark.parametrize(
    ("weights", "largest", "ratio"), [("float16", 2e-3, 0.55), ("int8", 0.06, 0.33), ("int4", 0.8, 0.22)]
)
def test_smaller_weights_are_smaller_and_still_right(weights: str, largest: float, ratio: float) -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Relu", g.op("Conv", "x", g.weight(64, 3, 5, 5), g.weight(64), pads=[2, 2, 2, 2]))
        y = g.op("Relu", g.op("Conv", y, g.weight(64, 64, 3, 3, scale=0.05), pads=[1, 1, 1, 1]))
        y = g.op("Conv", y, g.weight(64, 1, 5, 5), pads=[2, 2, 2, 2], group=64)
        return g.op("Gemm", g.op("Flatten", g.op("GlobalAveragePool", y)), g.weight(64, 32), g.weight(32))

    model, feed = model_of(build, IMAGE, 1), random(1, *IMAGE)
    file, plain = compiled(model, weights=weights), compiled(model)
    assert len(file.data) < ratio * len(plain.data)
    wanted = reference(model, feed)
    for kernels, found in answers(file, feed).items():
        assert np.abs(found - wanted).max() < largest * np.ptp(wanted), kernels


def test_a_file_beyond_two_gigabytes_is_refused_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LIMIT", 2**24 + 1000)
    with pytest.raises(Refusal, match="less than 2 GiB") as caught:
        compiled(small_cnn())
    assert caught.value.code == "too_large"
    assert caught.value.remedy is not None
    assert "int8" in caught.value.remedy


def test_what_is_written_piece_by_piece_is_the_file(tmp_path: Path) -> None:
    file = compiled(small_cnn())
    file.write(tmp_path / "model.tflite")
    assert (tmp_path / "model.tflite").read_bytes() == file.data


def test_every_weight_lies_aligned_in_the_file() -> None:
    from ai_edge_litert import schema_py_generated as schema

    data = compiled(small_cnn()).data
    model = schema.Model.GetRootAs(data, 0)
    places = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [item._tab.Vector(item._tab.Offset(4)) for item in places if item.DataLength()]
    assert len(starts) > 5
    assert all(start % 16 == 0 for start in starts)


def test_ops_are_written_in_the_oldest_version_that_carries_them() -> None:
    plain = compiled(model_of(lambda g: g.op("Conv", "x", g.weight(4, 3, 3, 3)), IMAGE, 1))
    grouped = compiled(model_of(lambda g: g.op("Conv", "x", g.weight(6, 1, 3, 3), group=3), IMAGE, 1))
    halves = compiled(model_of(lambda g: g.op("Conv", "x", g.weight(9, 3, 3, 3), group=1), IMAGE, 1))
    assert plain.min_runtime == halves.min_runtime == runtime_of("TRANSPOSE", 1) == "1.6.0"
    assert grouped.min_runtime == "1.6.0", "depthwise is no grouped convolution"
    with pytest.raises(KeyError, match="CONV_2D"):
        runtime_of("CONV_2D", 99)


def test_a_grouped_convolution_does_not_ask_litert_for_a_version_of_tensorflow() -> None:
    file = compiled(model_of(lambda g: g.op("Conv", "x", g.weight(6, 1, 3, 3), group=3), IMAGE, 1))
    assert litert_of(file.min_runtime) == "1.0.1"
    assert litert_of("2.19.0") == "1.2.0"
    assert litert_of("2.99.0") == "2.3.0"


def test_nothing_of_tensorflow_enters_the_process(tmp_path: Path) -> None:
    save(small_cnn(), tmp_path / "cnn.onnx")
    code = (
        "import sys, onnx\n"
        "from edgekit_converters import hub\n"
        "from edgekit_converters.targets.tflite.lower import build\n"
        f"made = build(hub.canonical(onnx.load({str(tmp_path / 'cnn.onnx')!r})).model)\n"
        "assert made.data[4:8] == b'TFL3'\n"
        "sys.exit(sum(name in sys.modules for name in ('tensorflow', 'torch', 'coremltools', 'jax')))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
