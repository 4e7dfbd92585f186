"""What Arm NN has not, crashes on or computes wrongly without a word, in what it computes rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import armnn
from edgekit.rules import load_rules
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.targets.tflite.lower import build
from tests.converters.armnn_files import OLDEST, compared, graph, meant, require_armnn, written
from tests.converters.quant_models import known
from tests.converters.tflite_ops import floats

X = "float[1,4,6,6] x"
FEW = floats(16, 4, 6, 6, seed=5)
FLOATS = {
    "split": "a, b = Split<axis=-1, num_outputs=2>(x) y = Add(a, b)",
    "unequal split": "a, b = Split<axis=1>(x, sizes) y = Concat<axis=1>(b, a)",
    "half pixels": 'y = Resize<mode="linear">(x, , scales)',
    "half pixels down": 'y = Resize<mode="linear">(x, , halves)',
    "nearest, aligned": 'y = Resize<mode="nearest", coordinate_transformation_mode="align_corners">'
    "(x, , scales)",
    "nearest, half a pixel": 'y = Resize<mode="nearest">(x, , odd)',
    "groups": "y = Conv<group=2, pads=[1,1,1,1]>(x, grouped)",
    "padding that is not SAME": "y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, kernel)",
    "transposed, cut": "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, kernel)",
    "transposed, bias": "y = ConvTranspose<strides=[2,2]>(x, kernel, bias)",
    "absolute values": "y = Abs(x)",
    "slopes": "y = PRelu(x, slope)",
    "elu": "y = Elu(x)",
    "sums": "y = ReduceSum<keepdims=1>(x, hw)",
    "largest": "y = ReduceMax<keepdims=0>(x, hw)",
    "smallest": "y = ReduceMin<keepdims=1>(x, channels)",
    "reflected": 'y = Pad<mode="reflect">(x, rim)',
    "filled with a number": "y = Pad(x, rim, five)",
    "places": "y = Gather<axis=1>(x, some)",
    "blocks to space": "y = DepthToSpace<blocksize=2>(x)",
    "blocks innermost": 'y = DepthToSpace<blocksize=2, mode="CRD">(x)',
    "space to blocks": "y = SpaceToDepth<blocksize=2>(x)",
    "copies": "y = Tile(x, counts)",
    "more axes in a product": "a = Transpose<perm=[0,2,3,1]>(x) y = MatMul(a, matrix)",
}
CONSTANTS = """<int64[2] sizes = {1,3}, float[4] scales = {1,1,2,2}, float[4] halves = {1,1,0.5,0.5},
 float[4] odd = {1,1,1.5,1.5}, float[4] bias = {1,-1,0.5,2}, float[4,1,1] slope = {0.1,0.2,-0.3,0.5},
 int64[2] hw = {2,3}, int64[1] channels = {1}, int64[8] rim = {0,0,1,2,0,0,2,1}, float five = {5},
 int64[5] some = {3,0,1,2,1}, int64[4] counts = {1,2,1,3}, float[4,5] matrix = {MATRIX},
 float[4,4,3,3] kernel = {KERNEL}, float[4,2,3,3] grouped = {GROUPED}>"""


def text(body: str) -> str:
    """The graph of a body that ends in `y`, with the constants that it may name."""
    filled = CONSTANTS
    for name, count in (("MATRIX", 20), ("KERNEL", 144), ("GROUPED", 72)):
        numbers = np.random.default_rng(count).uniform(-1, 1, count).round(3)
        filled = filled.replace(name, ",".join(map(str, numbers)))
    return f"g ({X}) => (float[] y) {filled} {{ {body} }}"


@pytest.mark.parametrize("name", list(FLOATS))
def test_floats_are_what_the_graph_means(name: str) -> None:
    """onnxruntime on the graph, LiteRT on the file: no Arm NN is needed to see a wrong rewrite."""
    model = graph(text(FLOATS[name]))
    found = meant(model, written(model).data, {"x": floats(3, 4, 6, 6)})
    assert found.range > 0.2
    assert found.largest <= 4e-6 * max(found.range, 1)


@pytest.mark.parametrize("name", list(FLOATS))
def test_floats_are_what_litert_gives(name: str, tmp_path: Path) -> None:
    require_armnn()
    made = written(graph(text(FLOATS[name])))
    found = compared(made.data, {"x": floats(3, 4, 6, 6)}, tmp_path)
    assert found.range > 0.2
    assert found.largest <= 2e-6 * found.range


INTEGERS = {
    "padding that is not SAME": "y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, kernel)",
    "padding alone": "a = Conv(x, kernel) r = Relu(a) b = Pad(r, rim) y = Add(b, b)",
    "groups": "y = Conv<group=2, pads=[1,1,1,1]>(x, grouped)",
    "even mean": "a = Conv(x, kernel) b = AveragePool<kernel_shape=[2,2]>(a) y = Conv(b, kernel)",
    "split": "c = Conv(x, kernel) a, b = Split<axis=-1, num_outputs=2>(c) y = Add(a, b)",
    "largest": "c = Conv<pads=[1,1,1,1]>(x, kernel) a = ReduceMax<keepdims=1>(c, hw) y = Add(a, c)",
    "nearest": 'c = Conv(x, kernel) a = Resize<mode="nearest">(c, , odd) y = Conv<pads=[1,1,1,1]>(a, kernel)',
    "half pixels": 'c = Conv(x, kernel) a = Resize<mode="linear">(c, , scales) y = Conv(a, kernel)',
    "more axes in a product": "a = Transpose<perm=[0,2,3,1]>(x) y = MatMul(a, matrix)",
    "blocks innermost": 'a = Conv(x, kernel) b = Relu(a) y = DepthToSpace<blocksize=2, mode="CRD">(b)',
}


@pytest.mark.parametrize("name", list(INTEGERS))
def test_integers_are_what_the_graph_means(name: str) -> None:
    """Within a step of the QDQ graph's own arithmetic, most of them exactly."""
    model = in_integers(text(INTEGERS[name]))
    found = meant(model, written(model).data, {"x": floats(6, 4, 6, 6)})
    assert found.range > 60
    assert found.largest <= 1.01
    assert found.share < (0.5 if name == "even mean" else 0.2)  # every eighth mean is rounded up, not to even


