"""Pruned and clustered variants: searched with the verdict itself, and refused where nothing is won."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.errors import UsageError
from edgekit.package import Refusal, Variant
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request, Result
from edgekit_converters.errors import Refusal as Refused
from edgekit_converters.quantize.finetune import tuned
from edgekit_converters.quantize.graphs import constant
from tests.converters.graphs import GraphBuilder, save
from tests.converters.quant_models import canonical, residual

TRAIN = """
import numpy as np, onnx
from onnx import numpy_helper

def nothing(model, masks, samples):
    assert samples["x"].shape[1:] == (3, 8, 8)
    known = {t.name: numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer}
    assert masks and all(known[name].shape == mask.shape for name, mask in masks.items())
    return {name: known[name] + 0.0 for name in masks}

def crash(model, masks, samples):
    raise RuntimeError("the learning rate is too high")

def rename(model, masks, samples):
    return {"no such weight": np.zeros(3, np.float32)}
"""


def sparse_by_nature(path: Path) -> Path:
    """Most weights are so small that nobody misses them."""
    g = GraphBuilder((3, 8, 8), seed=5)
    y = g.op("Relu", g.op("Conv", "x", g.weight(24, 3, 3, 3), g.weight(24), pads=[1, 1, 1, 1]))
    shape = (24, 24, 3, 3)
    heavy = (np.sign(g.random.standard_normal(shape)) * g.random.random(shape) ** 12).astype(np.float32)
    y = g.op("Relu", g.op("Conv", y, g.constant(heavy), g.weight(24)))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    return save(g.model(g.op("Gemm", y, g.weight(24, 4, scale=1.0), g.weight(4)), [4]), path)


def compiled(folder: Path, cache: Path, pool: Pool, **options: Any) -> Result:
    data = folder / "data.npz"
    np.savez(data, x=np.random.default_rng(2).standard_normal((64, 3, 8, 8)).astype(np.float32))
    request = Request(
        source=sparse_by_nature(folder / "m.onnx"),
        out=folder / "out",
        cache=cache,
        calibration=data,
        **{"profiles": ("iphone-15",), "precisions": ("fp16",), **options},
    )
    return convert(request, pool=pool)


def variants(result: Result) -> Mapping[str, Variant]:
    return {item.precision: item for item in result.manifest.variants}


def refusals(result: Result) -> Mapping[str, Refusal]:
    return {item.id: item for item in result.manifest.refused}


def test_pruned_and_clustered_variants_are_smaller_and_say_what_was_done(
    workers: Pool, cache: Path, tmp_path: Path
) -> None:
    result = compiled(tmp_path, cache, workers, prune=True, cluster=True)
    found = variants(result)
    assert set(found) == {"fp16", "pruned", "clustered"}, refusals(result)
    assert all(item.verification.verdict == "pass" for item in found.values())
    assert found["pruned"].size < found["fp16"].size
    assert found["clustered"].size < found["fp16"].size
    done = {
        name: result.report["variants"][item.id]["facts"].get("compression") for name, item in found.items()
    }
    assert done["fp16"] is None
    assert max(done["pruned"]["shares"].values()) >= 0.3
    assert 0 < min(bits for bits in done["clustered"]["bits"].values() if bits) < 8


def test_a_runtime_that_unpacks_zeros_gets_no_pruned_variant(
    workers: Pool, cache: Path, tmp_path: Path
) -> None:
    options = {"profiles": ("x86-64-onnx", "rpi4"), "precisions": ("fp32",)}
    result = compiled(tmp_path, cache, workers, prune=True, **options)
    assert {item.reason_code for item in result.manifest.refused} == {"no_gain"}
    assert {"x86-64-onnx-onnx-pruned", "rpi4-tflite-pruned"} <= set(refusals(result))
    assert "size nor speed" in result.manifest.refused[0].detail
    assert set(variants(result)) == {"fp32"}


def test_a_finetuning_function_trains_in_a_process_of_its_own(
    workers: Pool, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    result = compiled(tmp_path, cache, workers, prune=True, finetune=f"{tmp_path / 'train.py'}:nothing")
    assert variants(result)["pruned"].verification.verdict == "pass", refusals(result)


@pytest.mark.parametrize(
    ("function", "said"), [("crash", "learning rate"), ("rename", "no such weight"), ("gone", "no function")]
)
def test_a_finetuning_function_that_fails_costs_its_variant_only(
    function: str, said: str, workers: Pool, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    result = compiled(tmp_path, cache, workers, prune=True, finetune=f"{tmp_path / 'train.py'}:{function}")
    assert set(variants(result)) == {"fp16"}
    (refusal,) = result.manifest.refused
    assert said in refusal.detail


@pytest.mark.parametrize(
    "options",
    [
        {"finetune": "train.py:f"},
        {"prune": True, "finetune": "train.py"},
        {"prune": True, "finetune": "nowhere.py:f"},
    ],
)
def test_a_finetuning_option_that_means_nothing_is_a_usage_error(
    options: dict[str, Any], workers: Pool, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        compiled(tmp_path, cache, workers, **options)
    assert not (tmp_path / "out").exists()


def test_finetuning_cannot_change_the_graph_or_bring_zeros_back() -> None:
    model = canonical(residual)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    name = str(conv.inputs[1].name) if conv.inputs[1] else ""
    mask = np.random.default_rng(0).random(constant(conv.inputs[1]).shape) < 0.5

    def grow(path: str, masks: dict[str, Any], samples: dict[str, Any]) -> dict[str, Any]:
        weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        return {name: weights[name] + 1.0 for name in masks}

    found = tuned(model, {name: mask}, {}, grow)
    assert [node.op_type for node in found.graph] == [node.op_type for node in model.graph]
    array = constant(found.graph.initializers[name])
    np.testing.assert_array_equal(array != 0, mask)
    for wrong in (
        np.full(mask.shape, np.nan, np.float32),
        np.zeros(3, np.float32),
        np.zeros(mask.shape, int),
    ):
        with pytest.raises(Refused) as caught:
            tuned(model, {}, {}, lambda *_, wrong=wrong: {name: wrong})
        assert caught.value.code == "finetune_failed"
