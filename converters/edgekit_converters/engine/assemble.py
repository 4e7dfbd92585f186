"""Writing the package folder: files, manifest, measurements; whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json, sha256_file
from edgekit.errors import EdgekitError
from edgekit.package import (
    File,
    Manifest,
    Probe,
    Reference,
    Refusal,
    Variant,
    Verification,
    load_package,
    variant_digest,
)
from edgekit.profile import load_profile, match_profiles
from edgekit.rules import load_rules
from edgekit_converters.engine.figures import measured
from edgekit_converters.engine.plan import Plan, Wanted
from edgekit_converters.engine.prepare import Context, Prepared
from edgekit_converters.engine.request import Result
from edgekit_converters.engine.rescue import rescue_notes
from edgekit_converters.engine.variants import Checked
from edgekit_converters.errors import storage_error
from edgekit_converters.npz import save_arrays
from edgekit_converters.report.sbom import bill_of_materials
from edgekit_converters.report.write import write_report
from edgekit_converters.targets import load_target
from edgekit_converters.tools import tool_versions
from edgekit_converters.verify.distributions import reference
from edgekit_converters.verify.verdict import digits


def write_package(
    context: Context,
    prepared: Prepared,
    plan: Plan,
    outcomes: Mapping[str, Checked | Refusal],
    *,
    seconds: float,
) -> Result:
    """Assemble beside ``request.out`` and swap it in; beside an older package if no variant was shipped.

    Raises:
        StorageError: the disk is full or not writable; what was there is untouched.
    """
    out = context.request.out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise storage_error(
            error, str(out), "the package cannot be written", "choose another --out"
        ) from error
    try:
        work.chmod(0o755)
        variants = [
            _variant(work, prepared, wanted, found)
            for wanted in plan.wanted
            if isinstance(found := outcomes[wanted.id], Checked)
        ]
        refused = [item for item in outcomes.values() if isinstance(item, Refusal)]
        manifest = _manifest(context, prepared, plan, tuple(variants), (*plan.refused, *refused))
        (work / "package.json").write_bytes(manifest.to_bytes())
        measurements = _measurements(context, prepared, plan, outcomes, manifest, seconds)
        (work / "measurements.json").write_bytes(canonical_json(measurements))
        report = write_report(
            work / "report", manifest, measurements, _facts(context, prepared, plan, outcomes)
        )
        (work / "report" / "sbom.cdx.json").write_bytes(canonical_json(bill_of_materials(manifest)))
        load_package(work)
        place = out if variants else _spared(out)
        _swap(work, place)
    except OSError as error:
        raise storage_error(
            error, str(out), "the package cannot be written", "choose another --out"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Result(manifest=manifest, place=place, measurements=measurements, report=report)


def _variant(work: Path, prepared: Prepared, wanted: Wanted, checked: Checked) -> Variant:
    folder = work / "variants" / wanted.id
    shutil.copytree(checked.folder, folder)
    files = tuple(_file(work, path) for path in sorted(folder.rglob("*")) if path.is_file())
    requires = replace(checked.built.requires, machines=wanted.profile.match.machines)
    if load_target(wanted.target, wanted.runtime).runtime != load_target(wanted.target).runtime:
        least = wanted.profile.runtimes[wanted.runtime].minimum
        requires = replace(requires, runtime=wanted.runtime, min_runtime=least)
    return Variant(
        id=wanted.id,
        digest=variant_digest(wanted.id, files),
        profile=wanted.profile.name,
        target=wanted.target,
        precision=wanted.precision,
        files=files,
        requires=requires,
        inputs=checked.built.inputs,
        outputs=checked.built.outputs,
        verification=_verification(prepared, wanted, checked),
        probe=_probe(work, wanted, checked),
        route=checked.built.route,
    )


def _verification(prepared: Prepared, wanted: Wanted, checked: Checked) -> Verification:
    verdict, ran = checked.verdict, checked.executed
    if ran is None:
        return Verification(
            method="prepared", verdict=verdict.verdict, reasons=verdict.reasons, metrics={"why": verdict.why}
        )
    return Verification(
        method=ran["method"],
        verdict=verdict.verdict,
        runtime=ran["runtime"],
        runtime_version=ran["version"],
        backend=ran["backend"],
        machine=platform.machine(),
        on_target=ran["method"] == "executed" and wanted.profile.name in _host_profiles(),
        n=len(ran["samples"]) if "samples" in ran else prepared.samples.n,
        metrics={**verdict.metrics, **ran.get("metrics", {}), "why": verdict.why},
        reasons=(*verdict.reasons, *(("fewer_samples",) if "samples" in ran else ())),
    )


def _probe(work: Path, wanted: Wanted, checked: Checked) -> Probe | None:
    probes = checked.probes
    if probes is None:
        return None
    path = work / "probes" / f"{wanted.id}.npz"
    path.parent.mkdir(exist_ok=True)
    save_arrays(path, probes.arrays, compress=True)
    return Probe(
        file=_file(work, path), n=probes.n, atol=probes.atol, argmax_agreement=probes.argmax_agreement
    )


def _file(work: Path, path: Path) -> File:
    size = path.stat().st_size
    return File(path=path.relative_to(work).as_posix(), sha256=sha256_file(path), bytes=size)


def _manifest(
    context: Context,
    prepared: Prepared,
    plan: Plan,
    variants: tuple[Variant, ...],
    refused: tuple[Refusal, ...],
) -> Manifest:
    contract = prepared.resolved.contract
    distributions = Reference()
    if prepared.origin != "synthetic":
        distributions = reference(
            prepared.samples.inputs, prepared.reference, contract.outputs, contract.drift_bins
        )
    used = {wanted.profile.name: wanted.profile for wanted in plan.wanted}
    rules = {
        target.rules
        for wanted in plan.wanted
        for target in wanted.profile.targets
        if target.name == wanted.target
    }
    assert contract.name is not None
    assert contract.version is not None
    source = prepared.source
    data = {"origin": prepared.origin, "evaluation": prepared.samples.digest, "n": prepared.samples.n}
    if prepared.calibration is not None:
        data |= {"calibration": prepared.calibration.digest, "calibration_n": prepared.calibration.n}
    return Manifest(
        name=contract.name,
        version=contract.version,
        source={
            "kind": source.kind,
            "name": Path(source.path).name,
            "sha256": source.digest,
            "bytes": source.bytes,
            "framework": prepared.resolved.signature.framework,
            "data": data,
        },
        contract=_portable(contract.to_dict()),
        variants=variants,
        refused=refused,
        reference=distributions,
        profiles={
            **{name: profile.digest for name, profile in used.items()},
            **{f"rules/{name}": load_rules(name).digest for name in sorted(rules)},
        },
        tools=tool_versions(),
        seed=context.request.seed,
    )


def _portable(contract: dict[str, Any]) -> dict[str, Any]:
    """Data files by name only: where they lay on this machine is nobody's business."""
    data = {key: Path(value).name for key, value in contract.get("data", {}).items()}
    return {**contract, "data": data} if data else contract


