"""The short-lived process in which everything about trust happens: JSON in on stdin, JSON out on stdout.

``python -m edgekit_agent.trust_child``. Three operations (`op`):

``desired``  refresh TUF metadata, verify the director's signature on an envelope, its binding to
             device, hardware and gen, and fetch the signed manifests and probe sets it names;
``files``    compare a variant's files with the manifest whose digest was verified;
``order``    verify a command the same way: signed by the director, for this device, not expired, about a
             signed package.

Only here are python-tuf and cryptography imported, so that they cost the resident agent nothing. The
requests and answers are described in `edgekit_agent.trust`, which starts this. The specification of
the metadata is https://theupdateframework.github.io/specification/latest/.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgekit.digest import PREFIX, sha256_file
from edgekit.documents import BenchOrder, Desired, Envelope, SlotDesire
from edgekit.errors import DocumentError, EdgekitError, StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit.package import Manifest, parse_manifest, split_ref
from edgekit.select import VariantEntry
from edgekit.wire import Fields, parse_object
from edgekit_agent import web
from edgekit_agent.errors import TransferError, VerificationError

if TYPE_CHECKING:
    from securesystemslib.signer import Key
    from tuf.api.metadata import TargetFile
    from tuf.ngclient import Updater

_MANIFEST_LIMIT = 64 << 20
_DIRECTOR_LIMIT = 1 << 20
_SECONDS = 60.0
_SLACK = 300.0


def main() -> int:
    """Answer one request; exit code 0 whenever there is an answer, refusals included."""
    request = json.load(sys.stdin)
    try:
        answer = {"desired": _desired, "files": _files, "order": _order}[request["op"]](request)
    except VerificationError as error:
        answer = _refusal(error, stage=error.stage, retryable=error.retryable)
    except StorageError as error:
        answer = _refusal(error, stage="metadata", retryable=True)
    except EdgekitError as error:
        answer = _refusal(error, stage="package", retryable=False)
    json.dump(answer, sys.stdout)
    return 0


def _refusal(error: EdgekitError, *, stage: str, retryable: bool) -> dict[str, Any]:
    return {"ok": False, "stage": stage, "retryable": retryable, **error.as_dict()}


def _desired(request: Mapping[str, Any]) -> dict[str, Any]:
    envelope = _read_envelope(request["envelope"])
    updater = _refreshed(request)
    _check_signature(envelope, _director_keys(updater, Path(request["state"])))
    desired = _bound(envelope, request)
    kept: Mapping[str, str] = request["installed"]
    slots = {
        slot: _slot(updater, wish, request)
        for slot, wish in desired.slots.items()
        if kept.get(slot) != wish.package + "/" + wish.digest
    }
    return {"ok": True, "signed": dict(envelope.signed), "slots": slots}


def _order(request: Mapping[str, Any]) -> dict[str, Any]:
    """A command and the manifest of the package it names, both verified."""
    envelope = _read_envelope(request["envelope"])
    updater = _refreshed(request)
    _check_signature(envelope, _director_keys(updater, Path(request["state"])))
    try:
        order = BenchOrder.from_dict(envelope.signed)
    except DocumentError as error:
        raise VerificationError(str(error), code="malformed", stage="envelope") from error
    now, device = float(request["now"]), request["device"]
    _demand(
        (order.device == device, "wrong_device", f"made for device {order.device}, this is {device}"),
        (now < order.expires, "expired", f"its time was over {now - order.expires:.0f} s ago"),
        (order.issued <= now + _SLACK, "not_yet", "it was issued later than this device's clock shows"),
        where="order",
    )
    path = _manifest(updater, order, Path(request["store"]))
    return {"ok": True, "signed": dict(envelope.signed), "manifest": str(path)}


def _read_envelope(text: str) -> Envelope:
    try:
        envelope = Envelope.parse(text.encode())
    except DocumentError as error:
        raise VerificationError(str(error), code="malformed", stage="envelope") from error
    if not envelope.signatures:
        raise VerificationError("the document is not signed", code="unsigned", stage="envelope")
    return envelope


def _refreshed(request: Mapping[str, Any]) -> Updater:
    """A TUF client with fresh metadata; the root is the one enrolment vouched for."""
    from tuf.api import exceptions as tuf_errors
    from tuf.ngclient import Updater, UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface

    service = web.Service(url=request["url"], username=request["username"], password=request["password"])

    class Fetcher(FetcherInterface):
        """python-tuf's way out, over `edgekit_agent.web`."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                with web.opened(service, url) as response:
                    if response.status != 200:
                        raise tuf_errors.DownloadHTTPError(f"HTTP {response.status}: {url}", response.status)
                    yield from web.read_capped(response, limit=_MANIFEST_LIMIT, deadline=_SECONDS, where=url)
            except TransferError as error:
                raise tuf_errors.DownloadError(str(error)) from error

    state = Path(request["state"])
    (state / "targets").mkdir(parents=True, exist_ok=True)
    base = service.url.rstrip("/")
    try:
        updater = Updater(
            str(state),
            f"{base}/tuf/metadata/",
            str(state / "targets"),
            f"{base}/tuf/targets/",
            fetcher=Fetcher(),
            config=UpdaterConfig(max_root_rotations=64),
            bootstrap=read_bytes(Path(request["root"]), limit=1 << 20),
        )
        updater.refresh()
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError, OSError) as error:
        raise _tuf_refusal(error, stage="metadata") from error
    return updater


