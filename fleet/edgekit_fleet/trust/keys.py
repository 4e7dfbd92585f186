"""The signing keys of a fleet: Ed25519, PKCS#8 PEM files of mode 0600, one a role.

Root and targets say *what* may run and belong offline when no release is being signed; snapshot,
timestamp and director are used by the running service. This module makes, finds and loads keys; what
they sign is the business of `edgekit_fleet.trust.repository` and `edgekit_fleet.trust.director`.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from edgekit.errors import TrustError
from edgekit.files import atomic_write, read_bytes
from edgekit_fleet.errors import ConflictError, HomeError

ROOT, TARGETS, SNAPSHOT, TIMESTAMP, DIRECTOR = "root", "targets", "snapshot", "timestamp", "director"
ROLES = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP, DIRECTOR)
OFFLINE = (ROOT, TARGETS)
"""Roles whose keys the running service never needs."""


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """Where the private key of `role` is, or would be; `problem` says why it cannot be used."""

    role: str
    path: Path
    keyid: str | None
    problem: str | None


def key_path(folder: Path, role: str) -> Path:
    """Where the private key of `role` lies in `folder`."""
    return folder / f"{role}.pem"


def make_keys(folder: Path, *, root_folder: Path | None = None) -> dict[str, CryptoSigner]:
    """Make one key for each role.

    Args:
        folder: for all keys.
        root_folder: for the root key, when it shall lie elsewhere.

    Raises:
        ConflictError: a key is there already; nothing is written.
        StorageError: a folder cannot be written.
    """
    places = {role: key_path(root_folder if role == ROOT and root_folder else folder, role) for role in ROLES}
    for role, path in places.items():
        if path.exists():
            raise ConflictError(
                f"there is a {role} key already; keys are never overwritten",
                where=str(path),
                remedy="use another home, or move the old key away",
                code="key_exists",
            )
    signers = {role: CryptoSigner.generate_ed25519() for role in ROLES}
    for role, path in places.items():
        atomic_write(path, signers[role].private_bytes, mode=0o600)
    return signers


def load_signer(path: Path, role: str) -> CryptoSigner:
    """Load the private key of `role`.

    Raises:
        HomeError: missing (code ``no_key``).
        TrustError: readable by others, or not an Ed25519 key.
    """
    if not path.is_file():
        raise HomeError(
            f"the {role} key is not here",
            where=str(path),
            remedy="bring it back for this command (--keys FOLDER), or run: edgekit key init",
            code="no_key",
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise TrustError(f"the {role} key may be read by others", where=str(path), remedy=f"chmod 600 {path}")
    try:
        private = load_pem_private_key(read_bytes(path, limit=65_536), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(f"not a PEM private key: {error}", where=str(path)) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise TrustError("not an Ed25519 key", where=str(path))
    return CryptoSigner(private)


def public_key(signer: CryptoSigner) -> SSlibKey:
    """The public half, with TUF's key id."""
    key = signer.public_key
    assert isinstance(key, SSlibKey)
    return key


def inspect_keys(folder: Path) -> tuple[KeyFile, ...]:
    """What is known about each role's private key in `folder`, problems named, nothing raised."""
    return tuple(_inspect(folder, role) for role in ROLES)


def _inspect(folder: Path, role: str) -> KeyFile:
    path = key_path(folder, role)
    try:
        keyid = public_key(load_signer(path, role)).keyid
    except HomeError:
        return KeyFile(role=role, path=path, keyid=None, problem="not here")
    except TrustError as error:
        return KeyFile(role=role, path=path, keyid=None, problem=error.message)
    return KeyFile(role=role, path=path, keyid=keyid, problem=None)
