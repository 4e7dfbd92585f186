"""What accelerators' arithmetic asks of quantization: powers of two, few bits, signs, what stays outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.rules import Rules, load_rules
from edgekit_converters.quantize.grids import activation_grid, powers_of_two, weight_scales
from edgekit_converters.quantize.pipeline import for_target
from edgekit_converters.quantize.qdq import quantize
from edgekit_converters.quantize.ranges import Ranges
from edgekit_converters.quantize.running import serialize
from tests.converters.graphs import GraphBuilder
from tests.converters.quant_models import canonical, head, known, residual, samples, stored

TDA4VM, AM68A, AM57 = (load_rules(f"tidl-{name}") for name in ("tda4vm-11.0", "am68a-11.0", "am57-6.3"))


def constants(model: ir.Model) -> dict[str, Any]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]


def written(build: Any, rules: Rules, **options: Any) -> ir.Model:
    model = canonical(build)
    return quantize(model, Ranges(known(model, samples()), "minmax"), rules, precision="int8", **options)


def scales(model: ir.Model) -> list[Any]:
    pairs = [node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return [node.inputs[1].const_value.numpy() for node in pairs]  # type: ignore[union-attr]


def pair_of(model: ir.Model, tensor: str) -> tuple[float, Any]:
    """Scale and zero point of the pair behind a tensor."""
    held = constants(model)
    return float(held[f"{tensor}_scale"]), held[f"{tensor}_zero_point"]


def test_every_scale_of_weights_biases_and_tensors_is_a_power_of_two() -> None:
    made = written(residual, TDA4VM)
    found = np.concatenate([np.atleast_1d(item) for item in scales(made)])
    assert len(found) > 20
    assert (np.frexp(found)[0] == 0.5).all()
    assert not (
        np.frexp(np.concatenate([np.atleast_1d(x) for x in scales(written(residual, AM68A))]))[0] == 0.5
    ).all()


def test_a_power_of_two_is_never_below_what_it_must_hold() -> None:
    given = np.array([0.25, 0.3, 1e-7, 3.0, 2.0**-20], np.float32)
    found = powers_of_two(given)
    assert found.dtype == np.float32
    assert (found >= given).all()
    assert (found < 2 * given).all()
    assert found[0] == 0.25


def test_what_is_never_negative_gets_all_256_values_without_a_zero_point() -> None:
    """Unsigned integers are written as signed ones from the least up: the same values."""
    for kind, most in (("int8", 255.0), ("int16", 65535.0)):
        grid = activation_grid(0.0, most, kind, symmetric=True, unsigned=True)
        assert (grid.type, grid.scale, grid.low, grid.high) == (kind, 1.0, 0.0, most)
        finer = activation_grid(0.0, most, kind, symmetric=True, unsigned=True, power_of_two=True)
        assert finer == grid
    signed = activation_grid(-0.1, 127.0, "int8", symmetric=True, unsigned=True)
    assert (signed.scale, signed.zero_point) == (1.0, 0)
    assert activation_grid(0.0, 127.0, "int8", symmetric=True) == signed


def test_twelve_bits_of_a_parameter_use_twelve_bits() -> None:
    made = written(residual, AM57)
    weights = [item for item in constants(made).values() if item.dtype == np.int16 and item.ndim > 1]
    assert len(weights) == 4
    assert {int(np.abs(item).max()) for item in weights} == {2047}
    assert float(weight_scales(np.array([-4.0, 2.0]), None, "int16", bits=4)) == pytest.approx(4 / 7)


def test_inputs_keep_zero_where_the_rules_say_so_and_are_not_rounded_twice() -> None:
    def shifted(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(4, 3, 3, 3))
        return g.op("Conv", y, g.weight(4, 4, 1, 1)), [4, 6, 6]

    model = canonical(shifted)
    statistics = known(model, {"x": samples()["x"] + 3})
    made = quantize(model, Ranges(statistics, "minmax"), AM68A, precision="int8")
    free = quantize(
        model, Ranges(statistics, "minmax"), replace(AM68A, inputs_symmetric=False), precision="int8"
    )
    assert pair_of(made, "x")[1] == 0
    assert pair_of(free, "x")[1] != 0
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph) == 3


def test_a_reader_without_zero_point_takes_it_from_its_maker_through_what_only_moves() -> None:
    def chain(g: GraphBuilder) -> tuple[str, list[int]]:
        y = g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4))
        y = g.op("Reshape", y, g.constant(np.array([-1, 4, 64], np.int64)))
        return g.op("Sigmoid", y), [4, 64]

    made = written(chain, AM68A)
    (conv,) = (node for node in made.graph if node.op_type == "Conv")
    assert pair_of(made, str(conv.outputs[0].name))[1] == 0
    alone = written(lambda g: (g.op("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4)), [4, 8, 8]), AM68A)
    held = {name: value for name, value in constants(alone).items() if name.endswith("_zero_point")}
    assert any(item.ndim == 0 and item != 0 for item in held.values())


def test_a_moved_layer_has_sixteen_bits_in_activations_and_weights(tmp_path: Path) -> None:
    model = canonical(residual)
    moved = str(next(node for node in model.graph if node.op_type == "Conv").outputs[0].name)
    made = quantize(
        model,
        Ranges(known(model, samples()), "minmax"),
        TDA4VM,
        precision="int8",
        overrides={moved: "int16"},
    )
    weights = [item for item in constants(made).values() if item.ndim > 1]
    assert sorted(str(item.dtype) for item in weights) == ["int16", "int8", "int8", "int8"]
    onnx.checker.check_model(onnx.load_from_string(serialize(made)), full_check=True)


def test_nodes_off_the_accelerator_stay_float(tmp_path: Path) -> None:
    model = canonical(residual)
    ranges, given = stored(model, samples(), tmp_path)
    away = str(next(node for node in model.graph if node.op_type == "Gemm").outputs[0].name)
    made, facts = for_target(model, ranges, AM68A, "int8", samples=given, floats=frozenset({away}))
    assert facts["float_ops"][away] == "Gemm: kept_float"
    (gemm,) = (node for node in made.graph if node.op_type == "Gemm")
    maker = gemm.inputs[1].producer() if gemm.inputs[1] is not None else None
    assert maker is None


def test_a_head_of_uneven_parts_goes_to_sixteen_bits_where_the_soc_has_them() -> None:
    made = written(head, AM68A)
    (concat,) = (node for node in made.graph if node.op_type == "Concat")
    (reader,) = concat.outputs[0].consumers()
    assert reader.op_type == "QuantizeLinear"
    assert reader.inputs[2] is not None
    assert reader.inputs[2].dtype == ir.DataType.INT16
