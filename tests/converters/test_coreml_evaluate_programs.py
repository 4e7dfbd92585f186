"""Saved packages, loaded back and executed by the Core ML evaluator."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import DataError, EdgekitError
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.coreml.evaluate import Evaluator, check, load
from tests.converters.mil_packages import coremltools, drawn, package, quiet

IMAGE = (1, 3, 8, 8)


def _network(mb: Any, x: Any) -> Any:
    """A small network with a residual, a squeeze over the image, and a gate."""
    y = mb.conv(x=x, weight=drawn(6, 3, 3, 3, scale=0.3), bias=drawn(6, seed=1), pad_type="same")
    z = mb.conv(x=mb.relu(x=y), weight=drawn(6, 1, 3, 3, scale=0.3), pad_type="same", groups=6)
    y = mb.add(x=y, y=mb.mul(x=z, y=np.float32(0.5)))
    gate = mb.sigmoid(x=mb.reduce_mean(x=y, axes=[2, 3], keep_dims=True))
    y = mb.max_pool(x=mb.mul(x=y, y=gate), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
    y = mb.reshape(x=mb.transpose(x=y, perm=[0, 2, 3, 1]), shape=[1, -1])
    return mb.softmax(x=mb.linear(x=y, weight=drawn(5, 96, seed=2, scale=0.1)), axis=-1, name="probs")


def _code(found: pytest.ExceptionInfo[Refusal]) -> str:
    return found.value.code


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.mktemp("network"), {"x": IMAGE}, _network)


def test_a_saved_package_computes_what_its_ops_say(network: Path) -> None:
    x = drawn(*IMAGE, seed=5)
    found = Evaluator(network).run({"x": x})["probs"]
    again = Evaluator(network).run({"x": x})["probs"]
    assert found.shape == (1, 5)
    assert found.dtype == np.float32
    assert float(found.sum()) == pytest.approx(1)
    np.testing.assert_array_equal(found, again)


def test_many_samples_at_once_are_each_sample_alone(network: Path) -> None:
    evaluator, x = Evaluator(network), drawn(23, 3, 8, 8, seed=6)
    assert evaluator.batches
    found = evaluator.run_many({"x": x})["probs"]
    alone = np.concatenate([evaluator.run({"x": x[i : i + 1]})["probs"] for i in range(23)])
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-7)


def test_float16_semantics_round_after_every_op(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.sub(x=mb.add(x=x, y=np.float32(2048)), y=np.float32(2048), name="y")

    path = package(tmp_path, {"x": (1, 2)}, build, precision="FLOAT16")
    x = np.array([[2.0, 0.3]], np.float32)
    np.testing.assert_array_equal(Evaluator(path, "float16").run({"x": x})["y"], [[2.0, 0.0]])
    np.testing.assert_allclose(Evaluator(path, "float32").run({"x": x})["y"], x, atol=1e-3)


def test_float16_semantics_accumulate_in_float32(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.matmul(x=x, y=np.ones((4096, 1), np.float32), name="y")

    path = package(tmp_path, {"x": (1, 4096)}, build, precision="FLOAT16")
    x = np.ones((1, 4096), np.float32)
    assert float(Evaluator(path, "float16").run({"x": x})["y"][0, 0]) == 4096  # fp16 sums stop at 2048


def test_float16_overflow_is_infinite_as_on_the_device(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.mul(x=x, y=x, name="y")

    path = package(tmp_path, {"x": (1, 1)}, build, precision="FLOAT16")
    x = np.array([[300.0]], np.float32)
    assert np.isinf(Evaluator(path, "float16").run({"x": x})["y"][0, 0])
    assert float(Evaluator(path, "float32").run({"x": x})["y"][0, 0]) == 90000


def test_what_mixes_samples_is_not_run_at_once(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.add(x=x, y=mb.reduce_sum(x=x, axes=[0], keep_dims=True), name="y")

    evaluator = Evaluator(package(tmp_path, {"x": (1, 4)}, build))
    x = drawn(3, 4)
    assert not evaluator.batches
    np.testing.assert_allclose(evaluator.run_many({"x": x})["y"], 2 * x, rtol=1e-6)


def test_a_recurrent_network_runs_many_samples_with_the_batch_in_its_second_axis(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        states, last, _ = mb.lstm(
            x=mb.transpose(x=x, perm=[1, 0, 2]),
            initial_h=np.zeros((1, 4), np.float32),
            initial_c=np.zeros((1, 4), np.float32),
            weight_ih=drawn(16, 3),
            weight_hh=drawn(16, 4, seed=1),
            output_sequence=True,
        )
        return mb.add(x=mb.transpose(x=states, perm=[1, 0, 2]), y=mb.expand_dims(x=last, axes=[1]), name="y")

    evaluator, x = Evaluator(package(tmp_path, {"x": (1, 5, 3)}, build)), drawn(7, 5, 3, seed=3)
    assert evaluator.batches
    alone = np.concatenate([evaluator.run({"x": x[i : i + 1]})["y"] for i in range(7)])
    np.testing.assert_allclose(evaluator.run_many({"x": x})["y"], alone, rtol=1e-5, atol=1e-6)


def test_an_attention_block_runs_many_samples_at_once(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        def heads(seed: int) -> Any:
            y = mb.linear(x=x, weight=drawn(8, 8, seed=seed))
            return mb.transpose(x=mb.reshape(x=y, shape=[1, 6, 2, 4]), perm=[0, 2, 1, 3])

        y = mb.scaled_dot_product_attention(query=heads(1), key=heads(2), value=heads(3))
        y = mb.reshape(x=mb.transpose(x=y, perm=[0, 2, 1, 3]), shape=[1, 6, 8])
        y = mb.layer_norm(x=mb.add(x=x, y=y), axes=[-1], epsilon=np.float32(1e-5))
        first = mb.slice_by_index(x=y, begin=[0, 0, 0], end=[1, 1, 8], squeeze_mask=[False, True, False])
        return mb.concat(values=[first, mb.reduce_max(x=y, axes=[1])], axis=-1, name="y")

    evaluator = Evaluator(package(tmp_path, {"x": (1, 6, 8)}, build, opset="iOS18"))
    x = drawn(9, 6, 8, seed=3)
    assert evaluator.batches
    alone = np.concatenate([evaluator.run({"x": x[i : i + 1]})["y"] for i in range(9)])
    np.testing.assert_allclose(evaluator.run_many({"x": x})["y"], alone, rtol=1e-4, atol=1e-5)


def test_an_image_is_turned_scaled_and_classified(tmp_path: Path) -> None:
    ct = coremltools()

    def build(mb: Any, x: Any) -> Any:
        return mb.softmax(x=mb.reduce_mean(x=x, axes=[2, 3]), axis=-1, name="probs")

    image = ct.ImageType(
        name="x", shape=IMAGE, scale=1 / 255.0, bias=[0.0, 0.1, 0.2], color_layout=ct.colorlayout.BGR
    )
    labels = ["blue", "green", "red"]
    path = package(
        tmp_path, {"x": IMAGE}, build, inputs=[image], classifier_config=ct.ClassifierConfig(labels)
    )
    evaluator = Evaluator(path)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255  # red
    found = evaluator.run({"x": pixels})
    raised = np.exp([0, 0.1, 1.2])
    assert found["classLabel"] == "red"
    assert evaluator.labels == ("blue", "green", "red")
    np.testing.assert_allclose(found["classLabel_probs"], raised / raised.sum(), rtol=1e-5)
    many = evaluator.run_many({"x": np.stack([pixels, pixels[..., ::-1]])})
    assert many["classLabel"].tolist() == ["red", "blue"]


def test_flexible_shapes_are_those_of_the_call(tmp_path: Path) -> None:
    ct = coremltools()

    def build(mb: Any, x: Any) -> Any:
        flat = mb.reshape(x=mb.relu(x=x), shape=[1, -1])
        return mb.reduce_sum(x=flat, axes=[-1], keep_dims=True, name="y")

    from coremltools.converters.mil.mil import get_new_symbol

    shape = ct.Shape((1, 3, ct.RangeDim(2, 20), 8))
    path = package(
        tmp_path, {"x": (1, 3, get_new_symbol(), 8)}, build, inputs=[ct.TensorType(name="x", shape=shape)]
    )
    for height in (4, 11):
        x = drawn(1, 3, height, 8)
        found = Evaluator(path).run({"x": x})["y"]
        np.testing.assert_allclose(found, [[np.maximum(x, 0).sum()]], rtol=1e-5)


def test_loops_and_branches_run(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        def body(i: Any, y: Any) -> Any:
            return mb.add(x=i, y=1), mb.mul(x=y, y=np.float32(2))

        _, y = mb.while_loop(_cond=lambda i, y: mb.less(x=i, y=3), _body=body, loop_vars=(0, x))
        large = mb.greater(x=mb.squeeze(x=mb.reduce_max(x=y, axes=[0])), y=np.float32(10))
        return mb.cond(
            pred=large,
            _true_fn=lambda: mb.sub(x=y, y=np.float32(1)),
            _false_fn=lambda: mb.add(x=y, y=np.float32(1)),
            name="y",
        )

    evaluator = Evaluator(package(tmp_path, {"x": (2,)}, build))
    np.testing.assert_array_equal(evaluator.run({"x": np.array([1, 2], np.float32)})["y"], [7, 15])
    np.testing.assert_array_equal(evaluator.run({"x": np.array([1, 1], np.float32)})["y"], [9, 9])


def test_an_op_without_a_kernel_is_refused_by_name(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.add(x=x, y=mb.random_normal(shape=[2], seed=1), name="y")

    path = package(tmp_path, {"x": (2,)}, build)
    with pytest.raises(Refusal, match="random_normal") as caught:
        Evaluator(path)
    assert _code(caught) == "no_evaluator_kernel"


@pytest.mark.parametrize("half", ["model.mlmodel", "weight.bin"])
def test_a_damaged_package_is_refused_not_crashed(network: Path, tmp_path: Path, half: str) -> None:
    damaged = tmp_path / "damaged.mlpackage"
    for item in sorted(network.rglob("*")):
        target = damaged / item.relative_to(network)
        if item.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            data = item.read_bytes()
            target.write_bytes(data[: len(data) // 2] if item.name == half else data)
    with pytest.raises(Refusal) as caught:
        load(damaged)
    assert _code(caught) == "package_unreadable"


def test_bytes_that_flipped_are_refused_or_harmless(network: Path, tmp_path: Path) -> None:
    flipped, random = tmp_path / "flipped.mlpackage", np.random.default_rng(3)
    shutil.copytree(network, flipped)
    model = flipped / "Data" / "com.apple.CoreML" / "model.mlmodel"
    sound = model.read_bytes()
    refused = 0
    for _ in range(60):
        changed = bytearray(sound)
        for place in random.integers(0, len(sound), 3):
            changed[place] = random.integers(0, 256)
        model.write_bytes(changed)
        try:
            with quiet():
                Evaluator(flipped).run({"x": drawn(*IMAGE)})
        except EdgekitError:
            refused += 1
    assert refused > 40


def test_a_program_with_state_is_refused_by_its_op(tmp_path: Path) -> None:
    ct = coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as its examples have it
    from coremltools.converters.mil.mil import types

    half = {"shape": (2,), "dtype": types.fp16}
    with quiet():

        @mb.program(  # type: ignore[untyped-decorator]  # coremltools has no types
            input_specs=[mb.TensorSpec(**half), mb.StateTensorSpec(**half)], opset_version=ct.target.iOS18
        )
        def program(x: Any, kept: Any) -> Any:
            return mb.add(x=mb.read_state(input=kept), y=x, name="y")

        options = {"convert_to": "mlprogram", "minimum_deployment_target": ct.target.iOS18}
        ct.convert(program, skip_model_load=True, **options).save(str(tmp_path / "state.mlpackage"))
    with pytest.raises(Refusal, match="keeps state") as caught:
        Evaluator(tmp_path / "state.mlpackage")
    assert _code(caught) == "no_evaluator_kernel"


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"z": drawn(*IMAGE)},
        {"x": drawn(1, 3, 8, 9)},
        {"x": drawn(3, 8, 8)},
        {"x": drawn(*IMAGE), "y": drawn(1)},
    ],
)
def test_inputs_that_do_not_fit_are_named(network: Path, arrays: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="x"):
        Evaluator(network).run(arrays)


def test_whole_numbers_are_range_checked_and_floats_are_no_whole_numbers(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.add(x=x, y=1, name="y")

    evaluator = Evaluator(package(tmp_path, {"x": ((2,), "int32")}, build))
    assert evaluator.run({"x": np.array([1, 2], np.int64)})["y"].tolist() == [2, 3]
    with pytest.raises(DataError, match="outside int32"):
        evaluator.run({"x": np.array([1, 2**40])})
    with pytest.raises(DataError, match="float32"):
        evaluator.run({"x": np.array([1.0, 2.0], np.float32)})


def _codes(path: Path) -> list[str]:
    return [item.code for item in check(load(path))]


def test_a_sound_package_breaks_no_rule(network: Path) -> None:
    assert _codes(network) == []


def test_padding_that_the_runtime_rejects_is_found(tmp_path: Path) -> None:
    def build(mb: Any, x: Any) -> Any:
        return mb.pad(x=x, pad=[1, 1, 0, 0, 1, 1], mode="reflect", name="y")

    path = package(tmp_path, {"x": (1, 4, 4, 4)}, build)
    assert _codes(path) == ["pad_axes"]
    with pytest.raises(Refusal, match="last two axes") as caught:
        Evaluator(path)
    assert _code(caught) == "runtime_rejects"


def test_known_defects_of_the_runtime_are_found(tmp_path: Path) -> None:
    def gru(mb: Any, x: Any) -> Any:
        states, _ = mb.gru(
            x=x, initial_h=np.zeros((2, 3), np.float32), weight_ih=drawn(9, 3), weight_hh=drawn(9, 3)
        )
        return mb.identity(x=states, name="y")

    assert _codes(package(tmp_path, {"x": (4, 2, 3)}, gru)) == ["gru_batch"]

    def product(mb: Any, x: Any) -> Any:
        return mb.matmul(x=x, y=x, name="y")

    assert _codes(package(tmp_path, {"x": ((2, 2), "int32")}, product)) == ["whole_product"]


@pytest.mark.parametrize(
    ("wanted", "codes"), [(None, []), ([1, 4, 9, 9], []), ([1, 4, 8, 8], ["output_shape"])]
)
def test_a_transposed_convolution_of_another_shape_than_follows_is_found(
    tmp_path: Path, wanted: list[int] | None, codes: list[str]
) -> None:
    def build(mb: Any, x: Any) -> Any:
        extra = {} if wanted is None else {"output_shape": wanted}
        return mb.conv_transpose(x=x, weight=drawn(3, 4, 3, 3), strides=[2, 2], name="y", **extra)

    assert _codes(package(tmp_path, {"x": (1, 3, 4, 4)}, build)) == codes


def test_whole_numbers_that_a_pass_cuts_to_16_bits_are_found(tmp_path: Path) -> None:
    """coremltools' float16 pipeline casts what it squeezes, sorts or gathers: token ids above 32767 break."""

    def squeezed(mb: Any, x: Any) -> Any:
        return mb.add(x=mb.squeeze(x=x, axes=[0]), y=1, name="y")

    path = package(tmp_path, {"x": ((1, 3), "int32")}, squeezed, precision="FLOAT16")
    assert _codes(path) == ["narrowed"]


