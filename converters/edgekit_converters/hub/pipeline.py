"""From an ONNX graph as it was given to the canonical graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit_converters.hub.build import OPSET
from edgekit_converters.hub.passes.admit import Admit
from edgekit_converters.hub.passes.base import run
from edgekit_converters.hub.passes.branches import TakeBranches
from edgekit_converters.hub.passes.clean import NameInOrder, RemoveDeadCode
from edgekit_converters.hub.passes.constants import ConstantsToInitializers
from edgekit_converters.hub.passes.fold import FoldConstants
from edgekit_converters.hub.passes.fuse import FuseAffine
from edgekit_converters.hub.passes.inline import InlineFunctions
from edgekit_converters.hub.passes.normal import NormalForms
from edgekit_converters.hub.passes.shapes import InferShapes
from edgekit_converters.hub.passes.sizes import FoldSizes
from edgekit_converters.hub.passes.upgrade import Upgrade

_IR_VERSION = 10


@dataclass(frozen=True, kw_only=True)
class Canonical:
    """The canonical graph and what is known of its making (JSON-ready)."""

    model: ir.Model
    facts: Mapping[str, Any]


def canonical(model: onnx.ModelProto | ir.Model, *, where: str = "model") -> Canonical:
    """The canonical form of `model`, which is not changed.

    What a reader may rely on: opset 21 of the default domain; no Constant and no Dropout, Identity
    only where an output is an input, a constant or another output; names unique; what was an
    attribute in older opsets is an int64 initializer; types and shapes wherever inference has them.

    Raises:
        SourceError: damaged, control flow, sequences, strings, unknown operators; the node is named.
        Refusal: an operator that opset 21 cannot say.
    """
    try:
        return _canonical(_read(model))
    except SourceError as error:
        if error.where is None:
            error.where = where
        raise


def _read(model: onnx.ModelProto | ir.Model) -> ir.Model:
    """An own copy of `model` without what was said of inner values."""
    if isinstance(model, ir.Model):
        copy = model.clone()
    else:
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        del bare.graph.value_info[:]
        copy = ir.serde.deserialize_model(bare)
    # Initializers that are no inputs exist since IR version 4.
    graph = copy.graph
    ports = [value for value in graph.inputs if not value.is_initializer()]
    graph.inputs.clear()
    graph.inputs.extend(ports)
    copy.ir_version = _IR_VERSION
    return copy


def _canonical(model: ir.Model) -> Canonical:
    source = model.opset_imports.get("", model.opset_imports.get("ai.onnx", OPSET))
    sizes, fold = FoldSizes(), FoldConstants()
    folding = (InferShapes(), sizes, fold)
    run(model, [InlineFunctions(), ConstantsToInitializers(), sizes])
    while any(node.op_type == "If" for node in model.graph):
        if "TakeBranches" not in run(model, [*folding, TakeBranches(), ConstantsToInitializers()]):
            break
    run(model, [Admit(), InferShapes(), Upgrade(), *folding])
    run(model, [InferShapes(), NormalForms(), *folding, FuseAffine()])
    run(model, [*folding, InferShapes(), RemoveDeadCode(), NameInOrder(), Admit()])
    _check(model)
    kinds = [node.op_type for node in model.graph]
    facts = {
        "opset": OPSET,
        "source_opset": source,
        "nodes": len(kinds),
        "ops": sorted(set(kinds)),
        "folded": sizes.folded + fold.folded,
    }
    return Canonical(model=model, facts=facts)


def _check(model: ir.Model) -> None:
    """The checker's word on every node; big weights stay out."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = _IR_VERSION
    context.opset_imports = dict(model.opset_imports)
    for node in model.graph:
        try:
            if node.domain in ("", "ai.onnx.ml"):
                onnx.checker.check_node(ir.serde.serialize_node(node), context)
        except onnx.checker.ValidationError as error:
            text = " ".join(str(error).split())[:300]
            raise SourceError(f"not a valid node: {text}", code="corrupt_source") from error
