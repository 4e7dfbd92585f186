"""ONNX sources to TFLite: every lowered op against onnxruntime, and what is refused is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
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
from edgekit_converters.values import Job, Signature
from tests.converters.graphs import Array, GraphBuilder, save, small_cnn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _floats(*values: float) -> Array:
    return np.array(values, np.float32)


def cnn(g: GraphBuilder) -> tuple[str, list[int]]:
    """Padding, strides, depthwise, pooling with padding, residuals that change layout in between."""
    y = g.op("Conv", "x", g.weight(8, 3, 3, 3), g.weight(8), pads=[0, 1, 1, 0], strides=[2, 2])
    y = g.op("LeakyRelu", y, alpha=0.2)
    y = g.op("Conv", y, g.weight(16, 1, 3, 3), group=8, auto_pad="SAME_UPPER")
    y = g.op("MaxPool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    y = g.op("Mul", y, g.op("Sigmoid", y))
    y = g.op("AveragePool", y, kernel_shape=[2, 2], pads=[1, 0, 0, 1], strides=[1, 1])
    y = g.op("Add", y, g.weight(1, 16, 1, 1))
    y = g.op("Reshape", y, g.constant(_ints(0, -1)))
    return g.op("Gemm", y, g.weight(256, 5), g.weight(5), alpha=0.5, beta=2.0), [5]


def layouts(g: GraphBuilder) -> tuple[str, list[int]]:
    """Broadcasts of lower rank, concatenation over channels, transpositions and reductions after a Conv."""
    y = g.op("Conv", "x", g.weight(6, 3, 1, 1))
    z = g.op("Relu", g.op("Sub", y, g.weight(8, 8)))
    y = g.op("Concat", y, z, axis=1)
    y = g.op("Div", y, g.constant(np.float32(2.5)))
    y = g.op("Transpose", y, perm=[0, 2, 3, 1])
    y = g.op("ReduceMean", y, g.constant(_ints(1)), keepdims=0)
    y = g.op("Unsqueeze", y, g.constant(_ints(1)))
    y = g.op("Squeeze", g.op("Tanh", y), g.constant(_ints(1)))
    y = g.op("Softmax", y, axis=1)
    return g.op("ReduceMax", y, g.constant(_ints(2)), keepdims=0), [8]


def reductions(g: GraphBuilder) -> tuple[str, list[int]]:
    """Element-wise functions, padding, clipping and the spatial mean without kept axes."""
    y = g.op("Pad", "x", g.constant(_ints(0, 0, 1, 2, 0, 0, 3, 0)), g.constant(np.float32(0.5)))
    y = g.op("Clip", y, g.constant(np.float32(0.1)), g.constant(np.float32(0.9)))
    y = g.op("Conv", y, g.weight(4, 3, 2, 2), dilations=[2, 2])
    y = g.op("HardSigmoid", y, alpha=0.3, beta=0.4)
    y = g.op("Reciprocal", g.op("Sqrt", g.op("Exp", g.op("Neg", g.op("Abs", y)))))
    y = g.op("ReduceSum", y, g.constant(_ints(2, 3)), keepdims=0)
    return g.op("MatMul", y, g.weight(4, 6)), [6]


def batch_norm(g: GraphBuilder) -> tuple[str, list[int]]:
    """BatchNormalization that cannot be folded, clipping at six, global pooling, flattening."""
    y = g.op(
        "BatchNormalization",
        "x",
        *(g.constant(_floats(*v)) for v in ((1, 2, 3), (0, 1, -1), (0.5, 0, 1), (1, 2, 4))),
    )
    y = g.op("Clip", y, g.constant(np.float32(0)), g.constant(np.float32(6)))
    y = g.op("GlobalAveragePool", y)
    return g.op("Flatten", y), [3]


GRAPHS: list[Callable[[GraphBuilder], tuple[str, list[int]]]] = [cnn, layouts, reductions, batch_norm]


@pytest.fixture
def pool(workers: Pool) -> Pool:
    return workers


def make_job(pool: Pool, model: onnx.ModelProto, folder: Path, target: str, precision: str = "fp32") -> Job:
    source = recognise(save(model, folder / "model.onnx"))
    described = pool.run("plain", "describe", {"source": asdict(source)})
    signature = Signature.from_dict(described)
    ports = [*signature.inputs, *signature.outputs]
    hub = str(folder / "hub.onnx")
    args = {
        "raw": source.path,
        "out": hub,
        "renames": {item.name: item.name for item in ports},
        "shapes": {item.name: list(item.shape) for item in signature.inputs},
    }
    pool.run("plain", "canonicalise", args)
    return Job(
        target=target,
        precision=precision,
        source=source,
        hub=hub,
        inputs=signature.inputs,
        outputs=tuple(Tensor(name=o.name, dtype=o.dtype, shape=o.shape) for o in signature.outputs),
    )


def graph(build: Callable[[GraphBuilder], tuple[str, list[int]]], batch: int | str = "N") -> onnx.ModelProto:
    g = GraphBuilder((3, 8, 8), seed=3, batch=batch)
    name, shape = build(g)
    return g.model(name, shape)


def real_inputs(n: int = 8) -> dict[str, Array]:
    return {"x": np.random.default_rng(5).random((n, 3, 8, 8), np.float32)}


@pytest.mark.parametrize("build", GRAPHS, ids=lambda f: f.__name__)
def test_an_onnx_graph_computes_the_same_in_litert(build: Any, pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, graph(build), tmp_path, "tflite")
    built = pool.run("plain", "build", {"job": job.to_dict(), "folder": str(tmp_path)})
    save_arrays(tmp_path / "in.npz", real_inputs())
    args = {"target": "tflite", "folder": str(tmp_path), "artifact": built, "data": str(tmp_path / "in.npz")}
    pool.run("plain", "execute", {**args, "out": str(tmp_path / "out.npz")})
    expected = OnnxSession(tmp_path / "model.onnx").run(real_inputs())
    for name, value in expected.items():
        np.testing.assert_allclose(load_arrays(tmp_path / "out.npz")[name], value, rtol=1e-3, atol=1e-5)


def in_doubles(g: GraphBuilder) -> tuple[str, list[int]]:
    """A sine in float64, which onnxruntime has and LiteRT has not."""
    y = g.op("Sin", g.op("Cast", "x", to=onnx.TensorProto.DOUBLE))
    return g.op("Cast", y, to=onnx.TensorProto.FLOAT), [3, 8, 8]


def test_what_no_kernel_does_exactly_is_refused_by_name_not_approximated(pool: Pool, tmp_path: Path) -> None:
    job = make_job(pool, graph(in_doubles), tmp_path, "tflite")
    with pytest.raises(Refusal, match="double") as caught:
        pool.run("plain", "build", {"job": job.to_dict(), "folder": str(tmp_path)})
    assert caught.value.code == "unsupported_type"


def test_one_failing_target_never_stops_the_others(pool: Pool, cache: Path, tmp_path: Path) -> None:
    request = Request(
        source=save(graph(in_doubles), tmp_path / "doubles.onnx"),
        profiles=("x86-64-litert", "x86-64-onnx"),
        precisions=("fp32",),
        out=tmp_path / "out",
        cache=cache,
    )
    manifest = convert(request, pool=pool).manifest
    assert [item.id for item in manifest.variants] == ["x86-64-onnx-onnx-fp32"]
    assert {item.reason_code for item in manifest.refused} == {"unsupported_type"}
    assert {item.id for item in manifest.refused} == {"x86-64-litert-tflite-fp32"}


def test_an_onnx_cnn_becomes_int8_everywhere(pool: Pool, cache: Path, tmp_path: Path) -> None:
    model = save(small_cnn(), tmp_path / "cnn.onnx")
    random = np.random.default_rng(2).random((200, 3, 8, 8), np.float32)
    session = OnnxSession(model)
    labels = session.run({"x": random})[session.outputs[0]].argmax(1)
    np.savez(tmp_path / "cal.npz", x=random[:100])
    np.savez(tmp_path / "val.npz", x=random[100:], labels=labels[100:])
    (tmp_path / "model.toml").write_text('[[metrics]]\nname = "top1"\ntolerance = 0.05\n')
    request = Request(
        source=model,
        profiles=("x86-64-litert", "x86-64-onnx"),
        precisions=("int8",),
        calibration=tmp_path / "cal.npz",
        validation=tmp_path / "val.npz",
        out=tmp_path / "out",
        cache=cache,
    )
    variants = convert(request, pool=pool).manifest.variants
    assert {item.target: item.verification.verdict for item in variants} == {"tflite": "pass", "onnx": "pass"}


def test_large_images_go_through_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four at once would take gigabytes in between."""
    g = GraphBuilder((3, 512, 512))
    session = OnnxSession(g.model(g.op("Relu", "x"), [3, 512, 512]).SerializeToString())
    seen, call = [], session.call

    def counted(inputs: Mapping[str, Any]) -> Any:
        seen.append(len(inputs["x"]))
        return call(inputs)

    monkeypatch.setattr(session, "call", counted)
    x = np.random.default_rng(0).standard_normal((13, 3, 512, 512)).astype(np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["t0"], np.maximum(x, 0))
    assert max(seen) < 8
    assert sum(seen) == 13
