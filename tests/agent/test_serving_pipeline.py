"""Preprocessing and postprocessing as the contract says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import ContractError, RefusedError
from edgekit.package import Manifest, Requirements, Tensor, Variant, Verification
from edgekit.ports import Arrays
from edgekit_agent.errors import RequestError
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.image import resize
from edgekit_agent.serving.pipeline import ABSTAIN, Pipeline, softmax
from tests.agent.models import installed, samples
from tests.conftest import FrozenClock


class Echo:
    """A session that answers its input, so that a test sees what the model would get."""

    backend = "echo"

    def __init__(self, *tensors: Tensor, answers: Arrays | None = None) -> None:
        self.inputs = self.outputs = tensors
        self._answers = answers

    def run(self, inputs: Arrays) -> Arrays:
        return self._answers if self._answers is not None else inputs

    def close(self) -> None:
        """Nothing to free."""


def pipeline(
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    input_spec: dict[str, Any] | None = None,
    output_spec: dict[str, Any] | None = None,
    serving: dict[str, Any] | None = None,
    answers: Arrays | None = None,
) -> Pipeline:
    tensor = Tensor(name="x", dtype=dtype, shape=shape)
    variant = Variant(
        id="v",
        digest="",
        profile="p",
        target="t",
        precision="fp32",
        files=(),
        requires=Requirements(runtime="echo"),
        inputs=(tensor,),
        outputs=(tensor,),
        verification=Verification(method="executed", verdict="pass"),
    )
    contract = {
        "inputs": [{"name": "x", "dtype": dtype, **(input_spec or {})}],
        "outputs": [{"name": "x", **(output_spec or {})}],
        "serving": serving or {},
    }
    manifest = Manifest(name="m", version="1", source={}, contract=contract, variants=(variant,))
    return Pipeline(manifest, variant, Echo(tensor, answers=answers))


def test_scale_mean_and_std_are_applied_in_this_order_to_raw_integers() -> None:
    spec = {"preprocess": {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.1, 0.5]}}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    got = pipeline((-1, 3, 4, 3), input_spec=spec).run({"x": pixels}).outputs["x"]
    expected = (pixels / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.1, 0.5])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_channels_first_pictures_are_normalised_along_their_channels() -> None:
    spec = {"layout": "NCHW", "preprocess": {"mean": [1.0, 2.0, 3.0]}}
    pixels = np.zeros((1, 3, 2, 2), np.float32)
    got = pipeline((-1, 3, 2, 2), input_spec=spec).run({"x": pixels}).outputs["x"]
    assert got[0, :, 0, 0].tolist() == [-1, -2, -3]


def test_an_integer_model_gets_rounded_and_saturated_values() -> None:
    spec = {"preprocess": {"scale": 10.0}}
    got = pipeline((-1, 3), dtype="uint8", input_spec=spec).run({"x": np.array([[0.26, -3.0, 99.0]])})
    assert got.outputs["x"].tolist() == [[3, 0, 255]]


def test_resize_crop_and_colour_follow_the_contract() -> None:
    spec = {
        "layout": "NHWC",
        "preprocess": {"resize": [8, 8], "crop": [4, 6], "color": "bgr"},
    }
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels[..., 0] = 200
    got = pipeline((-1, 4, 6, 3), input_spec=spec).run({"x": pixels}).outputs["x"]
    assert got.shape == (1, 4, 6, 3)
    assert got[0, 0, 0].tolist() == [0, 0, 200]


def test_gray_is_the_luma_and_channels_first_is_kept() -> None:
    spec = {"layout": "NCHW", "preprocess": {"color": "gray"}}
    pixels = np.ones((1, 3, 2, 2), np.float32) * np.array([1, 2, 3], np.float32).reshape(3, 1, 1)
    got = pipeline((-1, 1, 2, 2), input_spec=spec).run({"x": pixels}).outputs["x"]
    np.testing.assert_allclose(got, 0.299 + 2 * 0.587 + 3 * 0.114, rtol=1e-5)


def test_resizing_agrees_with_onnx_half_pixel_bilinear() -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    for height, width in ((5, 9), (13, 4), (1, 1)):
        sizes = numpy_helper.from_array(np.array([1, 2, height, width], np.int64), "sizes")
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 7, 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [sizes],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        picture = np.random.default_rng(1).uniform(0, 1, (1, 2, 7, 6)).astype(np.float32)
        expected = np.moveaxis(session.run(None, {"x": picture})[0], 1, -1)
        np.testing.assert_allclose(resize(np.moveaxis(picture, 1, -1), height, width), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"preprocess": {"tokenizer": "bpe"}}, "tokenizer"),
        ({"preprocess": {"resize": [4, 4]}}, "layout"),
    ],
)
def test_a_step_the_agent_has_not_is_refused_when_loading(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        pipeline((-1, 4), input_spec=spec)


def test_a_contract_that_cannot_be_read_is_refused_when_loading() -> None:
    with pytest.raises(ContractError):
        pipeline((-1, 4), input_spec={"shape": "wide"})


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 2, 2, 3), (1, 16, 16, 7)])
def test_pictures_that_cannot_be_brought_to_shape_are_the_callers_fault(shape: tuple[int, ...]) -> None:
    spec = {"layout": "NHWC", "preprocess": {"crop": [4, 4], "color": "rgb"}}
    with pytest.raises(RequestError):
        pipeline((-1, 4, 4, 3), input_spec=spec).run({"x": np.zeros(shape, np.uint8)})


def test_logits_become_probabilities_and_a_label() -> None:
    answers = {"x": np.array([[1.0, 3.0, 2.0]], np.float32)}
    spec = {"task": "classification", "activation": "logits", "labels": ["a", "b", "c"]}
    result = pipeline((-1, 3), output_spec=spec, answers=answers).run({"x": answers["x"]})
    np.testing.assert_allclose(result.outputs["x"], softmax(answers["x"]))
    assert result.decisions["x"].labels == ["b"]
    assert result.decisions["x"].confidence == pytest.approx([0.66524], abs=1e-4)


def test_probabilities_are_left_as_they_are() -> None:
    answers = {"x": np.array([[0.2, 0.7, 0.1]], np.float32)}
    spec = {"task": "classification", "activation": "softmax"}
    result = pipeline((-1, 3), output_spec=spec, answers=answers).run({"x": answers["x"]})
    assert result.outputs["x"] is answers["x"]
    assert result.decisions["x"].labels == ["1"]
    assert result.decisions["x"].confidence == pytest.approx([0.7])


def test_without_a_known_activation_only_the_confidence_is_a_softmax() -> None:
    answers = {"x": np.array([[1.0, 3.0, 2.0]], np.float32)}
    result = pipeline((-1, 3), output_spec={"task": "classification"}, answers=answers).run(
        {"x": answers["x"]}
    )
    assert result.outputs["x"] is answers["x"]
    assert result.decisions["x"].confidence == pytest.approx([0.66524], abs=1e-4)


@pytest.mark.parametrize(("fallback", "expected"), [({}, ABSTAIN), ({"fallback": "nobody"}, "nobody")])
def test_below_the_threshold_the_answer_is_the_fallback(fallback: dict[str, str], expected: str) -> None:
    answers = {"x": np.array([[0.6, 0.4], [0.1, 0.9]], np.float32)}
    spec = {"task": "classification", "activation": "softmax", "labels": ["no", "yes"]}
    made = pipeline(
        (-1, 2), output_spec=spec, serving={"confidence_threshold": 0.8, **fallback}, answers=answers
    )
    decision = made.run({"x": answers["x"]}).decisions["x"]
    assert decision.labels == [expected, "yes"]
    assert decision.classes == [0, 1]


def test_a_single_unit_is_a_yes_or_no() -> None:
    answers = {"x": np.array([[-2.0], [3.0]], np.float32)}
    spec = {"task": "classification", "activation": "logits", "labels": ["no", "yes"]}
    made = pipeline((-1, 1), output_spec=spec, answers=answers)
    decision = made.run({"x": answers["x"]}).decisions["x"]
    assert decision.labels == ["no", "yes"]
    assert decision.confidence == pytest.approx([0.8808, 0.9526], abs=1e-4)
    assert made.classes == {"x": 2}


def test_a_regression_has_no_decision() -> None:
    result = pipeline((-1, 2), output_spec={"task": "regression"}).run({"x": np.ones((1, 2), np.float32)})
    assert result.decisions == {}


def test_a_models_own_contract_is_obeyed_end_to_end(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    thing = installed(tmp_path, contract_changes={"input": {"preprocess": {"scale": 1 / 255}}})
    host.switch("animals", host.prepare(replace(thing)))
    raw = (samples(3) * 255).astype(np.uint8)
    assert list(host.infer("animals", {"x": raw}).decisions["y"].classes) == [0, 1, 2]
    host.close()
