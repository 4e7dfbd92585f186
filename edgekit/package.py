"""The package manifest (`package.json`): one model version with all its variants.

A package folder holds ``package.json``, ``variants/<id>/…``, ``probes/<id>.npz`` (inside the
digest) and ``measurements.json``, ``report/`` (outside it). The canonical digest of
``package.json`` is the package's digest; every other byte is trusted through the sha256s in it.
All shapes count the batch dimension as ``-1``. Whoever reads a manifest from a wire or a disk goes
through `parse_manifest`, which checks every path and digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json, digest_of_files, sha256_file, sha256_hex
from edgekit.errors import DocumentError, StorageError
from edgekit.files import read_bytes, safe_relative
from edgekit.wire import Fields, parse_object, pruned

SCHEMA = 1
METHODS = ("executed", "emulated", "prepared")
VERDICTS = ("pass", "unverified", "breach")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the package: `path` relative to the package folder, `sha256` hex, size in `bytes`."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Affine per-tensor quantization of an input or output: real = scale · (q − zero_point)."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of an artifact. `dtype` is numpy's name, `shape` has -1 for the batch.

    `artifact_name` is the tensor's name inside the file where it differs from `name`, the
    contract's; `quantization` is set where the artifact wants integers and the contract gives reals.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    artifact_name: str | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a variant was compared with its source and what came out.

    `method` is one of METHODS, `verdict` one of VERDICTS; `runtime`, `runtime_version` and
    `backend` (execution provider, delegate or kernel set) name what ran, `machine` its ISA; `n` is the number
    of samples, `metrics` the figures rounded to three digits, `reasons` codes such as
    ``synthetic_inputs``.
    """

    method: str
    verdict: str
    runtime: str | None = None
    runtime_version: str | None = None
    backend: str | None = None
    machine: str | None = None
    on_target: bool = False
    n: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Package probes of one variant: "this device computes what the converter computed".

    `file` is an npz with arrays ``in:<name>`` and ``out:<name>`` (first axis = `n` samples, in the
    contract's dtypes, outputs dequantized); a device passes when every output differs by at most
    `atol` (absolute, in the output's unit) and, where `argmax_agreement` is set, that share of
    argmaxes agrees.
    """

    file: File
    n: int
    atol: float
    argmax_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What a device needs to run a variant. Empty tuples and None mean no demand.

    `machines` are ``platform.machine()`` names; `runtime` and `min_runtime` the runtime that loads
    it (``litert``, ``onnxruntime``, ``coreml``) and the lowest version; `memory_mb` and `cpu_features`
    likewise. A microcontroller's variant says in KiB what it takes: `arena_kb` of working memory, measured,
    and `flash_kb` for the model itself.
    """

    runtime: str
    min_runtime: str | None = None
    machines: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    memory_mb: int | None = None
    arena_kb: int | None = None
    flash_kb: int | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The artifact for one profile, target and precision. `digest` covers its files only."""

    id: str
    digest: str
    profile: str
    target: str
    precision: str
    files: tuple[File, ...]
    requires: Requirements
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    verification: Verification
    probe: Probe | None = None
    route: str = ""

    @property
    def folder(self) -> str:
        """Folder of the variant's files inside the package."""
        return f"variants/{self.id}"

    @property
    def size(self) -> int:
        """Total size of the variant's files in bytes."""
        return sum(item.bytes for item in self.files)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A variant that was asked for and is not in the package."""

    id: str
    reason_code: str
    detail: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A reference distribution over frozen bins.

    `kind` ``classes``: one count a class (`edges` empty). `kind` ``bins``: `edges` are the inner
    edges, so there is one count more than edges; the outer bins are open.
    """

    kind: str
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference distributions on the validation data, per input, output and confidence, by tensor name."""

    inputs: Mapping[str, Distribution] = field(default_factory=dict)
    outputs: Mapping[str, Distribution] = field(default_factory=dict)
    confidence: Mapping[str, Distribution] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One model version. `contract` is the resolved contract as JSON; `extra` keeps unknown members."""

    name: str
    version: str
    source: Mapping[str, Any]
    contract: Mapping[str, Any]
    variants: tuple[Variant, ...]
    refused: tuple[Refusal, ...] = ()
    reference: Reference = Reference()
    profiles: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    schema: int = SCHEMA
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; keys that are None are left out."""
        body = asdict(self)
        extra = body.pop("extra")
        plain = pruned(body)
        assert isinstance(plain, dict)
        return {**extra, **plain}

    def to_bytes(self) -> bytes:
        """The canonical bytes of ``package.json``."""
        return canonical_json(self.to_dict())

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the canonical bytes."""
        return "sha256:" + sha256_hex(self.to_bytes())

    def variant(self, variant_id: str) -> Variant:
        """The variant called `variant_id`.

        Raises:
            DocumentError: there is none.
        """
        for item in self.variants:
            if item.id == variant_id:
                return item
        raise DocumentError(f"no variant {variant_id!r} in {self.ref}", where="package.variants")

    def all_files(self) -> tuple[File, ...]:
        """Every file the package's digest covers."""
        probes = tuple(item.probe.file for item in self.variants if item.probe)
        return tuple(f for item in self.variants for f in item.files) + probes


def split_ref(ref: str) -> tuple[str, str]:
    """Split ``name@version``.

    Raises:
        DocumentError: not of that form, or with characters that are not safe in paths and topics.
    """
    name, _, version = ref.partition("@")
    if not (_NAME.match(name) and _NAME.match(version)):
        raise DocumentError(f"{ref!r} is not NAME@VERSION", where="release")
    return name, version


def variant_digest(variant_id: str, files: tuple[File, ...]) -> str:
    """Digest of a variant's files, named relative to its folder."""
    prefix = f"variants/{variant_id}/"
    return digest_of_files((item.path.removeprefix(prefix), item.sha256) for item in files)


def parse_manifest(data: bytes, *, where: str = "package.json") -> Manifest:
    """Read and check the bytes of a ``package.json``.

    Raises:
        DocumentError: malformed, a path that leaves the folder, a digest that does not fit.
    """
    return manifest_from_dict(parse_object(data, where=where, limit=64 << 20), where=where)


def manifest_from_dict(value: Mapping[str, Any], *, where: str = "package.json") -> Manifest:
    """`parse_manifest` for JSON that is parsed already."""
    fields = Fields(value, where=where)
    schema = fields.integer("schema")
    if schema != SCHEMA:
        raise fields.fail("schema", f"{schema} is not supported, {SCHEMA} is; update edgekit")
    manifest = Manifest(
        schema=schema,
        name=_checked_name(fields, "name"),
        version=_checked_name(fields, "version"),
        source=fields.mapping("source"),
        contract=fields.mapping("contract"),
        variants=fields.objects("variants", _variant),
        refused=fields.objects("refused", _refusal),
        reference=fields.maybe("reference", _reference) or Reference(),
        profiles=fields.mapping("profiles"),
        tools=fields.mapping("tools"),
        seed=fields.integer("seed", 0),
        extra=fields.rest(),
    )
    ids = [item.id for item in manifest.variants]
    if len(set(ids)) != len(ids):
        raise fields.fail("variants", "two variants have the same id")
    return manifest


def load_package(folder: Path, *, check_files: bool = True) -> Manifest:
    """Read ``folder/package.json`` and, if asked, compare every file with its sha256.

    Raises:
        StorageError: a file is missing or unreadable.
        DocumentError: malformed, or a file is not what the manifest says.
    """
    manifest = parse_manifest(read_bytes(folder / "package.json"), where=str(folder / "package.json"))
    for item in manifest.all_files() if check_files else ():
        path = folder / item.path
        if not path.is_file():
            raise StorageError("a file named in package.json is missing", where=str(path))
        if path.stat().st_size != item.bytes or sha256_file(path) != item.sha256:
            raise DocumentError(
                "the file is not the one package.json names (size or sha256 differs)",
                where=str(path),
                remedy="convert again; a package must not be edited",
                code="digest_mismatch",
            )
    return manifest


def _checked_name(fields: Fields, name: str) -> str:
    text = fields.text(name)
    if not _NAME.match(text):
        raise fields.fail(name, f"{text!r}: letters, digits and . _ + - were expected (at most 128)")
    return text


def _file(fields: Fields) -> File:
    path = str(safe_relative(fields.text("path"), where="package files"))
    sha = fields.text("sha256")
    if not _HEX.match(sha):
        raise fields.fail("sha256", "64 lower-case hex digits were expected")
    return File(path=path, sha256=sha, bytes=fields.integer("bytes"))


def _tensor(fields: Fields) -> Tensor:
    return Tensor(
        name=fields.text("name"),
        dtype=fields.text("dtype"),
        shape=fields.integers("shape"),
        artifact_name=fields.maybe_text("artifact_name"),
        quantization=fields.maybe("quantization", _quantization),
    )


def _quantization(fields: Fields) -> Quantization:
    return Quantization(scale=fields.number("scale"), zero_point=fields.integer("zero_point", low=-(1 << 31)))


def _verification(fields: Fields) -> Verification:
    method, verdict = fields.text("method"), fields.text("verdict")
    if method not in METHODS:
        raise fields.fail("method", f"one of {', '.join(METHODS)} was expected")
    if verdict not in VERDICTS:
        raise fields.fail("verdict", f"one of {', '.join(VERDICTS)} was expected")
    return Verification(
        method=method,
        verdict=verdict,
        runtime=fields.maybe_text("runtime"),
        runtime_version=fields.maybe_text("runtime_version"),
        backend=fields.maybe_text("backend"),
        machine=fields.maybe_text("machine"),
        on_target=fields.flag("on_target", False),
        n=fields.integer("n", 0),
        metrics=fields.mapping("metrics"),
        reasons=fields.texts("reasons"),
    )


def _probe(fields: Fields) -> Probe:
    return Probe(
        file=_file(fields.child("file")),
        n=fields.integer("n", low=1),
        atol=fields.number("atol"),
        argmax_agreement=fields.maybe_number("argmax_agreement"),
    )


def _requirements(fields: Fields) -> Requirements:
    return Requirements(
        runtime=fields.text("runtime"),
        min_runtime=fields.maybe_text("min_runtime"),
        machines=fields.texts("machines"),
        cpu_features=fields.texts("cpu_features"),
        memory_mb=fields.maybe_integer("memory_mb"),
        arena_kb=fields.maybe_integer("arena_kb"),
        flash_kb=fields.maybe_integer("flash_kb"),
    )


def _variant(fields: Fields) -> Variant:
    files = fields.objects("files", _file)
    variant_id = _checked_name(fields, "id")
    digest = fields.text("digest")
    if digest != variant_digest(variant_id, files):
        raise fields.fail("digest", "does not fit the variant's files")
    if not files or not all(item.path.startswith(f"variants/{variant_id}/") for item in files):
        raise fields.fail("files", f"files below variants/{variant_id}/ were expected")
    return Variant(
        id=variant_id,
        digest=digest,
        profile=fields.text("profile"),
        target=fields.text("target"),
        precision=fields.text("precision"),
        files=files,
        requires=_requirements(fields.child("requires")),
        inputs=fields.objects("inputs", _tensor),
        outputs=fields.objects("outputs", _tensor),
        verification=_verification(fields.child("verification")),
        probe=fields.maybe("probe", _probe),
        route=fields.text("route", ""),
    )


def _refusal(fields: Fields) -> Refusal:
    return Refusal(
        id=fields.text("id"),
        reason_code=fields.text("reason_code"),
        detail=fields.text("detail"),
        remedy=fields.text("remedy"),
    )


def _distribution(fields: Fields) -> Distribution:
    return Distribution(
        kind=fields.text("kind"), counts=fields.integers("counts"), edges=fields.numbers("edges")
    )


def _reference(fields: Fields) -> Reference:
    return Reference(
        inputs=fields.members("inputs", _distribution),
        outputs=fields.members("outputs", _distribution),
        confidence=fields.members("confidence", _distribution),
    )
