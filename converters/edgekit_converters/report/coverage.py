"""Which operators of the model run where, for every variant, and why others do not.

A target may say it itself (``facts["coverage"]``: ``places``, ``refused``, ``note``); TIDL's partition and
Vela's own counts are read as they are; everything else is taken whole by the runtime that the variant names:
by the kernels that really ran it, and where nothing of that runtime ran, which processor would is its own
choice and not told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekit.package import Variant

_PLUMBING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Operators that an accelerator or the quantizer leaves out, with the reason."""

    op: str
    count: int
    reason_code: str
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Variants that run alike; `ran` is how they were checked.

    `places` are (where, operators), the accelerator first, `kinds` (operator, times).
    """

    ids: tuple[str, ...]
    ran: str
    places: tuple[tuple[str, int], ...]
    kinds: tuple[tuple[str, int], ...]
    kept: tuple[Kept, ...]
    note: str = ""

    @property
    def total(self) -> int:
        """All operators."""
        return sum(count for _, count in self.places)


def coverage(variant: Variant, facts: Mapping[str, Any]) -> Coverage | None:
    """What `facts` of a target say about one variant; None when they count nothing."""
    kinds = _kinds(facts.get("ops", {}))
    own = facts.get("coverage", {})
    places = tuple((str(name), int(count)) for name, count in own.get("places", {}).items())
    kept = [_kept(item) for item in own.get("refused", ())]
    note = str(own.get("note", ""))
    if not places and "accelerated_nodes" in facts:
        places, kept, note = _tidl(facts)
    if not places and kinds:
        places = ((_whole(variant), sum(count for _, count in kinds)),)
    if "accelerated_nodes" not in facts:  # its partition has the reasons already
        kept += _float(facts.get("quantization", {}).get("float_ops", {}))
    if not places:
        return None
    return Coverage(
        ids=(variant.id,),
        ran=variant.verification.method,
        places=places,
        kinds=kinds,
        kept=tuple(kept),
        note=note,
    )


def compiled(variant: Variant, facts: Mapping[str, Any]) -> Coverage | None:
    """The file that Vela made beside the variant's own, by Vela's counts; nothing here can run it."""
    vela = facts.get("vela", {})
    if vela.get("npu_ops") is None:
        return None
    kept = (Kept(op=str(op), count=0, reason_code="not_on_npu") for op in vela.get("on_cpu", ()))
    return Coverage(
        ids=(f"{variant.id}: {vela.get('file', 'the file of Vela')}",),
        ran="prepared",
        places=(("Ethos-U", int(vela["npu_ops"])), ("CPU", int(vela["cpu_ops"] or 0))),
        kinds=(),
        kept=tuple(kept),
        note=f"by Vela {vela.get('version', '')}'s own count",
    )


def _tidl(facts: Mapping[str, Any]) -> tuple[tuple[tuple[str, int], ...], list[Kept], str]:
    """Places, refused nodes and the note of a TIDL bundle."""
    done, total = int(facts["accelerated_nodes"]), int(facts["op_count"])
    soc, parts = facts.get("soc", "TIDL"), int(facts.get("subgraphs", 1))
    places = ((f"the accelerator of {soc}", done), ("Arm cores", total - done))
    how = "compiled by TI's tools" if facts.get("compiled") else "edgekit's partition, not TI's"
    kept = [_kept(item) for item in facts.get("arm", ())]
    return places, kept, f"{parts} subgraph{'s' * (parts != 1)}, {how}"


def together(found: Iterable[Coverage]) -> list[Coverage]:
    """Those that differ in their names alone as one."""
    merged: dict[Coverage, list[str]] = {}
    for item in found:
        merged.setdefault(replace(item, ids=()), []).extend(item.ids)
    return [replace(item, ids=tuple(ids)) for item, ids in merged.items()]


def _whole(variant: Variant) -> str:
    """What takes the whole graph."""
    check, runtime = variant.verification, variant.requires.runtime
    if check.method == "executed":
        return f"{check.runtime} ({check.backend})" if check.backend else str(check.runtime)
    return f"{runtime}, whose choice of processor was not seen"


def _kinds(ops: Mapping[str, int] | Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Operators by how often they occur; quantize and dequantize nodes of ONNX are no work."""
    if not isinstance(ops, Mapping):
        ops = {name: list(ops).count(name) for name in ops}
    found = [(str(name), int(count)) for name, count in ops.items() if name not in _PLUMBING]
    return tuple(sorted(found, key=lambda item: (-item[1], item[0])))


def _kept(item: Mapping[str, Any]) -> Kept:
    return Kept(
        op=str(item.get("op") or item.get("name") or "?"),
        count=int(item.get("count", 1)),
        reason_code=str(item.get("reason_code", "refused")),
        detail=str(item.get("detail", "")),
        remedy=str(item.get("remedy", "")),
    )


def _float(nodes: Mapping[str, str]) -> list[Kept]:
    """What the quantizer left in float: by node ``<op>: <reason code>``."""
    counts = Counter(str(said) for said in nodes.values())
    return [
        Kept(
            op=f"{said.partition(':')[0]} stays in float",
            count=count,
            reason_code=said.partition(": ")[2] or "float",
        )
        for said, count in sorted(counts.items())
    ]