@pytest.mark.parametrize("name", list(INTEGERS))
def test_integers_are_what_litert_gives(name: str, tmp_path: Path) -> None:
    require_armnn()
    made = quantized(text(INTEGERS[name]))
    assert made.facts["int8_weights"] > 0
    found = compared(made.data, {"x": floats(6, 4, 6, 6)}, tmp_path)
    assert found.range > 60
    assert found.largest <= 1
    assert found.share < (0.2 if name == "half pixels" else 0.01)  # quarters lie between two steps at times


def quantized(body: str) -> Any:
    """The same written within the list."""
    return written(in_integers(body))


def in_integers(body: str) -> Any:
    """The graph calibrated on a few samples and quantized by the rules."""
    model = graph(body)
    ranges = Ranges(known(model, {"x": FEW}), "minmax")
    return quantize(model, ranges, load_rules(OLDEST), precision="int8")


WRONG = {
    "PAD": INTEGERS["padding alone"],
    "RESIZE_BILINEAR": FLOATS["half pixels"],
    "CONV_2D": FLOATS["groups"],
}


@pytest.mark.parametrize("op", list(WRONG))
def test_without_the_list_the_fault_is_there(op: str, tmp_path: Path) -> None:
    """The trial behind the rules: when it agrees one day, the entry may go."""
    if require_armnn() != "20.08":
        pytest.skip("the faults are those of 20.08")
    body = text(WRONG[op])
    made = build(in_integers(body) if op == "PAD" else graph(body))
    assert op in made.facts["ops"]
    try:
        found = compared(made.data, {"x": floats(3, 4, 6, 6)}, tmp_path)
    except armnn.ArmnnError:
        return
    assert found.largest > 1e-3 * found.range


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("y = Sqrt(x)", "unsupported_op"),
        ("y = Gelu(x)", "unsupported_op"),
        ("a = ArgMax<axis=1>(x) y = Cast<to=1>(a)", "unsupported_op"),
        ("y = Floor(x)", "unsupported_op"),
    ],
)
def test_what_has_no_exact_form_is_refused_by_name(body: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        written(graph(text(body)))
    assert refused.value.code == code
    assert "armnn 20.08" in str(refused.value)
    named = body.split("=")[-1].split("(")[0].split("<")[0].strip() if "ArgMax" not in body else "ArgMax"
    assert named in str(refused.value)
    assert refused.value.remedy


@pytest.mark.parametrize("rules", ["armnn-23.08", "armnn-25.11"])
def test_later_releases_take_more(rules: str) -> None:
    assert written(graph(text("y = Sqrt(x)")), rules).facts["ops"] == {"SQRT": 1}
    with pytest.raises(Refusal):
        written(graph(text("y = Round(x)")), rules)


def test_no_list_allows_what_was_found_wrong() -> None:
    for name in ("armnn-20.08", "armnn-23.08", "armnn-25.11"):
        rules = load_rules(name)
        for item in rules.allow:
            if "RESIZE_BILINEAR" in item.ops:
                assert "halfPixelCenters" in item.unset
            if "FULLY_CONNECTED" in item.ops:
                assert not item.weights_per_channel
            if "CONV_2D" in item.ops:
                assert not item.grouped
            assert not {"PACK", "NEG"} & set(item.ops) or "int8" not in item.types
