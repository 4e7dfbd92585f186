"""Rotating one key: a new one takes over, devices follow by themselves, the old one signs nothing any more.

In this order, so that a device that looks in between always sees a whole, valid state, and so that a
command that was cut off anywhere is completed by running it again:

1. the new private key is written beside the old one (``<role>.new.pem``);
2. it is published beside the old key: a new root version (director: a new ``director.json``);
3. it takes the old one's place (the old file stays as ``<role>.retired-<key id>.pem``);
4. what the role signs is signed anew;
5. the old key is taken out: another root version (``director.json``).

Root versions are signed by the root key; when root itself is rotated, by the old and the new one. Every
role has one key and threshold 1. The service may run meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root

from edgekit.digest import canonical_json
from edgekit.errors import StorageError
from edgekit.files import atomic_write
from edgekit_fleet.trust.keys import DIRECTOR, ROOT, key_path, load_signer, public_key
from edgekit_fleet.trust.repository import DIRECTOR_TARGET, Repository


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """What a rotation did: key ids before (several after a cut-off one) and now, and the old private key."""

    role: str
    before: tuple[str, ...]
    keyid: str
    path: Path
    retired: Path | None


def rotate(
    repository: Repository,
    role: str,
    *,
    root_folder: Path | None = None,
    resign: Callable[[CryptoSigner], None] = lambda signer: None,
) -> Rotated:
    """Give `role` a new key; see the module for the order.

    Args:
        repository: whose keys are rotated.
        role: one of `keys.ROLES`.
        root_folder: where the root key lies, if not with the others; every role but the director needs it.
        resign: signs everything anew that the director has signed, before its old key is taken out.

    Raises:
        HomeError: a private key that is needed is not here; nothing is changed.
        TrustError: it is not this fleet's; nothing is changed.
        StorageError: a file cannot be written; run it again.
    """
    root_folder = root_folder or repository.key_folder(ROOT)
    where = root_folder if role == ROOT else repository.key_folder(role)
    before = repository.keyids(role)
    if role != DIRECTOR:
        load_signer(key_path(root_folder, ROOT), ROOT)
    signer = _staged(where, role)
    keyid = public_key(signer).keyid
    if keyid not in before:
        _publish(repository, role, signer, root_folder, keep=True)
    retired = _take_over(where, role)
    if role == DIRECTOR:
        resign(signer)
    elif role != ROOT:
        repository.sign_again(role)
    _publish(repository, role, signer, root_folder, keep=False)
    return Rotated(role=role, before=before, keyid=keyid, path=key_path(where, role), retired=retired)


def _new_path(folder: Path, role: str) -> Path:
    return folder / f"{role}.new.pem"


def _staged(folder: Path, role: str) -> CryptoSigner:
    """The new key, from a rotation that was cut off if there is one."""
    place = _new_path(folder, role)
    if not place.is_file():
        load_signer(key_path(folder, role), role)
        atomic_write(place, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)
    return load_signer(place, role)


def _take_over(folder: Path, role: str) -> Path | None:
    old, new = key_path(folder, role), _new_path(folder, role)
    try:
        retired = None
        if old.is_file():
            retired = folder / f"{role}.retired-{public_key(load_signer(old, role)).keyid[:12]}.pem"
            os.link(old, retired) if not retired.exists() else None
        os.replace(new, old)
    except OSError as error:
        raise StorageError(f"cannot be replaced: {error.strerror}", where=str(old)) from error
    return retired


def _publish(
    repository: Repository, role: str, signer: CryptoSigner, root_folder: Path, *, keep: bool
) -> None:
    """Name the new key as the role's, alone or (`keep`) beside what was named before."""
    key = public_key(signer)
    if role == DIRECTOR:
        others: Mapping[str, Any] = repository.director_keys() if keep else {}
        listed = canonical_json({"keys": {**others, key.keyid: key.to_dict()}})
        repository.add_target(DIRECTOR_TARGET, listed, {})
        return

    def change(root: Root) -> None:
        if not keep:
            for keyid in [item for item in root.roles[role].keyids if item != key.keyid]:
                root.revoke_key(keyid, role)
        root.add_key(key, role)

    # While root itself is rotated, its old key signs until it has been taken out.
    signers = [load_signer(key_path(root_folder, ROOT), ROOT)]
    if role == ROOT:
        signers.append(signer)
    repository.change_root(change, signers)


__all__ = ["Rotated", "rotate"]
