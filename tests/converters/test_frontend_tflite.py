"""TFLite files read back: LiteRT on the file against onnxruntime on the graph that we read from it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.errors import SourceError
from edgekit.rules import load_rules
from edgekit_converters import frontends
from edgekit_converters.errors import Refusal
from edgekit_converters.frontends.tflite_model import convert, reader
from edgekit_converters.frontends.tflite_model.signature import with_signature
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.source import recognise
from edgekit_converters.targets.tflite import TfliteTarget
from edgekit_converters.targets.tflite.lower import build
from edgekit_converters.values import Job
from tests.converters.quant_models import canonical, known, residual, samples
from tests.converters.tflite_ops import lowered

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)
IMAGE = "float[1,3,8,6] x"
NEAREST = (
    'y = Resize <mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">'
    " (x, , , sizes)"
)


def by_onnx(file: reader.File, feed: dict[str, Array]) -> dict[str, Array]:
    """What the graph read from the file gives, without the runtime's own rewriting."""
    model = convert.to_onnx(file, "model.tflite")
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(file.outputs, session.run(None, {name: feed[name] for name in file.inputs}), strict=True))


@pytest.mark.parametrize(
    "body",
    [
        "y = Conv <pads=[1,1,1,1]> (x, k)",
        "y = Conv <strides=[2,2], pads=[0,0,1,1]> (x, k)",
        "y = Conv <dilations=[2,2]> (x, k)",
        "a = Conv <pads=[1,1,1,1]> (x, k) b = Relu (a) y = Add (a, b)",
        "y = ConvTranspose <strides=[2,2]> (x, t)",
        "y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)",
        "y = AveragePool <kernel_shape=[3,3]> (x)",
        "y = GlobalAveragePool (x)",
        "a = Sigmoid (x) b = Tanh (a) c = HardSwish (b) y = Concat <axis=1> (a, b, c)",
        "y = Softmax <axis=3> (x)",
        "y = LogSoftmax <axis=3> (x)",
        "y = Gelu (x)",
        "y = LeakyRelu <alpha=0.3> (x)",
        "y = Transpose <perm=[0,2,3,1]> (x)",
        "y = Slice (x, one, three)",
        "y = Pad (x, amounts)",
        "y = ReduceMean <keepdims=0> (x, one)",
        "y = ReduceMax <keepdims=1> (x, three)",
        "a, b = Split <axis=2, num_outputs=2> (x) y = Sub (a, b)",
        "y = DepthToSpace <blocksize=1> (x)",
        'y = Resize <mode="linear", coordinate_transformation_mode="half_pixel"> (x, , , sizes)',
        'y = Resize <mode="linear", coordinate_transformation_mode="align_corners"> (x, , , sizes)',
        NEAREST,
        "y = MatMul (x, matrix)",
        "a = Flatten (x) y = MatMul (a, wide)",
    ],
)
def test_an_op_of_a_file_is_read_as_it_computes(body: str) -> None:
    weights = {
        "k": "float[4,3,3,3]",
        "t": "float[3,2,2,2]",
        "matrix": "float[6,5]",
        "wide": "float[144,3]",
    }
    random = np.random.default_rng(1)
    stored = ", ".join(
        f"{kind} {name} = {{{', '.join(f'{v:.4f}' for v in random.normal(size=_count(kind)))}}}"
        for name, kind in weights.items()
    )
    whole = (
        "int64[1] one = {1}, int64[1] three = {3}, int64[8] amounts = {0,0,1,2,0,0,1,0}, "
        "int64[4] sizes = {1,3,16,9}"
    )
    made = lowered(f"m ({IMAGE}) => (float[] y) <{stored}, {whole}> {{ {body} }}")
    feed = {"x": RANDOM.normal(size=(1, 3, 8, 6)).astype(np.float32)}
    expected = Interpreter(model_content=made.data, num_threads=1).get_signature_runner()(**feed)
    found = by_onnx(reader.read(made.data, "m"), feed)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-6)
    assert found["y"].dtype == expected["y"].dtype


def _count(kind: str) -> int:
    return int(np.prod([int(size) for size in kind[6:-1].split(",")]))


@cache
def integers() -> bytes:
    """A quantized network: convolutions a channel, a sum, a pool, a dense layer, a softmax."""
    model = canonical(residual)
    made = quantize(
        model, Ranges(known(model, samples()), "minmax"), load_rules("tflite-2.3"), precision="int8"
    )
    return build(made).data