def _measurements(
    context: Context,
    prepared: Prepared,
    plan: Plan,
    outcomes: Mapping[str, Checked | Refusal],
    manifest: Manifest,
    seconds: float,
) -> dict[str, Any]:
    """Host figures per variant, naming the package they belong to; one artifact is measured once."""
    known: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for wanted in plan.wanted:
        found = outcomes[wanted.id]
        if not isinstance(found, Checked):
            continue
        key = f"{found.key} {wanted.runtime}"
        if key not in known:
            context.progress.step(wanted.id, "measuring")
            known[key] = measured(context, prepared, wanted, found)
            context.progress.step(wanted.id, "done")
        size = _size(found, manifest.variant(wanted.id).size)
        figures[wanted.id] = {**size, **(known[key] or {})}
    return {
        "package": manifest.digest,
        "ref": manifest.ref,
        "host": {
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 2),
        "source_bytes": prepared.source.bytes,
        "variants": figures,
    }


def _size(checked: Checked, files: int) -> dict[str, int]:
    """Bytes of the model: all files, unless the target says which of them the model is; and of its arena."""
    facts = checked.built.facts
    arena = {"arena_bytes": facts["arena"]["needed"]} if facts.get("arena") else {}
    return {"size_bytes": facts.get("model_bytes", files), **arena}


def _facts(
    context: Context, prepared: Prepared, plan: Plan, outcomes: Mapping[str, Checked | Refusal]
) -> dict[str, Any]:
    """What only the report shows: routes, counted facts, warnings, how to do it again."""
    variants = {}
    for wanted in plan.wanted:
        found = outcomes[wanted.id]
        if isinstance(found, Checked):
            decisive = next((item for item in found.figures if item.decides), None)
            slices = {name: drop for name, (_, drop, _) in decisive.slices.items()} if decisive else {}
            variants[wanted.id] = {
                "main": found.built.main,
                "facts": dict(found.built.facts),
                "why": found.verdict.why,
                "kernel_sets": list(found.executed["kernel_sets"]) if found.executed else [],
                "slices": {name: digits(value) for name, value in slices.items()},
                "evidence": dict(found.evidence),
            }
    hub = prepared.hub
    return {
        "variants": variants,
        "boards": {
            profile.name: {
                "title": profile.title,
                "limits": list(profile.limits),
                "accelerators": [asdict(item) for item in profile.accelerators],
            }
            for profile in map(load_profile, context.request.profiles)
        },
        "warnings": list(prepared.warnings),
        "notes": [*plan.notes, *rescue_notes(plan, outcomes)],
        "origin": prepared.origin,
        "hub": dict(hub.facts or {}) if hub.path else {"problem": str(hub.problem)},
        "command": context.request.command,
        "search": dict(plan.search) if plan.search else None,
        "source": asdict(prepared.source) | {"path": Path(prepared.source.path).name},
    }


def _host_profiles() -> tuple[str, ...]:
    """Profiles of this very machine."""
    from types import SimpleNamespace

    versions = tool_versions()
    runtimes = {name: versions[name] for name in ("litert", "onnxruntime") if name in versions}
    board = Path("/proc/device-tree/model")
    model = None
    with contextlib.suppress(OSError):
        model = board.read_text(encoding="utf-8", errors="replace").rstrip("\0") or None
    facts = SimpleNamespace(machine=platform.machine(), model=model, runtimes=runtimes)
    return match_profiles(facts)


def _spared(out: Path) -> Path:
    """Where a package without variants goes: an older one that has some is not lost for it."""
    try:
        older = load_package(out).variants
    except EdgekitError:
        return out
    if not older:
        return out
    names = (f"{out.name}.refused{number or ''}" for number in itertools.count())
    return next(place for place in map(out.with_name, names) if _is_ours(place))


def _is_ours(place: Path) -> bool:
    """Whether a package may be put there: nothing is, or an earlier one."""
    return not place.exists() or (place / "package.json").is_file()


def _swap(work: Path, out: Path) -> None:
    """Put the finished folder in place; an older package goes only when the new one is there."""
    if not out.exists() or not any(out.iterdir()):
        if out.exists():
            out.rmdir()
        work.rename(out)
        return
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    try:
        work.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
