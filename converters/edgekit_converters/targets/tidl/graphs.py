"""From the hub to what TI's tools read: batch one, the accelerator's layers, an opset their runtime has.

1. `working`: the hub with its batch fixed at one, in floats (`unquantize`), constants folded into layers,
   operators that came after opset 19 taken apart (but GELU, which is one layer there), and rewritten;
2. `delivered`: that graph as a file of opset 19, GELU as the pattern with Erf that the tools fuse, every
   node named like its first output (so that lists of layers mean the same whichever name a tool reads);
3. `proof`: both computed on samples in onnxruntime, or a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgekit.rules import Rules
from edgekit_converters import hub
from edgekit_converters.errors import Refusal
from edgekit_converters.hub.build import Builder, Result, names_of
from edgekit_converters.hub.nodes import attr_str, rank, required
from edgekit_converters.hub.rewrite import applied, builder_for, replace
from edgekit_converters.onnx_session import REFUSALS, OnnxSession
from edgekit_converters.quantize import affine
from edgekit_converters.quantize.graphs import clone
from edgekit_converters.quantize.roles import array
from edgekit_converters.targets.tidl import unquantize
from edgekit_converters.targets.tidl.rewrites import REWRITES, rewritten
from edgekit_converters.targets.tidl.soc import NOT_FOR_LEGACY, Soc
from edgekit_converters.values import EXACT

OPSET, IR_VERSION = 19, 8
_CHANGED_SINCE = frozenset({"GroupNormalization"})
_UNSAFE = re.compile(r"[^A-Za-z0-9_./:-]")


def working(path: Path, rules: Rules, soc: Soc) -> tuple[ir.Model, Mapping[str, int]]:
    """The graph that is checked, cut and quantized, and which rewrites made it."""
    model = ir.from_proto(hub.with_batch_one(path))
    unquantize.to_floats(model)
    model = hub.legalise(model, _known_operators())
    affine.fold(model.graph)
    counts = rewritten(model, _rewrites(rules, soc))
    _rename(model.graph)
    return clone(model), counts


def delivered(model: ir.Model) -> onnx.ModelProto:
    """The file for TI's tools.

    Raises:
        Refusal: an operator that opset 19 does not have.
    """
    copy = clone(model)
    names = names_of(copy)
    for node in list(copy.graph):
        if node.op_type == "Gelu":
            build = builder_for(node, names)
            values = applied(_gelu, node, build)
            assert values is not None
            name = str(node.outputs[0].name)
            replace(copy.graph, node, build, values)
            assert values[0] is not None
            values[0].name = name
    proto = hub.to_proto(copy)
    proto.ir_version = IR_VERSION
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    for node in proto.graph.node:
        node.name = node.output[0]
    _old_modes(proto)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Refusal(
            f"the graph cannot be written in opset {OPSET}: {str(error)[:200]}",
            remedy="export the model with an older opset",
            code="opset_too_new",
        ) from error
    return onnx.shape_inference.infer_shapes(proto)


def proof(original: Path, made: bytes, samples: Mapping[str, Any], *, allowed: float = EXACT) -> float:
    """The largest difference between the hub and the file, as a share of the output's range.

    `allowed` is more than rounding only where the source itself computes in steps.

    Raises:
        Refusal: it is more than two float computations of the same thing may differ by.
    """
    expected = OnnxSession(original).run(samples)
    try:
        found = OnnxSession(made).run(samples)
    except REFUSALS as error:
        raise Refusal(
            f"the rewritten graph does not run: {str(error)[:200]}", code="rewrite_differs"
        ) from error
    worst = 0.0
    for name, value in expected.items():
        exact = value.astype(np.float64)
        gap = np.abs(exact - found[name].astype(np.float64)).max(initial=0.0)
        worst = max(worst, float(gap / max(float(np.ptp(exact)) if exact.size else 0.0, 1e-6)))
    if not worst <= allowed:
        raise Refusal(
            f"the rewritten graph differs from the model by {worst:.2g} of the output's range",
            remedy="please report it, with the model",
            code="rewrite_differs",
        )
    return worst


def _rewrites(rules: Rules, soc: Soc) -> frozenset[str]:
    every = {name for items in REWRITES.values() for name, _ in items}
    if rules.rule("DepthToSpace") is not None or rules.rule("Transpose") is None:
        every.discard("depth_to_space_by_transposes")
    return frozenset(every - NOT_FOR_LEGACY if soc.legacy else every)


def _known_operators() -> frozenset[str]:
    found = {item.name for item in onnx.defs.get_all_schemas_with_history() if not item.domain}
    return frozenset({name for name in found if onnx.defs.has(name, OPSET)} - _CHANGED_SINCE) | {"Gelu"}


def _gelu(node: ir.Node, build: Builder) -> Result:
    value = required(node, 0)
    if attr_str(node, "approximate", "none") != "none":
        cubed = build("Mul", build("Mul", value, value), value)
        inner = build("Mul", build("Add", value, build("Mul", cubed, 0.044715)), sqrt(2 / np.pi))
        bent = build("Tanh", inner)
    else:
        bent = build("Erf", build("Div", value, sqrt(2)))
    return build("Mul", build("Mul", value, build("Add", bent, 1.0)), 0.5)


def _old_modes(proto: onnx.ModelProto) -> None:
    """GridSample's modes have other names since opset 20."""
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "GridSample" and attribute.name == "mode":
                attribute.s = {b"linear": b"bilinear", b"cubic": b"bicubic"}.get(attribute.s, attribute.s)


def _rename(graph: ir.Graph) -> None:
    """Inner tensors lose the characters that would break a list of names."""
    taken = {str(item.name) for item in graph.inputs} | {str(item.name) for item in graph.outputs}
    taken |= set(graph.initializers)
    values = [item for node in graph for item in node.outputs if item.name]
    taken |= {str(item.name) for item in values}
    for item in values:
        wanted = name = _UNSAFE.sub("_", str(item.name))
        if name == item.name or item.is_graph_output():
            continue
        count = 0
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        taken.add(name)
        item.name = name


def leading_layout(model: ir.Model) -> dict[str, str]:
    """Nodes that only turn an input into planar order, by first output, and the input that each reads."""
    found = {}
    for value in model.graph.inputs:
        readers = value.consumers()
        if len(readers) == 1 and readers[0].op_type in ("Transpose", "Reshape") and rank(value) == 4:
            result = readers[0].outputs[0]
            if rank(result) == 4 and not result.is_graph_output():
                found[str(result.name)] = str(value.name)
    return found


def planar(model: ir.Model) -> ir.Model:
    """The network behind its `leading_layout`: the same inputs in planar order, under their names."""
    copy = clone(model)
    layout = leading_layout(copy)
    inputs = {str(item.name): item for item in copy.graph.inputs}
    for node in list(copy.graph):
        name = layout.get(str(node.outputs[0].name))
        if name is not None:
            inputs[name].shape = node.outputs[0].shape
            node.outputs[0].replace_all_uses_with(inputs[name])
            copy.graph.remove(node, safe=True)
    return copy


def biases(model: ir.Model) -> dict[str, Any]:
    """The constant bias of each node that has one, by the node's first output."""
    found = {}
    for node in model.graph:
        value = (
            node.inputs[2]
            if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2
            else None
        )
        known = array(value)
        if known is not None:
            found[str(node.outputs[0].name)] = known.numpy()
    return found