def test_what_crashes_the_runtime_is_found(tmp_path: Path) -> None:
    def clipped(mb: Any, x: Any) -> Any:
        return mb.clip(x=x, alpha=np.float32(1), beta=np.float32(1), name="y")

    assert _codes(package(tmp_path, {"x": (2,)}, clipped, opset="iOS16")) == ["clip_bounds"]

    def gathered(mb: Any, x: Any) -> Any:
        return mb.gather(x=x, indices=np.int32(1), axis=1, name="y")

    assert _codes(package(tmp_path, {"x": (1, 2, 2, 2, 2)}, gathered)) == ["gather_rank"]

    def apart(mb: Any, x: Any) -> Any:
        return mb.layer_norm(x=x, axes=[1, 3], epsilon=np.float32(1e-5), name="y")

    assert _codes(package(tmp_path, {"x": (1, 2, 2, 2)}, apart)) == ["norm_axes"]


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS only")
def test_on_macos_core_ml_predicts_what_the_evaluator_computes(network: Path) -> None:
    ct = coremltools()
    x = drawn(*IMAGE, seed=5)
    with quiet():
        model = ct.models.MLModel(str(network), compute_units=ct.ComputeUnit.CPU_ONLY)
    wanted = model.predict({"x": x})["probs"]
    np.testing.assert_allclose(Evaluator(network).run({"x": x})["probs"], wanted, rtol=1e-3, atol=1e-4)