def _tuf_refusal(error: Exception, *, stage: str, where: str | None = None) -> VerificationError:
    """python-tuf's and the disk's complaints as our codes, most specific first."""
    from tuf.api import exceptions as tuf_errors

    table: tuple[tuple[type[Exception], str, bool], ...] = (
        (tuf_errors.BadVersionNumberError, "metadata_rollback", False),
        (tuf_errors.ExpiredMetadataError, "metadata_expired", True),
        (tuf_errors.UnsignedMetadataError, "metadata_unsigned", False),
        (tuf_errors.LengthOrHashMismatchError, "hash_mismatch", False),
        (tuf_errors.RepositoryError, "metadata_invalid", False),
        (tuf_errors.DownloadLengthMismatchError, "too_large", False),
        (tuf_errors.DownloadError, "unreachable", True),
    )
    for kind, code, retryable in table:
        if isinstance(error, kind):
            return VerificationError(
                str(error) or code, code=code, stage=stage, retryable=retryable, where=where
            )
    full = isinstance(error, OSError) and error.errno == 28
    return VerificationError(
        str(error), code="disk_full" if full else "storage", stage=stage, retryable=True, where=where
    )


def _target(updater: Updater, path: str, *, stage: str, missing: str) -> TargetFile:
    from tuf.api import exceptions as tuf_errors

    try:
        info = updater.get_targetinfo(path)
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError, OSError) as error:
        raise _tuf_refusal(error, stage=stage, where=path) from error
    if info is None:
        raise VerificationError(missing, code="target_missing", stage=stage, where=path)
    return info


def _fetch(updater: Updater, info: TargetFile, path: Path, *, stage: str, limit: int) -> bytes:
    """The verified bytes of a target, from `path` where they already lie."""
    from tuf.api import exceptions as tuf_errors

    if info.length > limit:
        raise VerificationError(
            f"{info.length} bytes, at most {limit} allowed", code="too_large", stage=stage, where=info.path
        )
    partial = path.with_name(path.name + ".new")
    try:
        if updater.find_cached_target(info, str(path)) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            updater.download_target(info, str(partial))
            atomic_write(path, read_bytes(partial))
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError, OSError) as error:
        raise _tuf_refusal(error, stage=stage, where=info.path) from error
    finally:
        partial.unlink(missing_ok=True)
    return read_bytes(path)


def _director_keys(updater: Updater, state: Path) -> dict[str, Key]:
    from securesystemslib.signer import Key

    info = _target(
        updater,
        "director.json",
        stage="metadata",
        missing="the repository names no director, so no desired document can be trusted",
    )
    data = _fetch(updater, info, state / "targets" / "director.json", stage="metadata", limit=_DIRECTOR_LIMIT)
    try:
        keys = Fields(parse_object(data, where="director.json"), where="director.json").mapping("keys")
        return {keyid: Key.from_dict(keyid, dict(value)) for keyid, value in keys.items()}
    except (KeyError, TypeError, ValueError, DocumentError) as error:
        raise VerificationError(
            f"unreadable: {error}", code="metadata_invalid", stage="metadata", where="director.json"
        ) from error


def _check_signature(envelope: Envelope, keys: Mapping[str, Key]) -> None:
    """At least one signature must be by a key the repository names as a director's, and be right."""
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    known = [item for item in envelope.signatures if item.keyid in keys]
    if not known:
        raise VerificationError(
            "signed by a key that the repository does not name as director",
            code="unknown_key",
            stage="envelope",
        )
    for item in known:
        try:
            keys[item.keyid].verify_signature(Signature(item.keyid, item.sig), envelope.payload())
        except (UnverifiedSignatureError, ValueError):
            continue
        return
    raise VerificationError(
        "the signature does not fit the document: it was altered", code="bad_signature", stage="envelope"
    )


def _bound(envelope: Envelope, request: Mapping[str, Any]) -> Desired:
    """The document, if it is for this device, this hardware, and not older than what was accepted."""
    try:
        desired = Desired.from_dict(envelope.signed)
    except DocumentError as error:
        raise VerificationError(str(error), code="malformed", stage="envelope") from error
    _demand(
        (
            desired.device == request["device"],
            "wrong_device",
            f"made for device {desired.device}, this is {request['device']}",
        ),
        (
            desired.hardware in request["hardware"],
            "wrong_hardware",
            f"made for {desired.hardware}, this is {' or '.join(request['hardware']) or 'unknown'}",
        ),
        (
            desired.gen >= request["gen"],
            "replayed",
            f"gen {desired.gen} is older than {request['gen']}, which was accepted before",
        ),
        where="desired",
    )
    return desired


