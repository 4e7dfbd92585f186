"""Each rewrite computes what was there before, within the limits; the file for TI's tools is old enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.errors import ProfileError
from edgekit.rules import load_rules
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.targets.tidl import graphs
from edgekit_converters.targets.tidl.checks import Known
from edgekit_converters.targets.tidl.partition import partition
from edgekit_converters.targets.tidl.rewrites import REWRITES
from edgekit_converters.targets.tidl.soc import SOCS, soc
from tests.converters.graphs import GraphBuilder
from tests.converters.tidl_cases import Build, conv, floats, gemm, ints, one, pair, pool

AM68A, AM57 = load_rules("tidl-am68a-11.0"), load_rules("tidl-am57-6.3")


def saved(build: Build, shape: tuple[int, ...], folder: Path, *, opset: int = 21) -> Path:
    """The hub of what `build` appends, with a free batch."""
    g = GraphBuilder(shape, seed=2)
    output = build(g)
    free = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.UNDEFINED, None)
    graph = onnx.helper.make_graph(g.nodes, "case", [g.input], [free], g.weights)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    found = onnx.shape_inference.infer_shapes(_without_output(proto, output))
    proto.graph.output.append(next(item for item in found.graph.value_info if item.name == output))
    path = folder / "hub.onnx"
    path.write_bytes(hub.to_proto(hub.canonical(proto).model).SerializeToString())
    return path


def _without_output(proto: onnx.ModelProto, output: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    del proto.graph.output[:]
    return copy


def samples(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"x": np.random.default_rng(3).standard_normal((5, *shape)).astype(np.float32)}


def resize_to(*sizes: int) -> Build:
    return lambda g: g.op(
        "Resize", "x", "", "", ints(g, *sizes), axes=[2, 3], mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip


def mean(*axes: int, keep: int = 1) -> Build:
    return lambda g: g.op("ReduceMean", "x", ints(g, *axes), keepdims=keep)


def turned(g: GraphBuilder, order: list[int]) -> str:
    return g.op("Transpose", g.op("Transpose", "x", perm=[0, 2, 3, 1]), perm=order)


IMAGE = (4, 12, 12)
CASES: dict[str, tuple[tuple[int, ...], list[Build]]] = {
    "whole_window_to_global": (IMAGE, [pool(12, 1, "AveragePool")]),
    "large_max_pool_to_chain": (
        IMAGE,
        [
            pool(5, 1, pads=[2, 2, 2, 2]),
            pool(7, 2, pads=[3, 1, 2, 3]),
            pool(9, 1),
            pool(5, 2, pads=[0, 1, 1, 0]),
        ],
    ),
    "even_kernel_to_odd": (
        IMAGE,
        [
            conv((2, 2), strides=[2, 2]),
            conv((4, 4), pads=[1, 2, 2, 1]),
            conv((2, 3), dilations=[2, 1], pads=[0, 1, 1, 1]),
            conv((4, 4), inner=1, group=4, pads=[2, 2, 1, 1]),
        ],
    ),
    "stride_to_subsampling": (
        (3, 21, 16),
        [
            conv((9, 9), inner=3, strides=[2, 2], pads=[4, 3, 4, 4]),
            conv((10, 4), inner=3, strides=[2, 2], pads=[4, 1, 5, 1]),
        ],
    ),
    "activation_before_subsampling": (
        (3, 21, 16),
        [
            lambda g: g.op("Relu", conv((9, 9), inner=3, strides=[2, 2])(g)),
            lambda g: g.op("Clip", conv((9, 9), inner=3, strides=[2, 2])(g), floats1(g, -0.5), floats1(g, 1)),
        ],
    ),
    "mean_to_global_pool": (IMAGE, [mean(2, 3), mean(1, 2, keep=0), mean(-1, -2, keep=0)]),
    "mean_to_product": (IMAGE, [mean(3), mean(1, keep=0), mean(1, 2, 3)]),
    "large_average_to_product": ((3, 40, 40), [one("GlobalAveragePool")]),
    "gemm_to_product_and_sum": (
        (8,),
        [
            gemm(alpha=0.5),
            lambda g: g.op("Gemm", "x", g.weight(8, 3), g.weight(3), alpha=2.0, beta=0.5),
            lambda g: g.op("Gemm", "x", g.weight(3, 8), number_of(g), transB=1, beta=3.0),
        ],
    ),
    "softmax_to_width": (IMAGE, [one("Softmax", axis=1)]),
    "argmax_to_third_axis": (
        IMAGE,
        [one("ArgMax", axis=1, keepdims=0), one("ArgMax", axis=3), one("ArgMax", axis=-2, keepdims=0)],
    ),
    "sizes_to_scales": (IMAGE, [resize_to(24, 24)]),
    "transposes_to_one": (
        IMAGE,
        [lambda g: g.op("Relu", turned(g, [0, 2, 1, 3])), lambda g: g.op("Relu", turned(g, [0, 3, 1, 2]))],
    ),
    "many_to_pairs": (
        IMAGE,
        [
            lambda g: g.op("Sum", "x", g.op("Relu", "x"), g.op("Abs", "x")),
            lambda g: g.op("Max", "x", g.weight(4, 1, 1), g.op("Neg", "x")),
        ],
    ),
    "difference_to_sum": (IMAGE, [pair("Sub")]),
}  # fmt: skip


def floats1(g: GraphBuilder, value: float) -> str:
    return g.constant(np.float32(value))


def number_of(g: GraphBuilder) -> str:
    return floats(g, 0.7)


FORMS = [(name, shape, build) for name, (shape, builds) in CASES.items() for build in builds]


def test_every_rewrite_has_a_case() -> None:
    known = {name for items in REWRITES.values() for name, _ in items}
    assert known == {*CASES, "depth_to_space_by_transposes"}


@pytest.mark.parametrize(("name", "shape", "build"), FORMS, ids=[f"{x[0]}-{i}" for i, x in enumerate(FORMS)])
def test_a_rewrite_computes_the_same_and_is_within_the_limits(
    name: str, shape: tuple[int, ...], build: Build, tmp_path: Path
) -> None:
    path = saved(build, shape, tmp_path)
    work, counts = graphs.working(path, AM68A, soc("am68a"))
    assert name in counts
    data = graphs.delivered(work).SerializeToString()
    assert graphs.proof(path, data, samples(shape)) < 1e-5
    assert not partition(work.graph, AM68A, Known()).refused


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks_of_channels_are_spread_where_the_accelerator_has_no_layer_for_it(
    mode: str, tmp_path: Path
) -> None:
    path = saved(one("DepthToSpace", blocksize=2, mode=mode), (8, 3, 5), tmp_path)
    none = tuple(item for item in AM68A.ops if "DepthToSpace" not in item.ops)
    work, counts = graphs.working(path, replace(AM68A, ops=none), soc("am68a"))
    assert counts == {"depth_to_space_by_transposes": 1}
    graphs.proof(path, graphs.delivered(work).SerializeToString(), samples((8, 3, 5)))
    kept, counts = graphs.working(path, AM68A, soc("am68a"))
    assert [node.op_type for node in kept.graph] == ["DepthToSpace"]
    assert not counts


@pytest.mark.parametrize(
    "build",
    [
        pool(5, 1, pads=[2, 2, 2, 2], ceil_mode=1),
        pool(3, 1),
        conv(),
        one("Softmax", axis=3),
        resize_to(18, 18),
        pool(4, 1),
    ],
)
def test_what_a_rewrite_does_not_fit_is_left_alone(build: Build, tmp_path: Path) -> None:
    work, counts = graphs.working(saved(build, IMAGE, tmp_path), AM68A, soc("am68a"))
    assert not counts
    assert len(list(work.graph)) == 1


def test_the_legacy_import_gets_no_matrix_product_for_a_large_pool(tmp_path: Path) -> None:
    work, counts = graphs.working(saved(one("GlobalAveragePool"), (3, 40, 40), tmp_path), AM57, soc("am5729"))
    assert not counts
    assert [node.op_type for node in work.graph] == ["GlobalAveragePool"]


# The file that TI's tools read.


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_one_layer_for_the_cut_and_the_fused_pattern_in_the_file(
    approximate: str, tmp_path: Path
) -> None:
    path = saved(lambda g: g.op("Gelu", conv()(g), approximate=approximate), IMAGE, tmp_path)
    work, _ = graphs.working(path, AM68A, soc("am68a"))
    assert [node.op_type for node in work.graph] == ["Conv", "Gelu"]
    made = graphs.delivered(work)
    assert ("Erf" if approximate == "none" else "Tanh") in {node.op_type for node in made.graph.node}
    assert graphs.proof(path, made.SerializeToString(), samples(IMAGE)) < 1e-5


def test_the_file_is_old_enough_for_tis_runtime_and_every_node_has_its_results_name(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Relu", conv()(g))
        return g.op("Reshape", y, ints(g, -1, 4 * 10 * 10))

    work, _ = graphs.working(saved(build, IMAGE, tmp_path), AM68A, soc("am68a"))
    made = graphs.delivered(work)
    assert [(item.domain, item.version) for item in made.opset_import] == [("", 19)]
    assert made.ir_version == 8
    assert all(node.name == node.output[0] for node in made.graph.node)
    assert {dim.dim_value for item in made.graph.input for dim in item.type.tensor_type.shape.dim} == {
        1,
        4,
        12,
    }
    assert {"t0", "t1"} <= {item.name for item in made.graph.value_info}
    assert OnnxSession(made.SerializeToString()).fixed


def test_names_that_would_break_a_list_of_layers_are_changed(tmp_path: Path) -> None:
    path = saved(lambda g: g.op("Abs", g.op("Relu", conv()(g))), IMAGE, tmp_path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = [f"a, {name}" if name == "t1" else name for name in node.output]
        node.input[:] = [f"a, {name}" if name == "t1" else name for name in node.input]
    del model.graph.value_info[:]
    path.write_bytes(model.SerializeToString())
    work, _ = graphs.working(path, AM68A, soc("am68a"))
    assert [str(node.outputs[0].name) for node in work.graph] == ["t0", "a__t1", "t2"]


def test_a_rewrite_that_changed_the_result_would_be_refused(tmp_path: Path) -> None:
    path = saved(conv(), IMAGE, tmp_path)
    work, _ = graphs.working(path, AM68A, soc("am68a"))
    made = graphs.delivered(work)
    weight = next(item for item in made.graph.initializer if len(item.dims) == 4)
    data = onnx.numpy_helper.to_array(weight).copy()
    data[0, 0, 0, 0] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(data, weight.name))
    with pytest.raises(Refusal, match="differs from the model") as caught:
        graphs.proof(path, made.SerializeToString(), samples(IMAGE))
    assert caught.value.code == "rewrite_differs"


def test_the_legacy_network_starts_behind_the_layout_of_its_input(tmp_path: Path) -> None:
    def build(g: GraphBuilder) -> str:
        y = g.op("Transpose", "x", perm=[0, 3, 1, 2])
        return g.op("Conv", y, g.weight(5, 3, 3, 3))

    path = saved(build, (8, 8, 3), tmp_path)
    work, _ = graphs.working(path, AM57, soc("am5729"))
    assert list(graphs.leading_layout(work).values()) == ["x"]
    given = samples((8, 8, 3))
    made = OnnxSession(graphs.delivered(graphs.planar(work)).SerializeToString())
    found = made.run({"x": given["x"].transpose(0, 3, 1, 2)})
    expected = OnnxSession(path).run(given)
    assert all(np.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def test_an_unknown_soc_is_told_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match="am62x") as caught:
        soc("am62x")
    assert caught.value.code == "unknown_soc"
    assert set(SOCS) == {"am62a", "am67a", "am68a", "am69a", "tda4vm", "am5729", "am5749"}
