"""One variant from job to judgement: build, execute, judge. A failure is a refusal, never a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.digest import digest_of, sha256_file
from edgekit.errors import EdgekitError
from edgekit_converters.engine.compress import FORMS, compressed
from edgekit_converters.engine.plan import CALIBRATED, Wanted
from edgekit_converters.engine.prepare import Context, Prepared, calibration_file
from edgekit_converters.npz import load_arrays
from edgekit_converters.sidecars.tools import remedy
from edgekit_converters.targets import load_target, routes_of
from edgekit_converters.targets.routes import Route
from edgekit_converters.tools import tool_versions
from edgekit_converters.values import Built, Job
from edgekit_converters.verify.compare import OutputError
from edgekit_converters.verify.evidence import evidence
from edgekit_converters.verify.probes import Probes, make_probes
from edgekit_converters.verify.tasks import Judged
from edgekit_converters.verify.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A built and judged artifact; `executed` is what ran it, None when nothing could."""

    key: str
    folder: Path
    built: Built
    executed: Mapping[str, Any] | None
    verdict: Verdict
    probes: Probes | None
    figures: tuple[Judged, ...]
    evidence: Mapping[str, Any]
    errors: Mapping[str, OutputError]


def check_variant(
    context: Context, prepared: Prepared, wanted: Wanted, ranges: Path | EdgekitError | None
) -> Checked:
    """Build, execute and judge one artifact by the target's routes in turn, until one passes.

    `ranges` is the stored calibration of the hub, or why there is none.

    Raises:
        EdgekitError: no route builds and runs it; the first one's error, `code` is the reason.
    """
    tried: list[dict[str, str]] = []
    first: EdgekitError | None = None
    breach: Checked | None = None
    for route in routes_of(load_target(wanted.target), prepared.source.kind, wanted.precision):
        try:
            checked = _check_route(context, prepared, wanted, ranges, route)
        except EdgekitError as error:
            if error.code == "disk_full":
                raise
            first = first or error
            tried.append({"route": route.name, "code": error.code, "message": str(error)[:300]})
            continue
        if checked.verdict.verdict != "breach":
            return _with_tried(checked, tried)
        breach = breach or checked
        tried.append({"route": route.name, "code": "accuracy_breach", "message": checked.verdict.why})
    if breach is not None:
        return _with_tried(breach, [item for item in tried if item["code"] != "accuracy_breach"])
    assert first is not None
    raise first


def _with_tried(checked: Checked, tried: list[dict[str, str]]) -> Checked:
    """`checked` with the routes that were refused before it among its facts."""
    if not tried:
        return checked
    facts = {**checked.built.facts, "refused_routes": tried}
    return replace(checked, built=replace(checked.built, facts=facts))


def _check_route(
    context: Context, prepared: Prepared, wanted: Wanted, ranges: Path | EdgekitError | None, route: Route
) -> Checked:
    target = load_target(wanted.target, wanted.runtime)
    name = wanted.id
    if prepared.hub.problem is not None and route.needs_hub:
        raise prepared.hub.problem
    if isinstance(ranges, EdgekitError):
        if route.needs_hub and wanted.precision in CALIBRATED:
            raise ranges
        ranges = None
    context.progress.step(name, "building")
    key, folder, built = _build(context, prepared, wanted, ranges, route)
    context.progress.step(name, "running")
    ran = _execute(context, prepared, wanted, key, folder, built) if target.kernel_sets else None
    if ran is None:
        verdict = Verdict(
            verdict="unverified",
            why=f"prepared: nothing here can run it{remedy(target)}",
            reasons=("not_executed",),
        )
        return Checked(
            key=key,
            folder=folder,
            built=built,
            executed=None,
            verdict=verdict,
            probes=None,
            figures=(),
            evidence={},
            errors={},
        )
    executed, arrays = ran
    context.progress.step(name, "judging")
    return _judged(
        prepared,
        wanted,
        Checked(
            key=key,
            folder=folder,
            built=built,
            executed=executed,
            verdict=Verdict(verdict="unverified", why=""),
            probes=None,
            figures=(),
            evidence={},
            errors={},
        ),
        arrays,
    )


