"""The whole conversion: plan, shared stages, every variant, measurements, package. See `convert`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgekit.errors import EdgekitError, UsageError
from edgekit.package import Refusal
from edgekit.profile import Profile, load_profile
from edgekit_converters.budget.terms import read_budget
from edgekit_converters.engine.assemble import write_package
from edgekit_converters.engine.cache import Cache
from edgekit_converters.engine.deployment import check_deployable, deployed, left_out
from edgekit_converters.engine.fits import over_budget
from edgekit_converters.engine.places import without_places
from edgekit_converters.engine.plan import CALIBRATED, Plan, Wanted, make_plan
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.prepare import (
    Context,
    Prepared,
    prepare,
    read_contract,
    with_range_doubts,
    with_ranges,
)
from edgekit_converters.engine.request import Progress, Request, Result, Silent
from edgekit_converters.engine.rescue import check_with_rescue, without_gain
from edgekit_converters.engine.room import with_room, with_room_for_source
from edgekit_converters.engine.search import Search, read_measurements
from edgekit_converters.engine.variants import Checked
from edgekit_converters.errors import storage_error
from edgekit_converters.source import recognise
from edgekit_converters.targets import known_targets, load_target

Outcome = Checked | Refusal
_NAMED = 3
_SEEDS = 2**53 - 1
"""The largest seed that the package's JSON holds exactly."""
"""Layers named when a variant is refused for its accuracy."""


def convert(request: Request, progress: Progress | None = None, pool: Pool | None = None) -> Result:
    """Compile one source into the variants asked for, and write the package folder ``request.out``.

    One failing variant never stops the others: it becomes an entry of ``manifest.refused``. The
    package appears whole or not at all; an older package in its place is replaced only then.

    Args:
        request: what to do.
        progress: is told of the steps.
        pool: warm workers to use, left running; by default own ones, ended with the conversion.

    Raises:
        UsageError: the source, contract, data, profiles or options are wrong; nothing was written.
        StorageError: the disk is full or not writable; an older package is untouched.
    """
    started = time.monotonic()
    chosen = [load_profile(name) for name in dict.fromkeys(request.profiles)]
    profiles = [deployed(item, request.deployment_target) for item in chosen]
    _check_out(request.out)
    _check_options(request, profiles)
    budget = None if request.budget is None else read_budget(request.budget)
    known = read_measurements(request.measurements)
    source = recognise(request.source, trust=request.trust)
    contract = read_contract(request)
    plan = make_plan(
        profiles,
        targets=request.targets,
        precisions=request.precisions or (("all",) if budget else ()),
        installed=known_targets(),
        has_calibration=bool(request.calibration or contract.data.calibration) or source.kind == "tflite",
        compressions=[name for name, on in (("pruned", request.prune), ("clustered", request.cluster)) if on],
    )
    plan = replace(plan, notes=(*left_out(chosen, profiles, request.precisions), *plan.notes))
    with_room_for_source(plan, source)
    try:
        with tempfile.TemporaryDirectory(prefix="edgekit-") as work:
            with nullcontext(pool) if pool is not None else Pool(request.limits) as workers:
                context = Context(
                    request=request,
                    pool=workers,
                    cache=Cache(request.cache, missed=_once(partial(_warm, workers, plan))),
                    work=Path(work),
                    progress=progress or Silent(),
                )
                prepared = prepare(context, contract)
                plan = with_room(plan, prepared.hub)
                ranges = _ranges(context, prepared, plan)
                if isinstance(ranges, Path):
                    prepared = with_range_doubts(prepared, ranges)
                if budget is None:
                    outcomes = _outcomes(context, prepared, plan, ranges)
                else:
                    build = partial(_built, context, prepared, ranges)
                    found = Search(context, prepared, plan, budget, known, build).run()
                    plan, outcomes = found.plan, found.outcomes
            result = write_package(context, prepared, plan, outcomes, seconds=time.monotonic() - started)
            context.cache.prune()
            return result
    except OSError as error:
        raise storage_error(
            error, str(request.out), "conversion stopped", "look at the named file"
        ) from error


def _built(
    context: Context, prepared: Prepared, ranges: Path | EdgekitError | None, plan: Plan
) -> Mapping[str, Outcome]:
    return _outcomes(context, prepared, plan, ranges)


def _once(act: Callable[[], None]) -> Callable[[], None]:
    """`act`, only the first time."""
    left = [act]
    return lambda: left.pop()() if left else None


def _warm(pool: Pool, plan: Plan) -> None:
    """Start the workers that will build while the source is read: their imports take seconds."""
    kinds: dict[str, list[str]] = {}
    for name in dict.fromkeys(item.target for item in plan.wanted):
        kinds.setdefault(load_target(name).worker, []).append(name)
    for kind, names in kinds.items():
        pool.warm(kind, names)


