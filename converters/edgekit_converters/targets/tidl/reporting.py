"""The partition report: one document for programs, one page for people, the same facts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgekit_converters.targets.tidl.made import Made
from edgekit_converters.targets.tidl.soc import MOST_NODES, MOST_SUBGRAPHS


def document(made: Made) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "schema": 1,
        "soc": made.soc.title,
        "rules": made.rules.name,
        "basis": "edgekit's own check by the published limits; TI's tools may cut the graph otherwise",
        "most_subgraphs": MOST_SUBGRAPHS,
        "most_nodes_a_subgraph": MOST_NODES,
        **made.cut.to_dict(),
        "rewrites": dict(made.rewrites),
        "arithmetic": _arithmetic(made),
    }


def page(made: Made) -> str:
    """The report as Markdown."""
    cut = made.cut
    summary = (
        f"{len(cut.ops) - len(cut.refused)} of {len(cut.ops)} nodes and {100 * cut.share:.1f} % of the "
        f"multiplications on the accelerator, in {len(cut.subgraphs)} "
        f"subgraph{'' if len(cut.subgraphs) == 1 else 's'} (at most {MOST_SUBGRAPHS}). Checked by the "
        f"published limits (rules {made.rules.name}), not by TI's tools."
    )
    lines = [
        f"# What {made.soc.title} runs of this model",
        "",
        summary,
        "",
        *_subgraphs(made),
        *_arm(made),
        *_rewrites(made),
    ]
    if made.soc.legacy and not cut.whole:
        lines += ["The import tool of this SoC takes whole networks only: this one it would refuse.", ""]
    return "\n".join(lines)


def _subgraphs(made: Made) -> list[str]:
    lines = ["| subgraph | nodes | multiplications | from | to |", "| --- | --- | --- | --- | --- |"]
    for index, item in enumerate(made.cut.subgraphs):
        kinds = Counter(made.cut.ops[name] for name in item.nodes)
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines.append(
            f"| {index} | {text} | {item.multiplications} | {_names(item.inputs)} | {_names(item.outputs)} |"
        )
    return [*lines, ""]


def _arm(made: Made) -> list[str]:
    if not made.cut.refused:
        return ["Nothing runs on the Arm cores.", ""]
    lines = [
        "On the Arm cores:",
        "",
        "| node | operator | reason | what is missing | what helps |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{name}` | {made.cut.ops[name]} | {why.reason_code} | {why.detail} | {why.remedy} |"
        for name, why in made.cut.refused.items()
    ]
    return [*lines, ""]


def _rewrites(made: Made) -> list[str]:
    if not made.rewrites:
        return []
    done = ", ".join(f"{name} ({count})" for name, count in made.rewrites.items())
    told = (
        f"Rewritten for the accelerator: {done}. The result differs from the model by {made.gap:.1g} of the "
    )
    return [f"{told}output's range, computed with onnxruntime.", ""]


def _names(items: tuple[str, ...]) -> str:
    return ", ".join(f"`{item}`" for item in items)


def _arithmetic(made: Made) -> dict[str, Any]:
    """What the emulation computed with."""
    rules = made.rules
    rule = rules.rule("Conv")
    assert rule is not None
    return {
        "activations_symmetric": rule.activations_symmetric,
        "inputs_symmetric": rules.inputs_symmetric,
        "weights_per_channel": rule.weights_per_channel,
        "power_of_two": rule.power_of_two,
        "weight_bits": rule.weight_bits or 8,
        "layers_16_bit": made.wide,
    }
