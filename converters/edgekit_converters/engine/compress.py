"""Pruned and clustered variants: the hub's weights made sparse or few-valued, as far as the verdict accepts.

`searched` runs in a worker and asks the verdict itself (`engine.yardstick`) about each candidate, on the
evaluation data in onnxruntime; `compressed` is the engine's side: one cached stage a form, whose result is a
hub graph that the target builds like any other. Whether a runtime gains anything from zeros or from palettes
is said by its rules (`compression`); where it does not, the plan has refused the variant before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.digest import sha256_file
from edgekit.rules import load_rules
from edgekit_converters.engine.plan import FORMS
from edgekit_converters.engine.prepare import Context, Prepared, calibration_file
from edgekit_converters.errors import ToolFailed
from edgekit_converters.npz import load_arrays, save_arrays


def compressed(
    context: Context, prepared: Prepared, precision: str, rules: str
) -> tuple[Path, Mapping[str, Any]]:
    """The hub for `precision`, and what was done to which layer.

    Raises:
        Refusal: no layer bears anything, or the finetuning function gave something impossible.
        ToolFailed: that function failed, or the search took longer than one tool may.
    """
    request, hub = context.request, prepared.hub.path
    assert hub is not None
    finetune = request.finetune if precision == "pruned" else None
    few = calibration_file(context) if prepared.calibration is not None else prepared.data
    facts = prepared.yardstick.save(context.work / "yardstick.npz")
    args: dict[str, Any] = {
        "hub": str(hub),
        "precision": precision,
        "rules": rules,
        "calibration": str(few),
        "data": str(prepared.data),
        "yardstick": {**facts, "arrays": str(context.work / "yardstick.npz")},
        "finetune": finetune,
    }
    if finetune and prepared.calibration is not None and prepared.calibration.labels is not None:
        args["labels"] = str(context.work / "calibration-labels.npz")
        save_arrays(Path(args["labels"]), {"labels": prepared.calibration.labels})

    def run(folder: Path) -> Any:
        # A user's function may want any framework; nothing of it is kept out of its process.
        kind = "user" if finetune else "plain"
        try:
            return context.pool.run(kind, "compress", {**args, "out": str(folder / "hub.onnx")})
        except ToolFailed as error:
            if finetune is None:
                raise
            raise ToolFailed(
                f"the finetuning function failed: {error.message}",
                where=finetune,
                remedy=error.remedy or "see its own message; it takes (model, masks, samples)",
                code="finetune_failed" if error.code == "tool_failed" else error.code,
            ) from error

    key = {
        "hub": prepared.hub.digest,
        "precision": precision,
        "rules": load_rules(rules).digest,
        "calibration": prepared.calibration.digest if prepared.calibration else "",
        "data": prepared.samples.digest,
        "yardstick": {**facts, "where": ""},
        "judge": sha256_file(context.work / "yardstick.npz"),
        "finetune": _code(finetune),
    }
    stage = context.cache.stage("compress", key, run)
    return stage.folder / "hub.onnx", stage.value


def _code(finetune: str | None) -> Mapping[str, str]:
    """What a function's result depends on, as far as it can be seen: its folder's files and its name."""
    if finetune is None:
        return {}
    from edgekit_converters.quantize.finetune import split

    file, function = split(finetune)
    beside = sorted(item for item in file.resolve().parent.glob("*.py") if item.is_file())
    return {"function": function, **{item.name: sha256_file(item) for item in beside}}


def searched(
    hub: str,
    precision: str,
    rules: str,
    calibration: str,
    data: str,
    yardstick: Mapping[str, Any],
    out: str,
    finetune: str | None = None,
    labels: str | None = None,
) -> Mapping[str, Any]:
    """The worker's side: search, write the compressed hub to `out`; facts about what was done."""
    import onnx_ir as ir

    from edgekit_converters.engine.yardstick import Yardstick
    from edgekit_converters.onnx_session import OnnxSession
    from edgekit_converters.quantize import cluster, prune
    from edgekit_converters.quantize import finetune as hook
    from edgekit_converters.quantize.running import serialize

    judge = Yardstick.load(yardstick, Path(yardstick["arrays"]), Path(data))
    tried = 0

    def accepted(candidate: ir.Model) -> bool:
        nonlocal tried
        tried += 1
        outputs = OnnxSession(serialize(candidate), threads=2).run(judge.samples.inputs)
        return judge.accepts(precision, outputs)

    model, samples, found = ir.load(hub), load_arrays(Path(calibration)), load_rules(rules)
    if precision == "clustered":
        clustered = cluster.cluster(model, accepted, found)
        Path(out).write_bytes(serialize(clustered.model))
        return {"form": "palette", "bits": dict(clustered.bits), "tried": tried}
    tune = None
    if finetune is not None:
        function = hook.load(finetune)
        given = {**samples, **(load_arrays(Path(labels)) if labels else {})}

        def tune(candidate: ir.Model, masks: Mapping[str, Any]) -> ir.Model:
            return hook.tuned(candidate, masks, given, function)

    pruned = prune.prune(model, samples, accepted, found, tune=tune)
    Path(out).write_bytes(serialize(pruned.model))
    return {"form": "sparse", "shares": dict(pruned.shares), "finetuned": pruned.tuned, "tried": tried}


__all__ = ["FORMS", "compressed", "searched"]