def _check_options(request: Request, profiles: Sequence[Profile]) -> None:
    """What is given has something to act on, and numbers are what they can be."""
    if request.finetune is not None:
        from edgekit_converters.quantize.finetune import split

        if not request.prune:
            raise UsageError(
                "there is nothing to finetune", where="--finetune", remedy="give --prune with it"
            )
        split(request.finetune)
    if request.measurements and request.budget is None:
        raise UsageError(
            "nothing is chosen by them",
            where="--measurements",
            remedy="give --budget with it, or leave it out",
        )
    if request.deployment_target is not None:
        check_deployable(profiles, request.targets)
    if not 0 <= request.seed <= _SEEDS:
        raise UsageError(f"{request.seed} is no seed", where="--seed", remedy=f"0 to {_SEEDS}")
    for name, limit in (("time", request.limits.seconds), ("memory", request.limits.memory_mb)):
        if not limit > 0:
            raise UsageError(f"{limit:g} is no limit", where=f"--{name}-limit", remedy="more than 0")


def _check_out(out: Path) -> None:
    """An existing folder may only be replaced when it is a package."""
    if out.is_dir() and any(out.iterdir()) and not (out / "package.json").is_file():
        raise UsageError(
            "the folder is not empty and holds no package",
            where=str(out),
            remedy="give a new folder to --out",
            code="out_not_empty",
        )
    if out.exists() and not out.is_dir():
        raise UsageError(
            "a file is in the way", where=str(out), remedy="give a new folder to --out", code="out_not_empty"
        )


def _ranges(context: Context, prepared: Prepared, plan: Plan) -> Path | EdgekitError | None:
    """The stored calibration where something needs it, or why there is none."""
    if not any(item.precision in CALIBRATED for item in plan.wanted):
        return None
    context.progress.step("calibration", "measuring ranges")
    try:
        return with_ranges(context, prepared)
    except EdgekitError as error:
        return error
    finally:
        context.progress.step("calibration", "done")


def _outcomes(
    context: Context, prepared: Prepared, plan: Plan, ranges: Path | EdgekitError | None
) -> Mapping[str, Outcome]:
    """By variant id; variants that share an artifact are built once."""
    groups: dict[tuple[str, ...], list[Wanted]] = {}
    for wanted in plan.wanted:
        groups.setdefault(wanted.build_key, []).append(wanted)

    def one(group: list[Wanted]) -> Outcome | EdgekitError:
        first = group[0]
        try:
            return check_with_rescue(context, prepared, first, ranges)
        except EdgekitError as error:
            if error.code == "disk_full":
                return error
            return _refusal(first, error, (context.work, context.request.cache))

    with ThreadPoolExecutor(max_workers=4) as executor:
        results = list(executor.map(one, groups.values()))
    found: dict[str, Outcome] = {}
    for group, result in zip(groups.values(), results, strict=True):
        if isinstance(result, EdgekitError):
            raise result
        if isinstance(result, Checked):
            # After all builds, so that nothing else runs while it is measured.
            result = without_gain(context, prepared, group[0], result) or result
        for wanted in group:
            found[wanted.id] = _of(wanted, result, context.request.allow_breach)
            context.progress.step(wanted.id, "done")
    return found


def _of(wanted: Wanted, result: Outcome, allow_breach: bool) -> Outcome:
    if isinstance(result, Refusal):
        return Refusal(
            id=wanted.id, reason_code=result.reason_code, detail=result.detail, remedy=result.remedy
        )
    if result.verdict.verdict == "breach" and not allow_breach:
        return Refusal(
            id=wanted.id,
            reason_code="accuracy_breach",
            detail=result.verdict.why + _culprits(result),
            remedy="use a finer precision or better calibration data, or ship it with --allow-breach",
        )
    return over_budget(wanted, result.built.requires) or result


def _culprits(result: Checked) -> str:
    """The layers that add most noise, by the quantizer's own analysis; empty for what was not quantized."""
    layers = result.built.facts.get("quantization", {}).get("layers", [])
    worst = sorted(layers, key=lambda item: float(item["added"]), reverse=True)[:_NAMED]
    if not worst:
        return ""
    named = ", ".join(f"{item['name']} ({item['op']}, {item['snr']:.1f} dB after it)" for item in worst)
    return f"; most noise is added by {named}"


def _refusal(wanted: Wanted, error: EdgekitError, places: Sequence[Path]) -> Refusal:
    detail = without_places(f"{error.where}: {error.message}" if error.where else error.message, places)
    remedy = error.remedy or "try another precision or target; the other variants are not affected"
    return Refusal(id=wanted.id, reason_code=error.code, detail=detail, remedy=remedy)
