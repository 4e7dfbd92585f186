"""Caffe nets, written by our own writer, read by us and by OpenCV: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import SourceError
from edgekit_converters import frontends
from edgekit_converters.frontends import caffe_model
from edgekit_converters.frontends.caffe_model import text, windows, wire
from edgekit_converters.source import recognise
from tests.converters.caffe_files import Array, NetWriter

SHAPE = (1, 3, 9, 7)


def both(path: Path, rows: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """OpenCV's answers and those of our ONNX form, by output."""
    pytest.importorskip("cv2", reason="OpenCV below 5 is what Caffe nets are compared with")
    loaded = frontends.load(recognise(path))
    assert "opencv" in loaded.signature.framework
    expected = loaded.run({"data": rows})
    loaded.export(path.with_suffix(".onnx"))
    model = onnx.load(path.with_suffix(".onnx"))
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return expected, dict(zip(expected, session.run(None, {"data": rows}), strict=True))


def conv(net: NetWriter, bottom: str, extra: str = "", *, kind: str = "Convolution", group: int = 1) -> str:
    options = f"convolution_param {{ num_output: 6 kernel_size: 3 group: {group} {extra} }}"
    weight = net.weight(6, 3 // group, 3, 3) if kind == "Convolution" else net.weight(3, 6 // group, 3, 3)
    return net.layer(kind, bottom, None, options, weight, net.weight(6))


def pool(net: NetWriter, bottom: str, options: str) -> str:
    return net.layer("Pooling", bottom, None, f"pooling_param {{ {options} }}")


def batch_norm(net: NetWriter) -> None:
    spread = np.abs(net.weight(3)) + 0.5
    net.layer("BatchNorm", "data", "data2", "", net.weight(3), spread, np.full(1, 2.0, np.float32))
    net.layer("Scale", "data2", "y", "scale_param { bias_term: true }", net.weight(3), net.weight(3))


def inner(net: NetWriter, bottom: str) -> str:
    options = "inner_product_param { num_output: 4 }"
    return net.layer("InnerProduct", bottom, None, options, net.weight(4, 3 * 9 * 7), net.weight(4))


def sliced(net: NetWriter) -> None:
    net.layer("Slice", "data", ["a", "b"], "slice_param { axis: 1 slice_point: 1 }")
    net.layer("Concat", ["b", "a"], None, "concat_param { axis: 1 }")


def summed(net: NetWriter, options: str) -> None:
    a, b = (conv(net, "data", "pad: 1") for _ in range(2))
    net.layer("Eltwise", [a, b], None, f"eltwise_param {{ {options} }}")


def in_place(net: NetWriter) -> None:
    top = conv(net, "data")
    net.layer("ReLU", top, top, "relu_param { negative_slope: 0.1 }")
    net.layer("Dropout", top, top)
    pool(net, top, "pool: MAX kernel_size: 2 stride: 2")


NETS: dict[str, Callable[[NetWriter], Any]] = {
    "convolution": lambda n: conv(n, "data", "pad: 1 stride: 2"),
    "convolution, sides apart": lambda n: conv(n, "data", "pad_h: 1 pad_w: 2 stride_h: 2 stride_w: 1"),
    "convolution, dilated": lambda n: conv(n, "data", "dilation: 2"),
    "convolution, a group a channel": lambda n: conv(n, "data", "", group=3),
    "deconvolution": lambda n: conv(n, "data", "stride: 2 pad: 1", kind="Deconvolution"),
    "inner product": lambda n: inner(n, "data"),
    "batch norm and scale": batch_norm,
    "slice and concat": sliced,
    "in place": in_place,
    "sum with factors": lambda n: summed(n, "operation: SUM coeff: 1 coeff: -0.5"),
    "product": lambda n: summed(n, "operation: PROD"),
    "largest": lambda n: summed(n, "operation: MAX"),
    "lrn": lambda n: n.layer("LRN", "data", None, "lrn_param { local_size: 3 alpha: 0.2 beta: 0.6 }"),
    "max pool, rounded up": lambda n: pool(n, "data", "pool: MAX kernel_size: 2 stride: 2"),
    "max pool, padded": lambda n: pool(n, "data", "pool: MAX kernel_size: 3 stride: 2 pad: 1"),
    "mean pool": lambda n: pool(n, "data", "pool: AVE kernel_size: 3 stride: 2"),
    "global mean": lambda n: pool(n, "data", "pool: AVE global_pooling: true"),
    "softmax": lambda n: n.layer("Softmax", inner(n, "data")),
    "elu": lambda n: n.layer("ELU", "data", None, "elu_param { alpha: 0.5 }"),
    "prelu": lambda n: n.layer("PReLU", "data", None, "", n.weight(3)),
    "sigmoid": lambda n: n.layer("Sigmoid", "data"),
    "tanh": lambda n: n.layer("TanH", "data"),
    "absolute": lambda n: n.layer("AbsVal", "data"),
    "power": lambda n: n.layer("Power", "data", None, "power_param { power: 2 scale: 0.5 shift: 1 }"),
    "flatten": lambda n: n.layer("Flatten", "data"),
    "reshape": lambda n: n.layer(
        "Reshape", "data", None, "reshape_param { shape { dim: 0 dim: -1 dim: 9 } }"
    ),
    "permute": lambda n: n.layer(
        "Permute", "data", None, "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    ),
    "crop": lambda n: n.layer(
        "Crop", ["data", conv(n, "data")], "y", "crop_param { axis: 2 offset: 1 offset: 2 }"
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_a_layer_computes_what_opencv_says(name: str, tmp_path: Path) -> None:
    net = NetWriter(*SHAPE)
    NETS[name](net)
    rows = np.random.default_rng(2).standard_normal((3, *SHAPE[1:])).astype(np.float32)
    expected, found = both(net.save(tmp_path), rows)
    assert expected
    for port, values in expected.items():
        np.testing.assert_allclose(found[port], values, rtol=1e-4, atol=1e-5)


def test_a_net_trained_on_digits_classifies_as_in_opencv_in_both_formats(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    rows = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    for v1 in (False, True):
        net = NetWriter(1, 1, 8, 8, v1=v1)
        kinds = ("CONVOLUTION", "RELU", "POOLING", "INNER_PRODUCT", "SOFTMAX")
        if not v1:
            kinds = ("Convolution", "ReLU", "Pooling", "InnerProduct", "Softmax")
        options = "convolution_param { num_output: 8 kernel_size: 3 pad: 1 }"
        top = net.layer(kinds[0], "data", "c", options, net.weight(8, 1, 3, 3), net.weight(8))
        net.layer(kinds[1], top, top)
        pooled = net.layer(kinds[2], top, "p", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
        loaded = caffe_model.load(net.save(tmp_path, "features"))
        features = loaded.run({"data": rows})[pooled].reshape(len(rows), -1)
        trained = LogisticRegression(max_iter=300).fit(features[:1200], labels[:1200])
        weights = (trained.coef_.astype(np.float32), trained.intercept_.astype(np.float32))
        scores = net.layer(kinds[3], pooled, "s", "inner_product_param { num_output: 10 }", *weights)
        net.layer(kinds[4], scores, "prob")
        (tmp_path / f"v{v1:d}").mkdir()
        expected, found = both(net.save(tmp_path / f"v{v1:d}"), rows[1200:])
        np.testing.assert_allclose(found["prob"], expected["prob"], atol=1e-5)
        assert (found["prob"].argmax(1) == labels[1200:]).mean() > 0.85


@pytest.mark.parametrize(
    ("size", "kernel", "pad", "stride"), [(7, 3, 1, 2), (8, 3, 1, 2), (6, 2, 1, 2), (5, 3, 0, 2)]
)
def test_a_mean_divides_by_what_lies_within_the_padding(
    size: int, kernel: int, pad: int, stride: int
) -> None:
    """OpenCV divides otherwise: against Caffe's definition, written out."""
    rows = np.random.default_rng(0).random((size, size), np.float32)
    out = windows.pooled(size, kernel, pad, stride)
    expected = np.zeros((out, out))
    for i in range(out):
        for j in range(out):
            places = [(k * stride - pad, min(k * stride - pad + kernel, size + pad)) for k in (i, j)]
            area = np.prod([end - start for start, end in places])
            (a, b), (c, d) = ((max(start, 0), min(end, size)) for start, end in places)
            expected[i, j] = rows[a:b, c:d].sum() / area
    from edgekit_converters.frontends.emit import Emitter

    e = Emitter()
    made, sizes = windows.pool(e, "x", [size] * 2, [(kernel, pad, stride)] * 2, "AveragePool", up=True)
    e.op("Identity", made, out="y")
    port = (1, 1, size, size)
    model = e.model([("x", np.float32, port)], [("y", np.float32, (1, 1, *sizes))])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": rows.reshape(port)})
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('type: "ReLU"', 'type: "Wizard"', "Wizard"),
        ("input_shape", "wrong_shape", "inputs and their shapes"),
        ("num_output: 6", "num_output: 5", "does not fit"),
        ('bottom: "data"', 'bottom: "other"', "does not fit"),
        ("{ dim:", "dim:", "line"),
        ("dim: 3", "dim: -3", "sizes"),
    ],
)
def test_what_is_wrong_with_a_net_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    net = NetWriter(*SHAPE)
    in_place(net)
    path = net.save(tmp_path)
    assert old in net.text
    path.write_text(net.text.replace(old, new, 1))
    with pytest.raises(SourceError, match=said) as caught:
        frontends.load(recognise(path))
    assert str(caught.value.where) == str(path.resolve())


def test_truncated_weights_are_refused_with_their_file(tmp_path: Path) -> None:
    net = NetWriter(*SHAPE)
    in_place(net)
    path = net.save(tmp_path)
    for size in (4, len(net.data) // 2, len(net.data) - 1):
        path.with_suffix(".caffemodel").write_bytes(net.data[:size])
        with pytest.raises(SourceError, match="whole Caffe model") as caught:
            frontends.load(recognise(path))
        assert str(caught.value.where).endswith("net.caffemodel")


@pytest.mark.parametrize(("data", "said"), [(b"", "empty"), (b"\x0a\x01a", r"InnerProduct|Convolution")])
def test_a_net_without_its_weights_is_no_index_error(data: bytes, said: str, tmp_path: Path) -> None:
    net = NetWriter(*SHAPE)
    conv(net, "data")
    path = net.save(tmp_path)
    path.with_suffix(".caffemodel").write_bytes(data)
    with pytest.raises(SourceError, match=said) as caught:
        frontends.load(recognise(path))
    assert "Error" not in caught.value.message
    assert caught.value.remedy


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=100), letters=st.text(max_size=100))
def test_random_files_never_crash_the_readers(data: bytes, letters: str) -> None:
    with suppress(ValueError):
        wire.blobs_by_layer(data)
    with suppress(ValueError):
        assert text.parse(letters) is not None