def _demand(*checks: tuple[bool, str, str], where: str) -> None:
    for fine, code, message in checks:
        if not fine:
            raise VerificationError(message, code=code, stage="envelope", where=where)


def _slot(updater: Updater, wish: SlotDesire, request: Mapping[str, Any]) -> dict[str, Any]:
    store = Path(request["store"])
    path = _manifest(updater, wish, store)
    truth: Path | None = None
    if wish.truth is not None:
        truth = _truth(updater, wish, store / "truth", limit=int(request["limit"]))
    return {"manifest": str(path), "truth": str(truth) if truth else None}


def _manifest(updater: Updater, wish: SlotDesire | BenchOrder, store: Path) -> Path:
    """Fetch and check ``package.json`` of the wished release; returns where it lies."""
    try:
        name, version = split_ref(wish.release)
    except DocumentError as error:
        raise VerificationError(str(error), code="malformed", stage="package") from error
    target = f"packages/{name}/{version}/package.json"
    info = _target(
        updater,
        target,
        stage="package",
        missing=f"{wish.release} is not among the signed releases: never signed, or invalidated",
    )
    _check_table(info, wish)
    path = store / "packages" / wish.package.removeprefix(PREFIX) / "package.json"
    data = _fetch(updater, info, path, stage="package", limit=_MANIFEST_LIMIT)
    manifest = _parsed(data, target)
    if manifest.ref != wish.release or manifest.digest != wish.package:
        raise _mismatch(f"the manifest is {manifest.ref} {manifest.digest}", target)
    if manifest.variant(wish.variant).digest != wish.digest:
        raise _mismatch(f"variant {wish.variant} has another digest in the manifest", target)
    return path


def _parsed(data: bytes, target: str) -> Manifest:
    try:
        return parse_manifest(data, where=target)
    except DocumentError as error:
        raise VerificationError(str(error), code="malformed", stage="package", where=target) from error


def _check_table(info: TargetFile, wish: SlotDesire | BenchOrder) -> None:
    """The signed variant table must name exactly the package and variant that are wished."""
    if not _is_digest(wish.package):
        raise VerificationError("not a package digest", code="malformed", stage="package", where=wish.package)
    try:
        custom = Fields(info.custom or {}, where=info.path).child("edgekit")
        package = custom.text("package")
        table = {item.id: item for item in custom.objects("variants", VariantEntry.read)}
    except DocumentError as error:
        raise VerificationError(str(error), code="metadata_invalid", stage="package") from error
    if package != wish.package:
        raise _mismatch(f"signed is {package}, wished is {wish.package}", info.path)
    entry = table.get(wish.variant)
    if entry is None or entry.digest != wish.digest:
        raise _mismatch(f"variant {wish.variant} {wish.digest} is not in the signed table", info.path)


def _is_digest(digest: str) -> bool:
    body = digest.removeprefix(PREFIX)
    return digest.startswith(PREFIX) and len(body) == 64 and not set(body) - set("0123456789abcdef")


def _mismatch(message: str, target: str) -> VerificationError:
    return VerificationError(message, code="package_mismatch", stage="package", where=target)


def _truth(updater: Updater, wish: SlotDesire, folder: Path, *, limit: int) -> Path:
    """Fetch the slot's signed ground-truth probes, which the document describes as they are signed."""
    assert wish.truth is not None
    target, sha = wish.truth.target, wish.truth.sha256
    info = _target(
        updater, target, stage="package", missing="the ground-truth probes are not among the signed targets"
    )
    if info.hashes.get("sha256") != sha or info.length != wish.truth.bytes:
        raise _mismatch("the signed ground-truth probes are others than the document says", target)
    return _stored(updater, info, folder / f"{quote(sha, safe='')}.npz", limit)


def _stored(updater: Updater, info: TargetFile, path: Path, limit: int) -> Path:
    _fetch(updater, info, path, stage="package", limit=limit)
    return path


def _files(request: Mapping[str, Any]) -> dict[str, Any]:
    """Hash what lies in the package folder against the manifest whose digest is already trusted."""
    folder = Path(request["folder"])
    manifest = _parsed(read_bytes(folder / "package.json", limit=_MANIFEST_LIMIT), str(folder))
    if manifest.digest != request["package"]:
        raise _mismatch(f"the manifest on disk is {manifest.digest}", str(folder))
    variant = manifest.variant(request["variant"])
    for item in (*variant.files, *((variant.probe.file,) if variant.probe else ())):
        path = folder / item.path
        if not path.is_file() or path.stat().st_size != item.bytes or sha256_file(path) != item.sha256:
            raise VerificationError(
                "is not the file the manifest names", code="hash_mismatch", stage="package", where=str(path)
            )
    return {"ok": True}


if __name__ == "__main__":
    sys.exit(main())
