"""`edgekit export`: one variant of a package as a folder that a phone app or a firmware takes in.

::

    DIR/model.tflite | model.mlpackage   the artifact, byte for byte the package's
    DIR/model.json                       identity, ports, preprocessing, labels, threshold
    DIR/vectors.json                     the package probes: inputs, expected outputs, tolerance
    DIR/EdgekitModel.swift | .kt         a wrapper, and beside it a unit test that runs the vectors
    DIR/README.md                        what is what, and that nothing here was compiled

The wrapper's source is generated and *prepared, not compiled*: no Swift or Android tools run here. The
vectors are what proves the phone. A microcontroller (platform ``c99``) gets its variant's C in the folder
``c99``, which tells the package's name and digest over a serial line (docs/serial.md).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json
from edgekit.errors import EdgekitError, UsageError
from edgekit.package import Manifest, Variant, load_package
from edgekit.tomlfile import did_you_mean
from edgekit_converters.errors import storage_error
from edgekit_converters.npz import load_arrays

VECTORS = 4
"""Probes written as JSON: enough for a unit test, small enough for an app's test bundle."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a platform takes: its target, and the templates that become its sources and its README."""

    name: str
    target: str
    sources: tuple[str, ...]
    readme: str = "README.md"
    state: str = "the sources are prepared, not compiled"


PLATFORMS: Mapping[str, Platform] = {
    "ios": Platform(name="ios", target="coreml", sources=("EdgekitModel.swift", "EdgekitModelTests.swift")),
    "android": Platform(name="android", target="tflite", sources=("EdgekitModel.kt", "EdgekitModelTest.kt")),
    "c99": Platform(
        name="c99",
        target="c99",
        sources=("c99/ek_identity.h", "c99/Makefile"),
        readme="c99/README.md",
        state="`make` in its folder c99 compiles it for this computer",
    ),
}


def export_variant(folder: Path, platform: str, out: Path, variant: str | None = None) -> Variant:
    """Write the hand-over folder `out`; whole or not at all.

    Args:
        folder: the package.
        platform: a name in PLATFORMS.
        out: a folder that does not exist or is empty.
        variant: its id; by default the smallest proven one of the platform's target.

    Raises:
        UsageError: unknown platform or variant, or none that the platform takes.
        EdgekitError: `out` is in the way.
        StorageError: disk full or not writable; nothing is left behind.
    """
    if platform not in PLATFORMS:
        raise UsageError(
            f"unknown platform {platform!r}",
            remedy=did_you_mean(platform, PLATFORMS),
            code="unknown_platform",
        )
    manifest = load_package(folder)
    chosen = _chosen(manifest, PLATFORMS[platform], variant)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EdgekitError("the folder is not empty", where=str(out), remedy="give a new folder to --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            _write(work, folder, manifest, chosen, PLATFORMS[platform])
            work.chmod(0o755)
            if out.exists():
                out.rmdir()
            work.rename(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise storage_error(
            error, str(out), "the folder cannot be written", "choose another --out"
        ) from error
    return chosen


def _chosen(manifest: Manifest, platform: Platform, name: str | None) -> Variant:
    fitting = [item for item in manifest.variants if item.target == platform.target]
    if name is not None:
        found = next((item for item in fitting if item.id == name), None)
        if found is None:
            raise UsageError(
                f"{manifest.ref} has no {platform.target} variant {name!r}",
                remedy=f"there are: {', '.join(item.id for item in fitting) or 'none'}",
                code="unknown_variant",
            )
        return found
    proven = [item for item in fitting if item.verification.verdict == "pass"] or [
        item for item in fitting if item.verification.verdict == "unverified"
    ]
    if not proven:
        raise UsageError(
            f"{manifest.ref} has no {platform.target} variant that {platform.name} could take",
            remedy=f"convert with a profile that has the target {platform.target}",
            code="no_variant",
        )
    return min(proven, key=lambda item: (item.size, item.id))


def _write(work: Path, package: Path, manifest: Manifest, variant: Variant, platform: Platform) -> None:
    for item in variant.files:
        place = work / item.path.removeprefix(f"{variant.folder}/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / item.path, place)
    facts = _facts(manifest, variant)
    (work / "model.json").write_bytes(canonical_json(facts))
    (work / "vectors.json").write_bytes(canonical_json(_vectors(package, variant)))
    main = sorted({item.path.removeprefix(f"{variant.folder}/").partition("/")[0] for item in variant.files})
    for name in (*platform.sources, platform.readme):
        text = _rendered(name, platform, manifest, variant, facts, main)
        (work / name).write_text(text, encoding="utf-8")


def _facts(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    contract = manifest.contract
    specs = {item["name"]: item for key in ("inputs", "outputs") for item in contract.get(key, [])}
    return {
        "model": manifest.ref,
        "package": manifest.digest,
        "variant": variant.id,
        "digest": variant.digest,
        "precision": variant.precision,
        "verification": {"method": variant.verification.method, "verdict": variant.verification.verdict},
        "inputs": [{**_port(item), **_preprocessing(specs.get(item.name, {}))} for item in variant.inputs],
        "outputs": [{**_port(item), **_postprocessing(specs.get(item.name, {}))} for item in variant.outputs],
        "serving": contract.get("serving", {}),
    }


def _port(port: Any) -> dict[str, Any]:
    return {
        "name": port.name,
        "artifact_name": port.artifact_name or port.name,
        "dtype": port.dtype,
        "shape": [1 if size < 0 else size for size in port.shape],
        "quantization": None if port.quantization is None else asdict(port.quantization),
    }


def _preprocessing(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: spec[key] for key in ("layout", "meaning", "range", "preprocess") if spec.get(key)}


def _postprocessing(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: spec[key] for key in ("task", "labels", "activation") if spec.get(key)}


def _vectors(package: Path, variant: Variant) -> dict[str, Any]:
    """The first probes as nested lists; none for a variant that has no probes."""
    if variant.probe is None:
        return {"n": 0, "cases": []}
    arrays = load_arrays(package / variant.probe.file.path)
    n = min(VECTORS, variant.probe.n)
    cases = [
        {
            kind: {
                name.partition(":")[2]: array[index].tolist()
                for name, array in arrays.items()
                if name.startswith(mark)
            }
            for kind, mark in (("inputs", "in:"), ("outputs", "out:"))
        }
        for index in range(n)
    ]
    found: dict[str, Any] = {"n": n, "atol": variant.probe.atol, "cases": cases}
    if variant.probe.argmax_agreement is not None:
        found["argmax_agreement"] = variant.probe.argmax_agreement
    return found


def _rendered(
    name: str,
    platform: Platform,
    manifest: Manifest,
    variant: Variant,
    facts: Mapping[str, Any],
    main: list[str],
) -> str:
    import jinja2

    template = files("edgekit_converters.handover") / "templates" / f"{name}.j2"
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["quoted"] = lambda value: _literal(value, dollar=platform.name == "android")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        ref=manifest.ref,
        variant=variant,
        platform=platform.name,
        facts=facts,
        artifact=main[0],
        inputs=facts["inputs"],
        outputs=facts["outputs"],
        labels=next((item["labels"] for item in facts["outputs"] if "labels" in item), []),
    )


def _literal(value: object, *, dollar: bool) -> str:
    """A string literal of Swift and Kotlin; in Kotlin a dollar sign would begin a template."""
    text = json.dumps("".join(c for c in str(value) if c.isprintable()), ensure_ascii=False)
    return text.replace("$", "\\$") if dollar else text
