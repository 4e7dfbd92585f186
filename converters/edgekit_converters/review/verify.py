"""`edgekit verify`: every check that a package allows, done again on this machine.

1. every file has the size and sha256 that ``package.json`` names, every variant's digest is its files';
2. profiles and rules are still those the package was made for (a change is told, it is no fault);
3. every variant that something here can run gives its probes' outputs within their tolerance;
4. with the source at hand: the conversion is done anew, and must give the same artifacts and verdicts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.digest import sha256_file
from edgekit.errors import EdgekitError, UsageError
from edgekit.package import Manifest, Variant, parse_manifest, variant_digest
from edgekit.profile import load_profile
from edgekit.rules import load_rules
from edgekit_converters.engine.cache import default_root
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.plan import FORMS
from edgekit_converters.engine.pool import Limits, Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.source import recognise
from edgekit_converters.targets import known_targets, load_target
from edgekit_converters.values import Built
from edgekit_converters.verify.scores import class_scores

OK, FAILED, SKIPPED, CHANGED = "ok", "failed", "skipped", "changed"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at: `result` is ``ok``, ``failed``, ``changed`` (told, no fault) or ``skipped``."""

    check: str
    subject: str
    result: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Review:
    """All checks of one package."""

    package: str
    digest: str
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Whether nothing failed."""
        return all(item.result != FAILED for item in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "good": self.good}


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a conversion done anew needs: the source and the data that were given then."""

    source: Path
    contract: Path | None = None
    calibration: Path | None = None
    validation: Path | None = None
    finetune: str | None = None
    trust: bool = False


def require_package(folder: Path) -> None:
    """Whether `folder` looks like a package at all.

    Raises:
        UsageError: it is no package.
    """
    if not (folder / "package.json").is_file():
        raise UsageError(
            "no package: there is no package.json in it",
            where=str(folder),
            remedy="give the folder that edgekit convert wrote",
            code="no_package",
        )


def verify_package(folder: Path, again: Again | None = None) -> Review:
    """Check the package in `folder`; see the module.

    Raises:
        UsageError: it is no package.
        DocumentError, StorageError: its manifest cannot be read.
    """
    require_package(folder)
    path = folder / "package.json"
    manifest = parse_manifest(_read(path), where=str(path))
    checks = [*_files(folder, manifest), *_described(manifest)]
    if all(item.result == OK for item in checks if item.check == "file"):
        with Pool(Limits()) as pool:
            checks += [_probed(pool, folder, manifest, variant) for variant in manifest.variants]
    if again is not None:
        checks += _again(manifest, again)
    return Review(package=manifest.ref, digest=manifest.digest, checks=tuple(checks))


def _read(path: Path) -> bytes:
    from edgekit.files import read_bytes

    return read_bytes(path)


def _files(folder: Path, manifest: Manifest) -> Iterator[Check]:
    for item in manifest.all_files():
        path = folder / item.path
        if not path.is_file():
            yield Check(check="file", subject=item.path, result=FAILED, detail="missing")
        elif path.stat().st_size != item.bytes or sha256_file(path) != item.sha256:
            yield Check(check="file", subject=item.path, result=FAILED, detail="size or sha256 differs")
        else:
            yield Check(check="file", subject=item.path, result=OK)
    for name in _strangers(folder, manifest):
        yield Check(check="file", subject=name, result=FAILED, detail="not named in package.json")
    for variant in manifest.variants:
        same = variant_digest(variant.id, variant.files) == variant.digest
        detail = "" if same else "the digest is not that of its files"
        yield Check(check="digest", subject=variant.id, result=OK if same else FAILED, detail=detail)


def _strangers(folder: Path, manifest: Manifest) -> list[str]:
    """Files that nothing vouches for. Measurements and report lie outside the digest by design."""
    named = {"package.json", "measurements.json", *(item.path for item in manifest.all_files())}
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(
        path.as_posix() for path in found if path.as_posix() not in named and path.parts[0] != "report"
    )


def _described(manifest: Manifest) -> Iterator[Check]:
    """Profiles and rules against those installed here."""
    for name, digest in manifest.profiles.items():
        try:
            rules = name.startswith("rules/")
            here = load_rules(name.removeprefix("rules/")).digest if rules else load_profile(name).digest
        except EdgekitError as error:
            yield Check(check="profile", subject=name, result=CHANGED, detail=str(error))
            continue
        same = here == digest
        detail = "" if same else "another one is installed here than the package was made with"
        yield Check(check="profile", subject=name, result=OK if same else CHANGED, detail=detail)


