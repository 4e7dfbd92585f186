"""A runtime that takes TFLite files, but not every op in every form: its allow-list, held while writing.

The list is data (`edgekit.rules.Allow`, a rules file a version). `Restriction` is asked for every op that a
lowering wants to write: an op that the list takes is written; one that it does not is said by others of the
list where `rewrites` has an exact form; what is left is refused, which sends the node to the hub's
decompositions (see `lower.build`), and, where there are none, back to the user with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgekit.rules import Allow, Rules
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.tflite.lower.emitter import Emitter
from edgekit_converters.targets.tflite.lower.rewrites import REWRITES, clamped
from edgekit_converters.targets.tflite.lower.tensors import Spec, Tensor, known

_FUSED = ("none", "relu", "relu_n1_to_1", "relu6")
_PADDINGS = ("same", "valid")
_PLACES: Mapping[str, tuple[int, ...]] = {"SPLIT": (0,), "TRANSPOSE_CONV": (0,)}
"""Inputs before the data that are places or sizes; elsewhere constants of int32 are."""
_WEIGHTED: Mapping[str, int] = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
}
"""Ops with weights, and which input they are."""

Inputs = Sequence[Tensor | None]


@dataclass(frozen=True)
class Restriction:
    """Implements `emitter.Grammar` for one rules file."""

    rules: Rules

    def allows(self, op: str, inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]) -> bool:
        """Whether the op may be written as it is."""
        return self.objection(op, inputs, outputs, fields) is None

    def instead(
        self,
        emitter: Emitter,
        op: str,
        inputs: Inputs,
        outputs: Sequence[Spec],
        fields: Mapping[str, Any],
    ) -> list[Tensor] | None:
        """What is written in place of the op; None when it may be written as it is.

        Raises:
            Refusal: neither it nor anything exact in its place.
        """
        why = self.objection(op, inputs, outputs, fields)
        if why is None:
            return _told_sizes(emitter, inputs, outputs) if op == "SLICE" else None
        fused = _FUSED[fields.get("fusedActivationFunction", 0)]
        if fused != "none" and not any(fused in item.fused for item in self._entries(op)):
            return _unfused(emitter, op, inputs, outputs, fields)
        rewrite = REWRITES.get(op)
        made = None if rewrite is None else rewrite(emitter, list(inputs), list(outputs), dict(fields))
        if made is None:
            raise self._refusal(op, why)
        return made

    def objection(
        self, op: str, inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]
    ) -> str | None:
        """What the runtime has against this op in this form; None when it takes it."""
        why = "is none of its operators"
        for entry in self._entries(op):
            found = _misfit(entry, op, inputs, outputs, fields)
            if found is None:
                return None
            why = found
        return why

    def _entries(self, op: str) -> list[Allow]:
        return [item for item in self.rules.allow if op in item.ops]

    def _refusal(self, op: str, why: str) -> Refusal:
        runtime, limit = f"{self.rules.runtime} {self.rules.version}", self.rules.limit(op)
        if limit is not None:
            return Refusal(
                f"{runtime}, {op}: {why}: {limit.detail}", code=limit.reason_code, remedy=limit.remedy
            )
        return Refusal(
            f"{runtime}, {op}: {why}",
            code="unsupported_op" if not self._entries(op) else "unsupported_attribute",
            remedy="replace the layer, or use the tflite target, whose runtime has this operator",
        )


def _misfit(
    entry: Allow, op: str, inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]
) -> str | None:
    """Why `entry` does not take the op in this form."""
    given = [item for item in inputs if item is not None]
    data = [item for place, item in enumerate(given) if not _is_place(op, place, item)]
    types = [item.dtype for item in data if not item.is_constant] + [item.dtype for item in outputs]
    strange = next((kind for kind in types if type_name(kind) not in entry.types), None)
    if strange is not None:
        return f"not in {type_name(strange)}"
    return _shape_misfit(entry, op, data, outputs) or _option_misfit(entry, op, inputs, fields)


def _shape_misfit(entry: Allow, op: str, data: Sequence[Tensor], outputs: Sequence[Spec]) -> str | None:
    shapes = [item.shape for item in data] + [item.shape for item in outputs]
    computed = [item.shape for item in data if not item.is_constant] + [item.shape for item in outputs]
    if any(len(shape) > entry.rank for shape in shapes):
        return f"more than {entry.rank} axes"
    if not all(computed):
        return "a single number, without axes"
    if any(None in shape for shape in shapes):
        return "a size is known only when the model runs"
    if data and all(item.is_constant for item in data):
        return "on constants alone"
    if entry.same_rank and len({item.rank for item in data}) > 1:
        return "on different numbers of axes"
    grouped = op == "CONV_2D" and data[0].shape[3] != data[1].shape[3]
    return "in groups" if grouped and not entry.grouped else None


def _option_misfit(entry: Allow, op: str, inputs: Inputs, fields: Mapping[str, Any]) -> str | None:
    fused = _FUSED[fields.get("fusedActivationFunction", 0)]
    if fused not in entry.fused:
        return f"not with {fused} fused"
    if entry.padding and "padding" in fields and _PADDINGS[fields["padding"]] not in entry.padding:
        return f"not with {_PADDINGS[fields['padding']].upper()} padding"
    option = next((name for name in entry.unset if fields.get(name)), None)
    if option is not None:
        return f"not with {option}"
    window = int(fields.get("filterHeight", 1)) * int(fields.get("filterWidth", 1))
    if entry.odd_window and window % 2 == 0:
        return f"not over {window} values"
    if any(item is None for item in inputs):
        return "with an input left out"
    if entry.inputs and len(inputs) > entry.inputs:
        return f"with {len(inputs)} inputs, it takes {entry.inputs}"
    return None if entry.weights_per_channel else _fine_weights(op, inputs)


def _fine_weights(op: str, inputs: Inputs) -> str | None:
    weights = inputs[_WEIGHTED.get(op, 1)] if len(inputs) > 1 else None
    fine = weights is not None and weights.quant is not None and weights.quant.per_channel
    return "not with a scale for each channel of its weights" if fine else None


def _is_place(op: str, place: int, item: Tensor) -> bool:
    """Whether an input says where or how much, and is not computed with."""
    if place in _PLACES.get(op, ()):
        return True
    return item.is_constant and item.dtype in (ir.DataType.INT32, ir.DataType.INT64)


def type_name(dtype: ir.DataType) -> str:
    """A type by its name in rules files."""
    return str(dtype.numpy())


def _told_sizes(emitter: Emitter, inputs: Inputs, outputs: Sequence[Spec]) -> list[Tensor] | None:
    """A SLICE whose sizes are told: -1 (as far as there is) is taken for a number by Arm NN 20.08."""
    sizes, shape = emitter.value(inputs[2]), known(outputs[0].shape)
    if sizes is None or shape is None or sizes.min() >= 0:
        return None
    return emitter.emit_all("SLICE", [*inputs[:2], emitter.ints(shape)], outputs)


def _unfused(
    emitter: Emitter, op: str, inputs: Inputs, outputs: Sequence[Spec], fields: Mapping[str, Any]
) -> list[Tensor]:
    """The op without its activation, and the activation after it: the same, since both saturate."""
    kind = _FUSED[fields["fusedActivationFunction"]]
    made = emitter.emit_all(op, inputs, outputs, **{**fields, "fusedActivationFunction": 0})
    return [clamped(emitter, made[0], kind)]
