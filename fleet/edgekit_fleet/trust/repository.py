"""The fleet's TUF repository: files below ``tuf/``, written so that a reader always sees a whole state.

One target a package (``packages/<name>/<version>/package.json``), one a ground-truth probe set
(``probes/<slot>/<n>.npz``), and ``director.json``. Snapshots are consistent: target files carry their
sha256 and metadata files their version in the name, nothing published is overwritten, and
``timestamp.json`` is written last. A crash before that leaves orphans that nobody refers to.

Uses python-tuf's metadata classes; the client side is the agent's business. Specification: TUF 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadError, LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from edgekit.digest import canonical_json
from edgekit.errors import StorageError, TrustError
from edgekit.files import atomic_write, read_bytes, safe_relative
from edgekit_fleet.errors import ConflictError, HomeError, UnknownNameError
from edgekit_fleet.home import Expiry, Home
from edgekit_fleet.trust.keys import (
    DIRECTOR,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    key_path,
    load_signer,
    public_key,
)

DIRECTOR_TARGET = "director.json"
CUSTOM = "edgekit"
_LIMIT = 64 << 20
R = TypeVar("R", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, kw_only=True)
class RoleStatus:
    """One role's newest metadata."""

    role: str
    version: int
    expires: datetime
    keyids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, kw_only=True)
