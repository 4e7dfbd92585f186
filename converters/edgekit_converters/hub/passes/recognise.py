"""Functions that exporters write out are recognised again: Gelu, HardSwish, LayerNormalization.

Attention is only counted: opset 21 has no operator for it.
Runtimes have kernels for them; where one has not, legalising writes them out once more. A pattern
is taken only when nothing inside it is read from elsewhere.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult

from edgekit_converters.hub.build import names_of
from edgekit_converters.hub.passes.base import Pass
from edgekit_converters.hub.passes.conditions import AT_OPSET, NOTHING_UNREAD
from edgekit_converters.hub.patterns.activations import gelu, hard_swish
from edgekit_converters.hub.patterns.attention import attention_of
from edgekit_converters.hub.patterns.layer_norm import layer_norm
from edgekit_converters.hub.rewrite import builder_for, remove_unread, replace

_PATTERNS = {"Gelu": gelu, "HardSwish": hard_swish, "LayerNormalization": layer_norm}


class Recognise(Pass):
    """Rewrite what is recognised; `found` counts by name over the pass's life."""

    requires = (AT_OPSET,)
    ensures = (NOTHING_UNREAD,)

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def call(self, model: ir.Model) -> PassResult:
        names, changed = names_of(model), False
        for node in list(model.graph):
            for name, pattern in _PATTERNS.items():
                build = builder_for(node, names)
                value = pattern(node, build)
                if value is not None:
                    replace(model.graph, node, build, [value])
                    self.found[name] = self.found.get(name, 0) + 1
                    changed = True
                    break
        remove_unread(model.graph)
        heads = sum(attention_of(node) is not None for node in model.graph)
        if heads:
            self.found["Attention"] = heads
        return PassResult(model, changed)
