"""From an ONNX graph as it was given to the canonical graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit_converters.errors import Refusal
from edgekit_converters.hub.build import OPSET
from edgekit_converters.hub.nodes import label
from edgekit_converters.hub.passes.admit import Admit, Connect, FiniteWeights
from edgekit_converters.hub.passes.base import run
from edgekit_converters.hub.passes.branches import TakeBranches
from edgekit_converters.hub.passes.clean import NameInOrder, RemoveDeadCode
from edgekit_converters.hub.passes.constants import ConstantsToInitializers
from edgekit_converters.hub.passes.fold import FoldConstants
from edgekit_converters.hub.passes.fuse import FuseAffine
from edgekit_converters.hub.passes.inline import InlineFunctions
from edgekit_converters.hub.passes.normal import NormalForms
from edgekit_converters.hub.passes.recognise import Recognise
from edgekit_converters.hub.passes.shapes import InferShapes
from edgekit_converters.hub.passes.sizes import FoldSizes
from edgekit_converters.hub.passes.upgrade import Upgrade

_IR_VERSION = 10
_FEW = 64
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True, kw_only=True)
class Canonical:
    """The canonical graph and what is known of its making (JSON-ready)."""

    model: ir.Model
    facts: Mapping[str, Any]


def canonical(model: onnx.ModelProto | ir.Model, *, where: str = "model") -> Canonical:
    """The canonical form of `model`, which is not changed.

    What a reader may rely on: opset 21 of the default domain; no Constant and no Dropout, Identity
    only where an output is an input, a constant or another output; names unique; what was an
    attribute in older opsets is an int64 initializer; windows written out, axes counted from the
    front; types and shapes wherever inference has them.

    Raises:
        SourceError: damaged, control flow, sequences, strings, unknown operators; the node is named.
        Refusal: an operator that opset 21 cannot say.
    """
    with _naming(where):
        return _canonical(_read(model))


def check(model: onnx.ModelProto, *, where: str = "model") -> None:
    """Find out early, and without changing `model`, whether the hub takes it.

    Raises:
        SourceError: see `canonical`; also weights that are not finite.
    """
    with _naming(where):
        copy, sizes, fold = _read(model), FoldSizes(), FoldConstants()
        _admit(copy, sizes, fold)
        run(copy, [FiniteWeights()])


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Errors say which file they are about; the library's remarks about it are not printed beside them."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (SourceError, Refusal) as error:
        if error.where is None:
            error.where = where
        raise
    finally:
        logger.setLevel(level)


def _read(model: onnx.ModelProto | ir.Model) -> ir.Model:
    """An own copy of `model` without what was said of inner values."""
    if isinstance(model, ir.Model):
        copy = model.clone()
    else:
        # The weights stay where they are: the copy refers to them.
        try:
            copy = ir.serde.deserialize_model(model)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # Whatever the reader says of a damaged message.
            text = " ".join(str(error.__cause__ or error).split())[:300]
            raise SourceError(f"not a valid ONNX model: {text}", code="corrupt_source") from error
    graph = copy.graph
    for value in (out for node in graph for out in node.outputs):
        if not value.is_graph_output():
            value.type = value.shape = None
    # Initializers that are no inputs exist since IR version 4.
    ports = [value for value in graph.inputs if not value.is_initializer()]
    graph.inputs.clear()
    graph.inputs.extend(ports)
    copy.ir_version = _IR_VERSION
    if "ai.onnx" in copy.opset_imports:
        copy.opset_imports[""] = copy.opset_imports.pop("ai.onnx")
    copy.opset_imports.setdefault("", 1)
    return copy


def _admit(model: ir.Model, sizes: FoldSizes, fold: FoldConstants) -> None:
    """Functions and constant branches inlined, and only then what is not supported refused."""
    run(model, [InlineFunctions(), Connect()])
    _check(model)
    run(model, [ConstantsToInitializers(), sizes])
    while any(node.op_type == "If" for node in model.graph):
        if "TakeBranches" not in run(model, [InferShapes(), sizes, fold, TakeBranches()]):
            break
        run(model, [ConstantsToInitializers()])
    run(model, [Admit(), InferShapes(), Admit()])


def _canonical(model: ir.Model) -> Canonical:
    source = model.opset_imports[""]
    sizes, fold, recognise = FoldSizes(), FoldConstants(), Recognise()
    written = {node.op_type for node in model.graph}
    folding = (InferShapes(), sizes, fold)
    _admit(model, sizes, fold)
    run(model, [Upgrade(), *folding])
    run(model, [InferShapes(), NormalForms(), *folding, FuseAffine(), recognise])
    run(model, [*folding, InferShapes(), RemoveDeadCode(), NameInOrder(), Connect(), Admit()])
    _check(model)
    kinds = [node.op_type for node in model.graph]
    facts = {
        "opset": OPSET,
        "source_opset": source,
        "nodes": len(kinds),
        "ops": sorted(set(kinds)),
        "rewritten": sorted(written - set(kinds)),
        "recognised": recognise.found,
        "folded": sizes.folded + fold.folded,
        "weights": _weights(model),
    }
    return Canonical(model=model, facts=facts)


def _weights(model: ir.Model) -> int:
    """How many numbers the model was taught, or at least holds: small tables and shapes do not count."""
    held = (item.const_value for item in model.graph.initializers.values())
    return sum(item.size for item in held if item is not None and item.size >= _FEW)


def _check(model: ir.Model) -> None:
    """The checker's word on every node: arity, attributes and their types."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = _IR_VERSION
    context.opset_imports = dict(model.opset_imports)
    for node in model.graph:
        if node.domain not in ("", "ai.onnx.ml") or any(a.type in _GRAPHS for a in node.attributes.values()):
            continue
        version = model.opset_imports.get(node.domain, 1)
        if not onnx.defs.has(node.op_type, version, node.domain):
            continue
        if onnx.defs.get_schema(node.op_type, version, node.domain).deprecated:
            # GroupNormalization of opset 18: onnxruntime runs it, and the upgrade knows it.
            continue
        try:
            onnx.checker.check_node(ir.serde.serialize_node(node), context)
        except onnx.checker.ValidationError as error:
            text = " ".join(str(error).split("==> Context")[0].split())[:300]
            raise SourceError(f"{label(node)}: not a valid node: {text}", code="corrupt_source") from error