def _probed(pool: Pool, folder: Path, manifest: Manifest, variant: Variant) -> Check:
    def check(result: str, detail: str) -> Check:
        return Check(check="probes", subject=variant.id, result=result, detail=detail)

    if variant.probe is None:
        return check(SKIPPED, f"it has none: {variant.verification.method}")
    if variant.target not in known_targets():
        return check(SKIPPED, f"no target {variant.target} is installed here")
    probes = load_arrays(folder / variant.probe.file.path)
    try:
        outputs = _run(pool, folder, variant, probes)
    except EdgekitError as error:
        if not _made(folder, variant):
            return check(SKIPPED, f"it may need the package's report, which is not there: {error}")
        return check(FAILED, str(error))
    if outputs is None:
        return check(SKIPPED, "nothing here can run it")
    worst = 0.0
    for port in variant.outputs:
        gap = np.abs(outputs[port.name].astype(np.float64) - probes[f"out:{port.name}"].astype(np.float64))
        worst = max(worst, float(gap.max()) if np.isfinite(gap).all() else float("inf"))
    said = f"largest difference {worst:.2g}, {variant.probe.atol:.2g} allowed (n={variant.probe.n})"
    if worst > variant.probe.atol:
        return check(FAILED, said)
    share = _agreement(manifest, variant, probes, outputs)
    wanted = variant.probe.argmax_agreement
    if wanted is not None and share is not None and share < wanted:
        return check(FAILED, f"the same class in {share:.3f} of the probes, {wanted:g} needed")
    return check(OK, said)


def _run(pool: Pool, folder: Path, variant: Variant, probes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    target = load_target(variant.target, variant.requires.runtime)
    made = _made(folder, variant)
    built = Built(
        main=_main(folder, variant, str(made.get("main", ""))),
        inputs=variant.inputs,
        outputs=variant.outputs,
        requires=variant.requires,
        route=variant.route,
        facts=made.get("facts", {}),
    )
    with tempfile.TemporaryDirectory() as place:
        data, out = Path(place) / "in.npz", Path(place) / "out.npz"
        fed = {k.removeprefix("in:"): v for k, v in probes.items() if k.startswith("in:")}
        save_arrays(data, fed)
        args = {
            "target": variant.target,
            "runtime": variant.requires.runtime,
            "folder": str(folder / variant.folder),
            "artifact": built.to_dict(),
            "data": str(data),
            "out": str(out),
        }
        worker = target.worker if target.method == "emulated" else "plain"
        if pool.run(worker, "execute", args) is None:
            return None
        return load_arrays(out)


_MAINS = ("model.tflite", "model.onnx", "model.mlpackage")


def _made(folder: Path, variant: Variant) -> Mapping[str, Any]:
    """What the report says of the making: some targets need it to run their files. Empty without a report.

    The report is outside of the package's digest; a false one makes the probes fail, never pass.
    """
    try:
        report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
        found = report["variants"][variant.id]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _main(folder: Path, variant: Variant, told: str) -> str:
    """The file or folder that a runtime opens: as `told`, if it is one of the variant's, else by its name."""
    paths = [item.path.removeprefix(f"{variant.folder}/") for item in variant.files]
    if any(path == told or path.startswith(f"{told}/") for path in paths):
        return told
    names = [path.partition("/")[0] for path in paths]
    known = (name for name in _MAINS if (folder / variant.folder / name).exists())
    return next(known, names[0]) if len(set(names)) > 1 else names[0]


def _agreement(
    manifest: Manifest, variant: Variant, probes: Mapping[str, Any], outputs: Mapping[str, Any]
) -> float | None:
    """Share of probes with the same class, where an output names one."""
    for spec in manifest.contract.get("outputs", []):
        name = spec.get("name")
        if spec.get("task") == "classification" and name in outputs:
            kind = spec.get("activation", "none")
            ours, theirs = (
                class_scores(item, kind).argmax(-1) for item in (outputs[name], probes[f"out:{name}"])
            )
            return float((ours == theirs).mean())
    return None


def _again(manifest: Manifest, again: Again) -> Iterator[Check]:
    """The conversion done anew, variant by variant; of another source nothing is converted."""
    same = recognise(again.source, trust=again.trust).digest == manifest.source["sha256"]
    detail = "" if same else "this is not the source the package was made of"
    yield Check(check="source", subject=again.source.name, result=OK if same else FAILED, detail=detail)
    if not same:
        return
    precisions = dict.fromkeys(item.precision for item in manifest.variants)
    with tempfile.TemporaryDirectory(prefix="edgekit-verify-") as place:
        request = Request(
            source=again.source,
            profiles=tuple(dict.fromkeys(item.profile for item in manifest.variants)),
            targets=tuple(dict.fromkeys(item.target for item in manifest.variants)),
            precisions=tuple(item for item in precisions if item not in FORMS),
            prune="pruned" in precisions,
            cluster="clustered" in precisions,
            finetune=again.finetune,
            contract=again.contract,
            calibration=again.calibration,
            validation=again.validation,
            out=Path(place) / "package",
            cache=default_root(),
            seed=manifest.seed,
            trust=again.trust,
            allow_breach=any(item.verification.verdict == "breach" for item in manifest.variants),
        )
        made = convert(request).manifest
    new = {item.id: item for item in made.variants}
    for variant in manifest.variants:
        found = new.get(variant.id)
        if found is None:
            reason = next((r.detail for r in made.refused if r.id == variant.id), "it was not built")
            yield Check(check="again", subject=variant.id, result=FAILED, detail=reason)
            continue
        equal = found.digest == variant.digest
        verdict = f"{found.verification.verdict}: {found.verification.metrics.get('why', '')}"
        if found.verification.verdict != variant.verification.verdict:
            yield Check(check="again", subject=variant.id, result=FAILED, detail=f"now {verdict}")
        else:
            said = verdict if equal else f"other bytes, the same verdict; {verdict}"
            yield Check(check="again", subject=variant.id, result=OK if equal else CHANGED, detail=said)