def test_every_integer_op_is_within_one_step_of_its_kernel() -> None:
    data = integers()
    file = reader.read(data, "m")
    interpreter = Interpreter(
        model_content=data,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], RANDOM.integers(-128, 128, entry["shape"]).astype(entry["dtype"]))
    interpreter.invoke()
    seen = 0
    for op in file.ops:
        own = {f"i{i}": i for i in dict.fromkeys(op.inputs) if i >= 0 and file.tensors[i].data is None}
        ends = {f"o{i}": i for i in op.outputs}
        found = by_onnx(
            replace(file, ops=[op], inputs=own, outputs=ends),
            {name: interpreter.get_tensor(i) for name, i in own.items()},
        )
        for name, i in ends.items():
            gap = np.abs(found[name].astype(float) - interpreter.get_tensor(i).astype(float))
            assert gap.max() <= (1 if file.tensors[i].scale is not None else 1e-5), op.kind
            seen += file.tensors[i].scale is not None
    assert seen >= 6


def test_a_file_is_loaded_and_runs_sample_by_sample(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(integers())
    loaded = frontends.load(recognise(path))
    assert loaded.signature.activation == "softmax"
    assert [port.shape[0] for port in (*loaded.signature.inputs, *loaded.signature.outputs)] == [-1, -1]
    (name,) = (port.name for port in loaded.signature.inputs)
    rows = RANDOM.integers(-128, 128, (8, 3, 8, 8)).astype(np.int8)
    expected = loaded.run({name: rows})
    loaded.export(tmp_path / "m.onnx")
    file = reader.read(integers(), "m")
    for i in range(8):
        found = by_onnx(file, {name: rows[i : i + 1]})
        for port, values in found.items():
            gap = np.abs(values[0].astype(float) - expected[port][i].astype(float))
            assert gap.max() <= 255 * loaded.signature.tolerance


def test_a_file_without_names_for_its_ports_gets_them_and_keeps_its_graph() -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    data = integers()
    assert with_signature(data, {}, "m") is data
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    model.signatureDefs = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    bare = bytes(builder.Output())
    file = reader.read(bare, "m")
    (entry,), (end,) = file.inputs, file.outputs
    made = with_signature(bare, {entry: "picture", end: "classes"}, "m")
    runner = Interpreter(model_content=made, num_threads=1).get_signature_runner("serving_default")
    rows = RANDOM.integers(-128, 128, (1, 3, 8, 8)).astype(np.int8)
    plain = Interpreter(model_content=bare, num_threads=1)
    plain.allocate_tensors()
    plain.set_tensor(plain.get_input_details()[0]["index"], rows)
    plain.invoke()
    expected = plain.get_tensor(plain.get_output_details()[0]["index"])
    np.testing.assert_array_equal(runner(picture=rows)["classes"], expected)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes(integers()[: max(16, int(len(integers()) * share))])
    with pytest.raises(SourceError) as caught:
        frontends.load(recognise(path))
    assert str(caught.value.where) == str(path.resolve())


@settings(max_examples=60)
@given(place=st.integers(8, len(integers()) - 1), value=st.integers(0, 255))
def test_a_flipped_byte_never_crashes_the_reader(place: int, value: int) -> None:
    data = bytearray(integers())
    data[place] = value
    with suppress(SourceError):
        convert.to_onnx(reader.read(bytes(data), "m"), "m")


def test_what_has_no_form_is_refused_with_the_op_named() -> None:
    file = reader.read(integers(), "m")
    strange = replace(file, ops=[replace(file.ops[0], kind="FAKE_QUANT"), *file.ops[1:]])
    with pytest.raises(SourceError, match="FAKE_QUANT"):
        convert.to_onnx(strange, "m")


def test_a_tflite_target_gets_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(integers())
    source = recognise(path)
    signature = frontends.load(source).signature
    target = TfliteTarget()
    routes = [route.name for route in target.routes("tflite", "int8")]
    assert routes == ["as_is", "hub"]
    job = Job(
        target="tflite",
        precision="int8",
        source=source,
        hub="",
        inputs=tuple(replace(port, name="picture") for port in signature.inputs),
        outputs=signature.outputs,
        options={"route": "as_is"},
    )
    (tmp_path / "out").mkdir()
    built = target.build(job, tmp_path / "out")
    assert (tmp_path / "out" / built.main).read_bytes() == integers()
    rows = RANDOM.integers(-128, 128, (4, 3, 8, 8)).astype(np.int8)
    found = target.run(tmp_path / "out", built, {"picture": rows})
    expected = frontends.load(source).run({signature.inputs[0].name: rows})
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    with pytest.raises(Refusal, match="int8 already"):
        target.build(replace(job, precision="fp32"), tmp_path / "out")
