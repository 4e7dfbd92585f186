"""A TUF repository in memory, made with python-tuf's own API, that can be put into hostile states.

Speaks the scheme of the fleet service: one target a package with the variant table in ``custom``,
one a ground-truth probe set, ``director.json`` for the director's keys. `files` is what a web server
hands out below ``/tuf/``; attacks are done on it or on the metadata before `publish`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgekit.documents import Desired, Envelope, Signature
from edgekit.package import Manifest
from edgekit.select import variant_table

ROLES = ("root", "targets", "snapshot", "timestamp")


def _expiry(days: float) -> datetime.datetime:
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return now + datetime.timedelta(days=days)


@dataclass(kw_only=True)
class TufRepo:
    """Keys, metadata and published files of a repository."""

    signers: dict[str, CryptoSigner] = field(
        default_factory=lambda: {role: CryptoSigner.generate_ed25519() for role in (*ROLES, "director")}
    )
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = Root(expires=_expiry(365), consistent_snapshot=True)
        for role in ROLES:
            self.root.add_key(self.signers[role].public_key, role)
        self.targets = Targets(expires=_expiry(365))
        self.snapshot = Snapshot(expires=_expiry(30))
        self.timestamp = Timestamp(expires=_expiry(7))
        self._started = False
        director = self.signers["director"].public_key
        keys = {"keys": {director.keyid: director.to_dict()}}
        self.add_target("director.json", json.dumps(keys, sort_keys=True).encode())
        self.publish()

    @property
    def root_bytes(self) -> bytes:
        """The first root, which devices enrol with."""
        return self.files["metadata/1.root.json"]

    @property
    def root_sha256(self) -> str:
        """What an enrolment token carries."""
        return hashlib.sha256(self.root_bytes).hexdigest()

    def add_target(self, path: str, data: bytes, custom: dict[str, object] | None = None) -> TargetFile:
        """Add or replace a target; `publish` makes it visible."""
        info = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            info.unrecognized_fields["custom"] = custom
        self.targets.targets[path] = info
        folder, _, name = path.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        self.files[f"targets/{prefix}{info.hashes['sha256']}.{name}"] = data
        return info

    def add_package(self, manifest: Manifest) -> str:
        """Sign a package; returns its target path."""
        path = f"packages/{manifest.name}/{manifest.version}/package.json"
        table = [entry.to_dict() for entry in variant_table(manifest)]
        self.add_target(
            path, manifest.to_bytes(), {"edgekit": {"package": manifest.digest, "variants": table}}
        )
        return path

    def remove_target(self, path: str) -> None:
        """Invalidate: the target is gone after `publish`."""
        del self.targets.targets[path]

    def publish(self) -> None:
        """Sign and publish everything with the next version numbers."""
        if self._started:
            for role in (self.targets, self.snapshot, self.timestamp):
                role.version += 1
        self._started = True
        self._put(f"{self.root.version}.root.json", "root", self.root)
        self._put(f"{self.targets.version}.targets.json", "targets", self.targets)
        self.snapshot.meta["targets.json"] = MetaFile(version=self.targets.version)
        self._put(f"{self.snapshot.version}.snapshot.json", "snapshot", self.snapshot)
        self.timestamp.snapshot_meta = MetaFile(version=self.snapshot.version)
        self._put("timestamp.json", "timestamp", self.timestamp)

    def _put(self, name: str, role: str, signed: Root | Targets | Snapshot | Timestamp) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        metadata.sign(self.signers[role])
        self.files[f"metadata/{name}"] = metadata.to_bytes()

    def sign(self, desired: Desired, *, signer: CryptoSigner | None = None) -> Envelope:
        """Sign as the director, or as whoever `signer` is."""
        made = (signer or self.signers["director"]).sign(
            Envelope(signed=desired.to_dict(), signatures=()).payload()
        )
        return Envelope(
            signed=desired.to_dict(), signatures=(Signature(keyid=made.keyid, sig=made.signature),)
        )