class _State:
    """The newest metadata of all roles, verified from the root down."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]


class Repository:
    """The TUF repository of one home. Writers exclude each other by a file lock.

    Args:
        home: whose repository.
        expiry: days until each role's metadata expires.
        now: wall clock, seconds since the epoch.
        keys: folder of signing keys that comes before the home's.
    """

    def __init__(
        self, home: Home, *, expiry: Expiry, now: Callable[[], float], keys: Path | None = None
    ) -> None:
        self._home = home
        self._expiry = expiry
        self._now = now
        self._keys = keys or home.keys

    @property
    def exists(self) -> bool:
        """Whether `create` has run."""
        return (self._home.metadata / "timestamp.json").is_file()

    def create(self, signers: Mapping[str, CryptoSigner]) -> None:
        """Publish the first version of all metadata, with ``director.json`` as the only target.

        Raises:
            ConflictError: there is a repository already.
        """
        with self._home.locked("tuf"):
            if self.exists:
                raise ConflictError("there is a repository already", where=str(self._home.metadata))
            root = Root(expires=self._expires(self._expiry.root), consistent_snapshot=True)
            for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP):
                root.add_key(public_key(signers[role]), role)
            signed_root = Metadata(root)
            signed_root.sign(signers[ROOT])
            self._write_metadata("1.root.json", signed_root)
            director = public_key(signers[DIRECTOR])
            listed = canonical_json({"keys": {director.keyid: director.to_dict()}})
            targets = Metadata(Targets(expires=self._expires(self._expiry.targets)))
            targets.signed.targets[DIRECTOR_TARGET] = self._write_target(DIRECTOR_TARGET, listed, {})
            snapshot = Metadata(Snapshot(expires=self._expires(self._expiry.snapshot)))
            timestamp = Metadata(Timestamp(expires=self._expires(self._expiry.timestamp)))
            self._publish(targets, snapshot, timestamp, signers)

    def root_bytes(self) -> bytes:
        """The first root, which devices trust from enrolment on; later ones follow from it."""
        return self._read("1.root.json")

    def add_target(self, path: str, data: bytes, custom: Mapping[str, Any]) -> None:
        """Publish `data` as the target `path`, replacing what it was; signs targets, snapshot, timestamp.

        Args:
            path: target path, relative, with ``/``.
            data: the target's bytes.
            custom: signed beside its length and hash, as member ``edgekit`` of TUF's ``custom``.

        Raises:
            TrustError: the repository here is damaged or not signed by its own keys.
            HomeError: a key is missing, or there is no repository.
        """
        safe_relative(path, where="target")
        with self._home.locked("tuf"):
            state = self._load()
            signers = self._signers(state.root, TARGETS, SNAPSHOT, TIMESTAMP)
            state.targets.signed.targets[path] = self._write_target(path, data, custom)
            self._publish(state.targets, state.snapshot, state.timestamp, signers)

    def remove_target(self, path: str) -> None:
        """Withdraw the target `path`: devices will never install it again.

        Raises:
            UnknownNameError: there is no such target.
        """
        with self._home.locked("tuf"):
            state = self._load()
            if path not in state.targets.signed.targets:
                raise UnknownNameError.of("target", path, state.targets.signed.targets)
            signers = self._signers(state.root, TARGETS, SNAPSHOT, TIMESTAMP)
            del state.targets.signed.targets[path]
            self._publish(state.targets, state.snapshot, state.timestamp, signers)

    def refresh(self, *, before: timedelta | None = None) -> tuple[str, ...]:
        """Sign timestamp (and snapshot) again where they expire within `before`; returns what was signed.

        By default a role is renewed in the last half of its life. Needs the online keys only.
        """
        with self._home.locked("tuf"):
            state = self._load()
            renewed = []
            if self._due(state.snapshot.signed.expires, self._expiry.snapshot, before):
                self._write_snapshot(state.snapshot, self._signers(state.root, SNAPSHOT))
                renewed.append(SNAPSHOT)
            if renewed or self._due(state.timestamp.signed.expires, self._expiry.timestamp, before):
                self._write_timestamp(state.timestamp, state.snapshot, self._signers(state.root, TIMESTAMP))
                renewed.append(TIMESTAMP)
        return tuple(renewed)

    def sign_again(self, role: str) -> None:
        """Sign the newest metadata of targets, snapshot or timestamp (and what refers to it) with the key
        that is in place now."""
        with self._home.locked("tuf"):
            state = self._load()
            if role == TARGETS:
                signers = self._signers(state.root, TARGETS, SNAPSHOT, TIMESTAMP)
                self._publish(state.targets, state.snapshot, state.timestamp, signers)
                return
            signers = self._signers(state.root, *((SNAPSHOT, TIMESTAMP) if role == SNAPSHOT else (role,)))
            if role == SNAPSHOT:
                self._write_snapshot(state.snapshot, signers)
            self._write_timestamp(state.timestamp, state.snapshot, signers)

    def change_root(self, change: Callable[[Root], None], signers: Sequence[CryptoSigner]) -> None:
        """Publish a new root version.

        Raises:
            TrustError: the signers are not those that the present and the new root ask for.
        """
        with self._home.locked("tuf"):
            root = self._load_root()
            following = Metadata(Root.from_dict(root.signed.to_dict()))
            following.signed.version += 1
            following.signed.expires = self._expires(self._expiry.root)
            change(following.signed)
            for signer in signers:
                following.sign(signer, append=True)
            name = f"{following.signed.version}.root.json"
            for judge in (root, following):
                self._demand(judge, ROOT, following, name)
            self._write_metadata(name, following)

    def key_folder(self, role: str) -> Path:
        """Where a role's private key lies: the folder that was given, else the home's."""
        folders = (self._keys, self._home.keys)
        return next((folder for folder in folders if key_path(folder, role).exists()), self._keys)

    def keyids(self, role: str) -> tuple[str, ...]:
        """The keys that are trusted for a role; two while one is being rotated."""
        if role == DIRECTOR:
            return tuple(self.director_keys())
        return tuple(self._load_root().signed.roles[role].keyids)

    def targets(self) -> Mapping[str, TargetFile]:
        """All targets by path, from verified metadata."""
        return dict(self._load().targets.signed.targets)

    def target(self, path: str) -> TargetFile | None:
        """One target from verified metadata, None when there is none."""
        return self._load().targets.signed.targets.get(path)

    def read_target(self, path: str) -> bytes:
        """The bytes of a target, compared with the signed metadata.

        Raises:
            UnknownNameError: no such target.
            TrustError: the file is missing or not the signed one.
        """
        known = self.targets()
        if path not in known:
            raise UnknownNameError.of("target", path, known)
        return self._checked(path, known[path])

    def verify(self) -> int:
        """Check every signature, expiry and target file; returns the number of targets.

        Raises:
            TrustError: says which file is wrong.
        """
        state = self._load()
        now = datetime.fromtimestamp(self._now(), UTC)
        for metadata in _roles(state).values():
            signed = metadata.signed
            if signed.is_expired(now):
                raise TrustError(
                    f"{signed.type} metadata expired on {signed.expires:%Y-%m-%d %H:%M} UTC",
                    where=str(self._home.metadata),
                    remedy="run the service (it renews timestamp and snapshot) or sign a release",
                    code="expired_metadata",
                )
        for path, item in state.targets.signed.targets.items():
            self._checked(path, item)
        return len(state.targets.signed.targets)

    def status(self) -> tuple[RoleStatus, ...]:
        """Version, expiry and keys of each role."""
        state = self._load()
        return tuple(
            RoleStatus(
                role=role,
                version=item.signed.version,
                expires=item.signed.expires,
                keyids=tuple(state.root.signed.roles[role].keyids),
                threshold=state.root.signed.roles[role].threshold,
            )
            for role, item in _roles(state).items()
        )

    def director_keys(self) -> Mapping[str, Any]:
        """Key id → key of the directors, from the signed target."""
        keys = json.loads(self.read_target(DIRECTOR_TARGET))["keys"]
        assert isinstance(keys, dict)
        return keys

    def _load(self) -> _State:
        if not self.exists:
            raise HomeError(
                "there are no signing keys and no metadata here yet",
                where=str(self._home.path),
                remedy=f"edgekit key init --home {self._home.path}",
                code="no_keys",
            )
        root = self._load_root()
        timestamp = self._parse("timestamp.json", Timestamp)
        self._demand(root, TIMESTAMP, timestamp, "timestamp.json")
        name = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
        snapshot = self._parse(name, Snapshot)
        self._demand(root, SNAPSHOT, snapshot, name)
        name = f"{snapshot.signed.meta['targets.json'].version}.targets.json"
        targets = self._parse(name, Targets)
        self._demand(root, TARGETS, targets, name)
        return _State(root=root, timestamp=timestamp, snapshot=snapshot, targets=targets)

    def _load_root(self) -> Metadata[Root]:
        """The newest root, each verified by the one before it."""
        root = self._parse("1.root.json", Root)
        self._demand(root, ROOT, root, "1.root.json")
        while (self._home.metadata / f"{root.signed.version + 1}.root.json").is_file():
            name = f"{root.signed.version + 1}.root.json"
            following = self._parse(name, Root)
            self._demand(root, ROOT, following, name)
            self._demand(following, ROOT, following, name)
            root = following
        return root

    def _parse(self, name: str, kind: type[R]) -> Metadata[R]:
        data = self._read(name)
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(data)
        except DeserializationError as error:
            raise self._damaged(name, "is not TUF metadata") from error
        if not isinstance(metadata.signed, kind):
            raise self._damaged(name, f"holds {metadata.signed.type} metadata")
        return metadata

    def _demand(self, root: Metadata[Root], role: str, metadata: Metadata[Any], name: str) -> None:
        try:
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            raise self._damaged(name, f"is not signed by the {role} key") from error

    def _damaged(self, name: str, what: str) -> TrustError:
        return TrustError(
            f"this metadata {what}",
            where=str(self._home.metadata / name),
            remedy="restore the folder tuf/ from a backup; nothing was changed",
            code="bad_metadata",
        )

    def _read(self, name: str) -> bytes:
        try:
            return read_bytes(self._home.metadata / name, limit=_LIMIT)
        except StorageError as error:
            raise self._damaged(name, "cannot be read") from error

    def _signers(self, root: Metadata[Root], *roles: str) -> dict[str, CryptoSigner]:
        signers = {role: load_signer(key_path(self.key_folder(role), role), role) for role in roles}
        for role, signer in signers.items():
            if public_key(signer).keyid not in root.signed.roles[role].keyids:
                raise TrustError(
                    f"this is not the {role} key of this fleet",
                    where=str(key_path(self.key_folder(role), role)),
                    remedy="see the expected key id with: edgekit key status",
                    code="wrong_key",
                )
        return signers

    def _expires(self, days: int) -> datetime:
        return datetime.fromtimestamp(int(self._now()), UTC) + timedelta(days=days)

    def _due(self, expires: datetime, days: int, before: timedelta | None) -> bool:
        margin = timedelta(days=days) / 2 if before is None else before
        return expires - datetime.fromtimestamp(self._now(), UTC) < margin

    def _publish(
        self,
        targets: Metadata[Targets],
        snapshot: Metadata[Snapshot],
        timestamp: Metadata[Timestamp],
        signers: Mapping[str, CryptoSigner],
    ) -> None:
        targets.signed.version = self._next_version(TARGETS)
        targets.signed.expires = self._expires(self._expiry.targets)
        targets.sign(signers[TARGETS])
        self._write_metadata(f"{targets.signed.version}.targets.json", targets)
        snapshot.signed.meta["targets.json"] = MetaFile(version=targets.signed.version)
        self._write_snapshot(snapshot, signers)
        self._write_timestamp(timestamp, snapshot, signers)

    def _write_snapshot(self, snapshot: Metadata[Snapshot], signers: Mapping[str, CryptoSigner]) -> None:
        snapshot.signed.version = self._next_version(SNAPSHOT)
        snapshot.signed.expires = self._expires(self._expiry.snapshot)
        snapshot.sign(signers[SNAPSHOT])
        self._write_metadata(f"{snapshot.signed.version}.snapshot.json", snapshot)

    def _write_timestamp(
        self,
        timestamp: Metadata[Timestamp],
        snapshot: Metadata[Snapshot],
        signers: Mapping[str, CryptoSigner],
    ) -> None:
        if self.exists:
            timestamp.signed.version += 1
        timestamp.signed.snapshot_meta = MetaFile(version=snapshot.signed.version)
        timestamp.signed.expires = self._expires(self._expiry.timestamp)
        timestamp.sign(signers[TIMESTAMP])
        self._write_metadata("timestamp.json", timestamp)

    def _next_version(self, role: str) -> int:
        """Above every version ever written, orphans of a crash included."""
        names = self._home.metadata.glob(f"*.{role}.json")
        return (
            max((int(n.name.split(".")[0]) for n in names if n.name.split(".")[0].isdigit()), default=0) + 1
        )

    def _write_metadata(self, name: str, metadata: Metadata[Any]) -> None:
        data = metadata.to_bytes(JSONSerializer(compact=False))
        atomic_write(self._home.metadata / name, data)

    def _write_target(self, path: str, data: bytes, custom: Mapping[str, Any]) -> TargetFile:
        item = TargetFile.from_data(path, data, ["sha256"])
        if custom:
            item.unrecognized_fields["custom"] = {CUSTOM: dict(custom)}
        atomic_write(self._place(path, item), data)
        return item

    def _place(self, path: str, item: TargetFile) -> Path:
        folder, _, name = path.rpartition("/")
        return self._home.targets / folder / f"{item.hashes['sha256']}.{name}"

    def _checked(self, path: str, item: TargetFile) -> bytes:
        place = self._place(path, item)
        try:
            data = read_bytes(place, limit=item.length)
            item.verify_length_and_hashes(data)
        except (StorageError, LengthOrHashMismatchError, DownloadError) as error:
            raise TrustError(
                f"the file of target {path} is missing or not the signed one",
                where=str(place),
                remedy="restore it from a backup, or add and sign the release again",
                code="bad_target",
            ) from error
        return data


def _roles(state: _State) -> Mapping[str, Metadata[Any]]:
    return {
        ROOT: state.root,
        TARGETS: state.targets,
        SNAPSHOT: state.snapshot,
        TIMESTAMP: state.timestamp,
    }
