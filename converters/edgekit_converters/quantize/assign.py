"""Which ops become integer ops, and which grid each tensor gets: a pure decision on graph, ranges, rules.

1. An op is chosen when the rules have it for the wanted activation type, the range of every float
   input and output is known, and its weight is constant.
2. A Relu or Clip after an op that merges activations makes the tensor between them an inner one: it
   is never quantized, so rounding happens once.
3. A Relu or Clip behind a float op stays float with it. Concatenations straight to an output whose
   inputs differ much in range (boxes beside scores) go to the rules' rescue, see `heads`; movers and
   elementwise ops with no integer neighbour stay float.
4. Tensors that the rules bind to one scale form a group; its grid covers the union of their ranges.
   An input that cannot join goes over to the group's grid at the op's entry.

The graph is only read. Writing is `qdq`'s part; ranges come from `ranges`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgekit.rules import OpRule, Rules
from edgekit_converters.quantize import heads
from edgekit_converters.quantize.grids import Grid
from edgekit_converters.quantize.groups import Groups, Kind
from edgekit_converters.quantize.roles import (
    ACTIVATIONS,
    MOVERS,
    WEIGHTED,
    array,
    integers,
    is_float,
    number,
    roles,
)

_TYPES = {"int8": ("int8", "uint8"), "int16x8": ("int16",)}
FLOAT = "float32"
Ranges = Mapping[str, tuple[float, float]]
_SHARE = 2.0
"""A tensor with other readers joins a concatenation's scale unless that is this much coarser for it."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The decision. Nodes are named by their first output.

    `ops`: rule by node; `grids`: by tensor, quantized where it is made; `entries`: by (node, input),
    where a tensor goes over to another grid; `inner`: tensors inside a merged pair; `left`: float
    nodes with the reason; `split`: concatenations rescued for their inputs' ranges.
    """

    ops: Mapping[str, OpRule]
    grids: Mapping[str, Grid]
    entries: Mapping[tuple[str, int], Grid]
    inner: frozenset[str]
    left: Mapping[str, str] = field(default_factory=dict)
    split: tuple[str, ...] = ()


def assign(
    graph: ir.Graph,
    ranges: Ranges,
    rules: Rules,
    kind: str,
    overrides: Mapping[str, str] | None = None,
    *,
    finer: bool = False,
) -> Assignment:
    """Decide for activation type `kind`; `overrides` gives single nodes another type or ``float32``.

    Where the rules have several entries for an op and type, the first counts, with `finer` the last.
    """
    nodes = list(graph)
    split = heads.shared_scale_concats(graph, ranges) if kind in ("int8", "uint8") else ()
    kinds = {**dict.fromkeys(split, rules.rescue), **(overrides or {})}
    chosen: dict[str, OpRule] = {}
    left: dict[str, str] = {}
    for node in nodes:
        found = _choose(node, ranges, rules, kinds.get(key(node), kind), finer)
        if isinstance(found, str):
            left[key(node)] = found
        else:
            chosen[key(node)] = found
    inner, tails = _merges(nodes, chosen, ranges)
    chosen |= tails
    left = {name: why for name, why in left.items() if name not in tails}
    _follow_floats(nodes, chosen, left)
    _drop_isolated(nodes, chosen, inner, left)
    inner = {name for name in inner if name in chosen}
    narrow = _symmetric(graph, nodes, chosen, inner, rules)
    grids, entries = _grids(graph, nodes, chosen, inner, ranges, narrow)
    return Assignment(
        ops=chosen,
        grids=grids,
        entries=entries,
        inner=frozenset(inner),
        left=left,
        split=tuple(name for name in split if name in left or chosen[name].activations[0] == rules.rescue),
    )


def activation_type(rules: Rules, precision: str) -> str:
    """The activation type that the rules put first among those of `precision`."""
    listed = [kind for rule in rules.ops for kind in rule.activations]
    return next((kind for kind in listed if kind in _TYPES[precision]), _TYPES[precision][0])


def key(node: ir.Node) -> str:
    """How a node is named here: by its first output, which is unique in a graph."""
    return str(node.outputs[0].name)


def kind_of(rule: OpRule) -> Kind:
    """What tensors made under `rule` look like."""
    return Kind(
        type=rule.activations[0],
        symmetric=rule.activations_symmetric,
        power_of_two=rule.power_of_two,
        unsigned=rule.unsigned,
    )


def _choose(node: ir.Node, ranges: Ranges, rules: Rules, kind: str, finer: bool) -> OpRule | str:
    if kind == FLOAT:
        return "kept_float"
    fitting = [item for item in rules.ops if node.op_type in item.ops and kind in item.activations]
    if not fitting or node.domain:
        return "no_rule"
    rule = fitting[-1 if finer else 0]
    found = roles(node)
    if not found.data:
        return "no_float_input"
    if node.op_type in ("Conv", "ConvTranspose") and found.weight is None:
        return "weight_not_constant"
    if found.weight is not None and not {"int8", "int16"} & set(rule.weights):
        return "no_rule"
    if node.op_type == "AveragePool" and any(item != 1 for item in integers(node, "dilations")):
        return "dilated_pool"
    if node.op_type == "Gemm" and (number(node, "alpha", 1) != 1 or number(node, "beta", 1) != 1):
        return "scaled_gemm"
    tensors = [node.inputs[i] for i in found.data]
    if _tail(node, rule, ranges) is None:
        tensors += [item for item in node.outputs if is_float(item)]
    for value in tensors:
        if value is not None and array(value) is None and value.name not in ranges:
            return "no_range"
    # The type asked for comes first, so that `kind_of` needs only the rule.
    others = tuple(item for item in rule.activations if item != kind)
    return replace(rule, activations=(kind, *others))


def _merges(
    nodes: Sequence[ir.Node], chosen: Mapping[str, OpRule], ranges: Ranges
) -> tuple[set[str], dict[str, OpRule]]:
    """Inner tensors, and the rules of the activations that close the pairs."""
    inner: set[str] = set()
    tails: dict[str, OpRule] = {}
    for node in nodes:
        rule = chosen.get(key(node))
        tail = None if rule is None else _tail(node, rule, ranges)
        if rule is not None and tail is not None:
            inner.add(key(node))
            tails[key(tail)] = replace(rule, weights=())
    return inner, tails


def _tail(node: ir.Node, rule: OpRule, ranges: Ranges) -> ir.Node | None:
    """The activation that `rule` lets become part of `node`."""
    output = node.outputs[0]
    readers = output.consumers()
    if not rule.merges_activation or output.is_graph_output() or len(readers) != 1:
        return None
    reader = readers[0]
    if reader.op_type not in ACTIVATIONS or key(reader) not in ranges:
        return None
    return reader if _plain(reader) or not rule.activations_symmetric else None


def _plain(node: ir.Node) -> bool:
    """Relu, or a Clip that every runtime has as an activation. Others must be said by saturation."""
    if node.op_type == "Relu":
        return True
    bounds = [array(item) for item in node.inputs[1:]]
    if any(item is None for item in bounds):
        return False
    found = tuple(float(item.numpy()) for item in bounds if item is not None)
    return found in ((0.0, 6.0), (-1.0, 1.0), (0.0,))


def _follow_floats(nodes: Sequence[ir.Node], chosen: dict[str, OpRule], left: dict[str, str]) -> None:
    """An activation behind a float op is computed before the rounding, not after it."""
    for node in nodes:
        if key(node) not in left or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
            continue
        readers = node.outputs[0].consumers()
        if len(readers) == 1 and readers[0].op_type in ACTIVATIONS and key(readers[0]) in chosen:
            del chosen[key(readers[0])]
            left[key(readers[0])] = "follows_float"


def _drop_isolated(
    nodes: Sequence[ir.Node], chosen: dict[str, OpRule], inner: set[str], left: dict[str, str]
) -> None:
    """Ops without weights and without an integer neighbour gain nothing from two conversions."""

    def integer(node: ir.Node | None) -> bool:
        return node is not None and key(node) in chosen

    changed = True
    while changed:
        changed = False
        for node in nodes:
            if not integer(node) or node.op_type in WEIGHTED:
                continue
            read = [node.inputs[i] for i in roles(node).data]
            before = [value.producer() for value in read if value is not None]
            after = [reader for item in node.outputs for reader in item.consumers()]
            # A chain of movers between float ops holds itself up; so only what comes before counts there.
            if any(integer(item) for item in before) or any(
                integer(item) and item.op_type not in MOVERS for item in after
            ):
                continue
            del chosen[key(node)]
            inner.discard(key(node))
            left[key(node)] = "no_integer_neighbour"
            changed = True


def _grids(
    graph: ir.Graph,
    nodes: Sequence[ir.Node],
    chosen: Mapping[str, OpRule],
    inner: set[str],
    ranges: Ranges,
    narrow: set[str],
) -> tuple[dict[str, Grid], dict[tuple[str, int], Grid]]:
    groups = Groups()
    entries: dict[tuple[str, int], tuple[Kind, str]] = {}
    for node in nodes:
        rule = chosen.get(key(node))
        if rule is None:
            continue
        outputs = [str(item.name) for item in node.outputs if is_float(item) and item.name not in inner]
        for name in outputs:
            groups.add(name, _kind(rule, name, narrow), ranges[name], _fixed(rule))
        for index, name in _entering(node, inner):
            if name not in groups:
                groups.add(name, _kind(rule, name, narrow), _span(node, index, ranges), None)
            same = rule.same_scale and bool(outputs)
            if not kind_of(rule).takes(groups.kind(name)):
                entries[key(node), index] = (kind_of(rule), outputs[0] if same else name)
            elif same and not _joins(groups, node, index, name, outputs, ranges):
                entries[key(node), index] = (kind_of(rule), outputs[0])
    grids = {name: groups.grid(name) for name in groups if not _constant(graph, name)}
    moved: dict[tuple[str, int], Grid] = {}
    for place, (kind, name) in entries.items():
        if groups.kind(name) == kind:
            moved[place] = groups.grid(name)
        else:
            low, high = ranges[name]
            moved[place] = kind.grid(low, high)
    return grids, moved


def _symmetric(
    graph: ir.Graph, nodes: Sequence[ir.Node], chosen: Mapping[str, OpRule], inner: set[str], rules: Rules
) -> set[str]:
    """Tensors whose zero point is 0 whatever their maker could do: a reader needs it, or the rules say so.

    What moves values hands it on, forwards and backwards.
    """
    found = {str(item.name) for item in graph.inputs} if rules.inputs_symmetric else set()
    movers: list[set[str]] = []
    for node in nodes:
        rule = chosen.get(key(node))
        if rule is None:
            continue
        read = {name for _, name in _entering(node, inner)}
        made = {str(item.name) for item in node.outputs if is_float(item)}
        if rule.activations_symmetric:
            found |= read | made
        elif rule.same_scale:
            movers.append(read | made)
    changed = True
    while changed:
        joined = [item for item in movers if item & found and not item <= found]
        changed = bool(joined)
        found = found.union(*joined)
    return found


def _kind(rule: OpRule, name: str, narrow: set[str]) -> Kind:
    kind = kind_of(rule)
    return replace(kind, symmetric=True) if name in narrow else kind


def _entering(node: ir.Node, inner: set[str]) -> Iterator[tuple[int, str]]:
    """Positions and names of the tensors that reach `node` quantized, constants left out."""
    for index in roles(node).data:
        value = node.inputs[index]
        if value is not None and array(value) is None and value.name not in inner:
            yield index, str(value.name)


def _joins(
    groups: Groups, node: ir.Node, index: int, name: str, outputs: Sequence[str], ranges: Ranges
) -> bool:
    """Bind an input to its op's outputs, unless that would harm it or contradict a fixed scale."""
    several = len(list(_entering(node, set()))) > 1
    value = node.inputs[index]
    if several and (groups.fixed(name) or groups.fixed(outputs[0])):
        return False
    if several and value is not None and len(value.consumers()) > 1:
        low, high = groups.range(outputs[0])
        own_low, own_high = groups.range(name)
        if max(high - low, 0.0) > _SHARE * max(own_high - own_low, 0.0):
            return False
    return all(groups.join(name, item) for item in outputs)


def _span(node: ir.Node, index: int, ranges: Ranges) -> tuple[float, float]:
    value = node.inputs[index]
    assert value is not None
    return ranges[str(value.name)]


def _constant(graph: ir.Graph, name: str) -> bool:
    return name in graph.initializers


def _fixed(rule: OpRule) -> Grid | None:
    if rule.scale is None:
        return None
    return Grid(type=rule.activations[0], scale=rule.scale, zero_point=rule.zero_point or 0)
