"""Installed packages on disk: content-addressed blobs, package folders made of hard links, clean-up.

::

    store/blobs/<sha256>                 every file once
    store/partial/<sha256>               downloads under way
    store/packages/<digest>/package.json verified by the trust child before it is written
    store/packages/<digest>/variants/…   links to blobs
    store/truth/<sha256>.npz             ground-truth probes, verified likewise

The file system is the truth about what is here; what *runs* stands in the journal.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from edgekit.digest import PREFIX, sha256_file
from edgekit.errors import DocumentError, StorageError
from edgekit.files import read_bytes, sync_folder
from edgekit.package import File, Manifest, Variant, parse_manifest
from edgekit_agent.errors import InstallError
from edgekit_agent.installed import Installed
from edgekit_agent.journal import Model

_MANIFEST_LIMIT = 64 << 20


class Store:
    """The store below `folder`. Only the lifecycle writes; reading is safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def partial(self, sha256: str) -> Path:
        """Where a download goes on."""
        return self._folder / "partial" / sha256

    def blob(self, sha256: str) -> Path:
        """Where the bytes lie once they are whole."""
        return self._folder / "blobs" / sha256

    def package(self, digest: str) -> Path:
        """The folder of a package."""
        return self._folder / "packages" / digest.removeprefix(PREFIX)

    def has(self, item: File) -> bool:
        """Whether the blob is here and whole; a damaged one is fetched again."""
        path = self.blob(item.sha256)
        try:
            return path.stat().st_size == item.bytes and sha256_file(path) == item.sha256
        except (OSError, StorageError):
            return False

    def adopt(self, item: File) -> None:
        """Make a finished download a blob.

        Raises:
            InstallError: the disk refuses.
        """
        try:
            target = self.blob(item.sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.partial(item.sha256), target)
            sync_folder(target.parent)
        except OSError as error:
            raise _disk(error, self._folder) from error

    def assemble(self, digest: str, items: Iterable[File]) -> Path:
        """Link a variant's blobs into its package folder; returns the folder.

        Raises:
            InstallError: the disk refuses.
        """
        folder = self.package(digest)
        try:
            for item in items:
                place = folder / item.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _link(self.blob(item.sha256), place)
                sync_folder(place.parent)
        except OSError as error:
            raise _disk(error, folder) from error
        return folder

    def manifest(self, digest: str) -> Manifest:
        """The manifest of a package that is here, checked against the digest.

        Raises:
            StorageError: it is not here. DocumentError: it is damaged.
        """
        path = self.package(digest) / "package.json"
        manifest = parse_manifest(read_bytes(path, limit=_MANIFEST_LIMIT), where=str(path))
        if manifest.digest != digest:
            raise DocumentError("the manifest on disk is damaged", where=str(path), code="hash_mismatch")
        return manifest

    def installed(self, slot: str, model: Model) -> Installed:
        """A model of the journal as a value for serving, every byte compared with its sha256.

        Raises:
            StorageError: something is missing. DocumentError: something is damaged.
        """
        manifest = self.manifest(model.package)
        variant = manifest.variant(model.variant)
        folder = self.package(model.package)
        for item in variant.files:
            path = folder / item.path
            if not path.is_file():
                raise StorageError("a file of the model is missing", where=str(path))
            if sha256_file(path) != item.sha256:
                raise DocumentError("a file of the model is damaged", where=str(path), code="hash_mismatch")
        return Installed(
            slot=slot,
            manifest=manifest,
            variant=variant,
            folder=folder,
            package=model.package,
            deployment=model.deployment,
        )

    def clean(self, keep: Iterable[Model], *, truth: Collection[str] = ()) -> int:
        """Remove packages, blobs and probe sets that nothing in `keep` needs; returns how many files.

        A rollback to a kept model then needs no download; unfinished downloads of kept models stay too.
        """
        packages: set[str] = set()
        blobs: set[str] = set()
        for model in keep:
            packages.add(model.package.removeprefix(PREFIX))
            try:
                files = files_of(self.manifest(model.package).variant(model.variant))
            except (StorageError, DocumentError):
                continue
            blobs.update(item.sha256 for item in files)
        removed = _sweep(self._folder / "packages", packages) + _sweep(self._folder / "blobs", blobs)
        removed += _sweep(self._folder / "truth", {f"{sha}.npz" for sha in truth})
        return removed + _sweep(self._folder / "partial", blobs)


def files_of(variant: Variant) -> tuple[File, ...]:
    """Every file a device needs of a variant: the artifact and its package probes."""
    return (*variant.files, *((variant.probe.file,) if variant.probe else ()))


def _link(blob: Path, place: Path) -> None:
    """Hard link, or a copy where the file system knows none (FAT on a memory card)."""
    temporary = place.with_name(f".{place.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(blob, temporary)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.ENOENT):
            raise
        shutil.copyfile(blob, temporary)
    os.replace(temporary, place)


def _sweep(folder: Path, keep: set[str]) -> int:
    if not folder.is_dir():
        return 0
    removed = 0
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed += 1
    return removed


def _disk(error: OSError, path: Path) -> InstallError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return InstallError(
        error.strerror or str(error), code="disk_full" if full else "storage", retryable=True, where=str(path)
    )


__all__ = ["Store", "files_of"]
