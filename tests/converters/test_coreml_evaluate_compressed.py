"""Packages with compressed weights and quantized activations: coremltools writes, our evaluator executes.

Each is compared with the package that it was made of, within what the compression may cost; int8 and sparse
weights exactly with the weights that the documented formula gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_converters.targets.coreml.evaluate import Evaluator, check, load
from tests.converters.graphs import Array
from tests.converters.mil_kernels import run
from tests.converters.mil_packages import coremltools, drawn, package, quiet

WEIGHT = drawn(64, 64, seed=1, scale=0.2)


def _dense(mb: Any, x: Any) -> Any:
    return mb.linear(x=x, weight=WEIGHT, bias=drawn(64, seed=2), name="y")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.mktemp("dense"), {"x": (1, 64)}, _dense, opset="iOS18")


def _compressed(path: Path, folder: Path, compress: Callable[[Any, Any], Any]) -> Path:
    ct = coremltools()
    import coremltools.optimize.coreml as cto

    with quiet():
        model = compress(cto, ct.models.MLModel(str(path), skip_model_load=True))
        saved = folder / "compressed.mlpackage"
        model.save(str(saved))
    return saved


def _linear(dtype: str, granularity: str, mode: str) -> Callable[[Any, Any], Any]:
    def compress(cto: Any, model: Any) -> Any:
        settings = cto.OpLinearQuantizerConfig(
            mode=mode, dtype=dtype, granularity=granularity, block_size=32, weight_threshold=1
        )
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=settings))

    return compress


def _pruned(cto: Any, model: Any) -> Any:
    settings = cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=1)
    return cto.prune_weights(model, cto.OptimizationConfig(global_config=settings))


def _palette(bits: int) -> Callable[[Any, Any], Any]:
    def compress(cto: Any, model: Any) -> Any:
        settings = cto.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=1)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=settings))

    return compress


def _weight(path: Path) -> Array:
    """What the evaluator made of the compressed constant, read off by the unit vectors."""
    evaluator = Evaluator(path)
    zero = evaluator.run({"x": np.zeros((1, 64), np.float32)})["y"]
    units = np.eye(64, dtype=np.float32)
    return np.asarray(evaluator.run_many({"x": units})["y"] - zero).T


@pytest.mark.parametrize(
    ("compress", "kind", "share"),
    [
        (_linear("int8", "per_channel", "linear_symmetric"), "constexpr_blockwise_shift_scale", 1 / 127),
        (_linear("uint8", "per_tensor", "linear"), "constexpr_blockwise_shift_scale", 1 / 120),
        (_linear("int4", "per_block", "linear_symmetric"), "constexpr_blockwise_shift_scale", 1 / 7),
        (_linear("uint4", "per_block", "linear"), "constexpr_blockwise_shift_scale", 1 / 7),
        (_palette(8), "constexpr_lut_to_dense", 1 / 100),
        (_palette(6), "constexpr_lut_to_dense", 1 / 30),
        (_palette(4), "constexpr_lut_to_dense", 1 / 7),
        (_palette(3), "constexpr_lut_to_dense", 1 / 3),
        (_palette(1), "constexpr_lut_to_dense", 1.1),
    ],
)
def test_compressed_weights_are_those_that_were_compressed(
    dense: Path, tmp_path: Path, compress: Callable[[Any, Any], Any], kind: str, share: float
) -> None:
    path = _compressed(dense, tmp_path, compress)
    program = load(path)
    assert kind in {step.kind for step in program.main.steps}
    assert check(program) == []
    assert np.abs(_weight(path) - WEIGHT).max() <= share * np.abs(WEIGHT).max() + 1e-6


def test_int8_weights_are_exactly_the_scaled_whole_numbers(dense: Path, tmp_path: Path) -> None:
    path = _compressed(dense, tmp_path, _linear("int8", "per_channel", "linear_symmetric"))
    scale = np.abs(WEIGHT).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(_weight(path), np.rint(WEIGHT / scale) * scale, atol=2e-6)


def test_pruned_weights_keep_the_larger_half_exactly(dense: Path, tmp_path: Path) -> None:
    path = _compressed(dense, tmp_path, _pruned)
    limit = np.sort(np.abs(WEIGHT).reshape(-1))[WEIGHT.size // 2]
    assert "constexpr_sparse_to_dense" in {step.kind for step in load(path).main.steps}
    np.testing.assert_allclose(_weight(path), np.where(np.abs(WEIGHT) >= limit, WEIGHT, 0), atol=2e-6)


def test_weights_that_are_pruned_and_quantized_together_are_decompressed(dense: Path, tmp_path: Path) -> None:
    def compress(cto: Any, model: Any) -> Any:
        settings = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=1)
        config = cto.OptimizationConfig(global_config=settings)
        return cto.linear_quantize_weights(_pruned(cto, model), config, joint_compression=True)

    path = _compressed(dense, tmp_path, compress)
    kinds = {step.kind for step in load(path).main.steps}
    assert {"constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"} <= kinds
    limit = np.sort(np.abs(WEIGHT).reshape(-1))[WEIGHT.size // 2]
    wanted = np.where(np.abs(WEIGHT) >= limit, WEIGHT, 0)
    assert np.abs(_weight(path) - wanted).max() <= np.abs(WEIGHT).max() / 127


def test_the_compressed_ops_of_ios16_are_decompressed_too(tmp_path: Path) -> None:
    for number, compress in enumerate((_linear("int8", "per_channel", "linear"), _palette(4), _pruned)):
        folder = tmp_path / str(number)
        folder.mkdir()
        old = package(folder, {"x": (1, 64)}, _dense, opset="iOS16")
        path = _compressed(old, folder, compress)
        wanted = WEIGHT if compress is not _pruned else np.where(_weight(path) == 0, 0, WEIGHT)
        assert np.abs(_weight(path) - wanted).max() <= np.abs(WEIGHT).max() / 7


def test_quantized_activations_are_on_the_grid_that_the_program_says(tmp_path: Path) -> None:
    """W8A8 as our lowering writes it: pairs of quantize and dequantize around a convolution."""
    scale, weight = np.float32(0.05), drawn(4, 3, 3, 3, seed=3, scale=0.3)
    steps = np.abs(weight).max(axis=(1, 2, 3)) / 127
    whole = np.rint(weight / steps[:, None, None, None]).astype(np.int8)

    def build(mb: Any, x: Any) -> Any:
        x = mb.dequantize(input=mb.quantize(input=x, scale=scale, output_dtype="int8"), scale=scale)
        kernel = mb.constexpr_affine_dequantize(
            quantized_data=whole, zero_point=np.int8(0), scale=steps.astype(np.float32), axis=0
        )
        y = mb.conv(x=x, weight=kernel, pad_type="same")
        y = mb.quantize(input=y, scale=np.float32(0.1), zero_point=np.uint8(128), output_dtype="uint8")
        return mb.dequantize(input=y, scale=np.float32(0.1), zero_point=np.uint8(128), name="y")

    path = package(tmp_path, {"x": (1, 3, 6, 6)}, build, passes="EMPTY")
    x = drawn(5, 3, 6, 6, seed=4, scale=3)
    grid = np.clip(np.rint(x / scale), -128, 127) * scale
    y = run(
        "conv",
        x=grid,
        weight=(whole * steps[:, None, None, None]).astype(np.float32),
        strides=[1, 1],
        pad_type="same",
        pad=[0] * 4,
        dilations=[1, 1],
        groups=1,
    )
    wanted = (np.clip(np.rint(y / np.float32(0.1)) + 128, 0, 255) - 128) * np.float32(0.1)
    found = Evaluator(path).run_many({"x": x})["y"]
    assert np.abs(found - wanted).max() <= 0.1 + 1e-6  # a value on the edge may fall to either side
    assert np.mean(np.abs(found - wanted) > 1e-4) < 0.01
