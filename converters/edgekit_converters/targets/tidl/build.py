"""One bundle, from job to files: rewrite, prove, cut, quantize, cut again, write; compile with TI's tools.

A node's place is decided twice: first by the limits, so that quantization leaves the others float; then also
by what quantization left float, because nothing is computed in float on the accelerator. So the
emulation has integers exactly where the bundle says that the accelerator computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgekit.package import Requirements
from edgekit.rules import load_rules
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays
from edgekit_converters.quantize import statistics
from edgekit_converters.quantize.pipeline import GOAL, for_target
from edgekit_converters.quantize.running import serialize
from edgekit_converters.targets.tidl import bundle, graphs, tools, unquantize
from edgekit_converters.targets.tidl.checks import Known
from edgekit_converters.targets.tidl.made import Made
from edgekit_converters.targets.tidl.partition import LAYOUT, Partition, Refused, partition
from edgekit_converters.targets.tidl.session import EMULATION
from edgekit_converters.targets.tidl.soc import Soc, soc
from edgekit_converters.values import EXACT, Built, Job

RULES = "tidl-am68a-11.0"
_PROVED = 16
MAIN = "model/model.onnx"


def build(job: Job, folder: Path) -> Built:
    """See `TidlTarget.build`."""
    made = _made(job)
    (folder / EMULATION).parent.mkdir(parents=True)
    (folder / EMULATION).write_bytes(serialize(made.emulation))
    bundle.write(folder, job, made)
    compiled = _compiled(folder, made)
    facts = _facts(made, compiled)
    return Built(
        main=MAIN,
        inputs=job.inputs,
        outputs=job.outputs,
        requires=Requirements(runtime="tidl", min_runtime="6.0" if made.soc.legacy else "11.0"),
        route=f"{job.source.kind} > hub > TIDL bundle ({'compiled' if compiled else 'not compiled'})",
        facts=facts,
        tools={"onnxruntime": version("onnxruntime")},
    )


def _made(job: Job) -> Made:
    if job.calibration is None or job.ranges is None:
        raise Refusal(
            "a TIDL bundle needs calibration data",
            remedy="give --calibration FILE.npz with 20 or more real samples",
            code="needs_calibration",
        )
    rules, board = load_rules(job.rules or RULES), soc(str(job.options.get("soc", "am68a")))
    samples = load_arrays(Path(job.calibration))
    work, rewrites = graphs.working(Path(job.hub), rules, board)
    proto = graphs.delivered(work)
    data = proto.SerializeToString(deterministic=True)
    stepped = any(node.op_type == "QuantizeLinear" for node in ir.load(job.hub).graph)
    few = {name: item[:_PROVED] for name, item in samples.items()}
    gap = graphs.proof(Path(job.hub), data, few, allowed=unquantize.STEPS if stepped else EXACT)
    known = _known(Path(job.ranges))
    first = partition(work.graph, rules, known, _outside(work, board))
    if not first.subgraphs:
        raise Refusal(
            f"{board.title} takes no node of this model",
            remedy="use the profile's other variant, on the Arm cores",
            code="nothing_accelerated",
        )
    emulation, facts = for_target(
        work,
        Path(job.ranges),
        rules,
        job.precision,
        samples=Path(job.calibration),
        goal=float(job.options.get("snr_db", GOAL)),
        floats=frozenset(first.refused),
    )
    away = {**first.refused, **_left_float(first, facts.get("float_ops", {}))}
    return Made(
        soc=board,
        rules=rules,
        work=work,
        onnx=data,
        names=tuple(node.name for node in proto.graph.node),
        emulation=emulation,
        cut=partition(work.graph, rules, known, away),
        rewrites=rewrites,
        quantization=facts,
        samples=samples,
        gap=gap,
    )


def _known(path: Path) -> Known:
    found = statistics.load(path).tensors
    return Known(ranges={name: (item.low, item.high) for name, item in found.items()})


def _outside(work: ir.Model, board: Soc) -> dict[str, Refused]:
    """What is no part of the accelerator's network: integer ports, and the layout before a legacy network."""
    port = Refused(
        reason_code="integer_port",
        detail="the model's own input or output is of integers, which are converted outside",
        remedy="convert the float model",
    )
    ports = dict.fromkeys(unquantize.port_conversions(work), port)
    if not board.legacy:
        return ports
    why = Refused(
        reason_code=LAYOUT,
        detail="the network of the import file starts behind it",
        remedy="feed it planar images: channels, then rows",
    )
    return {**ports, **dict.fromkeys(graphs.leading_layout(work), why)}


def _left_float(cut: Partition, float_ops: Mapping[str, str]) -> dict[str, Refused]:
    """Nodes that the accelerator would take, but that the emulation computes in float."""
    return {
        name: Refused(
            reason_code="kept_in_float",
            detail=f"quantization leaves it float ({why.rpartition(': ')[2]})",
            remedy="it runs on the Arm cores; no accuracy is claimed for it on the accelerator",
        )
        for name, why in float_ops.items()
        if name in cut.ops and name not in cut.refused
    }


def _compiled(folder: Path, made: Made) -> Mapping[str, Any] | None:
    """What TI's tools made, where they are installed; None without them."""
    found = tools.find()
    if found is None or made.soc.legacy:
        return None
    compiled = tools.compile_bundle(found, folder, most=len(made.cut.subgraphs))
    return {**compiled, "host_difference": tools.host_difference(folder)}


def _notes(made: Made, compiled: Mapping[str, Any] | None) -> list[str]:
    """What the user is told at the end of a run."""
    count, total = len(made.cut.subgraphs), len(made.cut.ops)
    told = f"{total - len(made.cut.refused)} of {total} nodes run on the accelerator of {made.soc.title}, in "
    told += f"{count} subgraph{'' if count == 1 else 's'}; "
    if compiled:
        return [f"{told}compiled by TI's tools", *compiled["doubts"]]
    how = "compile/compile.py runs TI's tools"
    if made.soc.legacy:
        how = f"its import tool takes {'compile/import.txt' if made.cut.whole else 'whole networks only'}"
    notes = [f"{told}emulated, not compiled: {how}"]
    return [*notes, *bundle.doubts(made.samples, made.soc)]


def _facts(made: Made, compiled: Mapping[str, Any] | None) -> dict[str, Any]:
    cut = made.cut.to_dict()
    return {
        "soc": made.soc.title,
        "label": "emulated, compiled" if compiled else "emulated, not compiled",
        "compiled": compiled is not None,
        **({"compilation": compiled} if compiled else {}),
        "op_count": cut["nodes"],
        "accelerated_nodes": cut["accelerated_nodes"],
        "subgraphs": len(made.cut.subgraphs),
        "share_of_multiplications": cut["share_of_multiplications"],
        "arm": cut["arm"],
        "rewrites": dict(made.rewrites),
        "rewrite_error": float(f"{made.gap:.2g}"),
        "layers_16_bit": made.wide,
        "calibration_frames": bundle.frame_count(made.samples),
        "notes": _notes(made, compiled),
        "quantization": dict(made.quantization),
    }