def _build(
    context: Context, prepared: Prepared, wanted: Wanted, ranges: Path | None, route: Route
) -> tuple[str, Path, Built]:
    calibrated = wanted.precision in CALIBRATED
    sampled = calibrated or "samples" in _wishes(wanted)
    hub: Path | None = prepared.hub.path
    done: Mapping[str, Any] = {}
    if wanted.precision in FORMS:
        context.progress.step(wanted.id, "searching")
        hub, done = compressed(context, prepared, wanted.precision, wanted.rules)
    job = Job(
        target=wanted.target,
        precision=wanted.precision,
        source=prepared.source,
        hub=str(hub or ""),
        inputs=prepared.resolved.inputs,
        outputs=prepared.resolved.outputs,
        options={**wanted.options, **({"route": route.name} if route.name else {})},
        contract=_ports(prepared, wanted),
        calibration=str(calibration_file(context)) if sampled and prepared.calibration else None,
        ranges=str(ranges) if calibrated and ranges else None,
        rules=wanted.rules,
        seed=context.request.seed,
    )

    def run(folder: Path) -> Any:
        return context.pool.run(route.worker, "build", {"job": job.to_dict(), "folder": str(folder)})

    paths = {
        "source": prepared.source.digest,
        "hub": sha256_file(hub) if hub else "",
        "calibration": None,
        "ranges": None,
    }
    key = {
        "job": {**job.to_dict(), **paths},
        "data": prepared.calibration.digest if sampled and prepared.calibration else "",
        "tools": dict(tool_versions()),
        **({"foreign": foreign} if (foreign := _foreign(wanted)) else {}),
    }
    stage = context.cache.stage("build", key, run)
    built = Built.from_dict(stage.value)
    if done:
        built = replace(built, facts={**built.facts, "compression": done})
    return stage.key, stage.folder, built


def _wishes(wanted: Wanted) -> tuple[str, ...]:
    """What the target wants in its jobs beyond the usual: ``samples`` (also for floats), ``contract``."""
    found: tuple[str, ...] = getattr(load_target(wanted.target), "wishes", ())
    return found


def _foreign(wanted: Wanted) -> dict[str, str]:
    """Versions of tools outside this environment that have a say in what the target builds."""
    named = getattr(load_target(wanted.target), "foreign", None)
    return {} if named is None else dict(named())


def _ports(prepared: Prepared, wanted: Wanted) -> Mapping[str, Any]:
    """What the contract says about itself, inputs and outputs, for artifacts that show it to their users."""
    asked = wanted.options.get("image_inputs") or wanted.options.get("class_labels")
    if not asked and "contract" not in _wishes(wanted):
        return {}
    contract = prepared.resolved.contract
    return {
        **({} if asked else {"name": contract.name, "version": contract.version}),
        "inputs": [asdict(item) for item in contract.inputs],
        "outputs": [asdict(item) for item in contract.outputs],
    }


def _execute(
    context: Context, prepared: Prepared, wanted: Wanted, key: str, folder: Path, built: Built
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """What ran and its outputs; None where the target could run this artifact on no release that is here."""
    target = load_target(wanted.target, wanted.runtime)

    def run(place: Path) -> Any:
        args = {
            "target": wanted.target,
            "runtime": wanted.runtime,
            "folder": str(folder),
            "artifact": built.to_dict(),
            "data": str(prepared.data),
            "out": str(place / "outputs.npz"),
        }
        worker = "plain" if target.method == "executed" else target.worker
        return context.pool.run(worker, "execute", args)

    import platform

    inputs = {
        "build": key,
        "data": prepared.samples.digest,
        "machine": platform.machine(),
        "runtime": [target.runtime, target.version()],
    }
    stage = context.cache.stage("execute", {**inputs, "host": digest_of(dict(tool_versions()))}, run)
    return None if stage.value is None else (stage.value, load_arrays(stage.folder / "outputs.npz"))


def _judged(prepared: Prepared, wanted: Wanted, checked: Checked, arrays: Mapping[str, Any]) -> Checked:
    classifier, activation = prepared.resolved.classifier, prepared.resolved.activation
    outputs = {port.name: arrays[port.name] for port in checked.built.outputs}
    if checked.executed and "samples" in checked.executed:  # a slow runtime ran some of them
        prepared = prepared.at(checked.executed["samples"])
    judge = prepared.yardstick
    errors, figures = judge.errors(outputs), judge.figures(outputs)
    verdict = judge.verdict(wanted.precision, errors, figures)
    probes = make_probes(
        inputs=prepared.samples.inputs,
        outputs=outputs,
        spreads={name: arrays[f"spread:{name}"] for name in outputs},
        ports=checked.built.outputs,
        precision=judge.precision(wanted.precision),
        classifier=classifier,
        activation=activation,
    )
    shown = evidence(prepared.resolved.judged, prepared.reference, outputs, judge.labels)
    return replace(checked, verdict=verdict, probes=probes, figures=figures, errors=errors, evidence=shown)


def artifact_json(checked: Checked) -> str:
    """The artifact as `engine.measure` reads it."""
    return json.dumps(checked.built.to_dict())


__all__ = ["Checked", "artifact_json", "check_variant"]
