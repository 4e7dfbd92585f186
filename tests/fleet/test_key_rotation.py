"""Keys that are rotated: devices follow, an old key is worth nothing, a cut-off rotation is completed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from securesystemslib.signer import CryptoSigner
from sqlalchemy import select
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Timestamp

from edgekit.documents import Envelope
from edgekit.errors import StorageError, TrustError
from edgekit.files import atomic_write
from edgekit_fleet.cli.key import key
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import AuditRow, DesiredRow
from edgekit_fleet.desired import mark_published, unpublished
from edgekit_fleet.errors import HomeError
from edgekit_fleet.events import EventBus
from edgekit_fleet.service.reconciler import Reconciler
from edgekit_fleet.setup import rotate_key
from edgekit_fleet.trust import repository, rotation
from edgekit_fleet.trust.keys import ROLES, key_path, load_signer
from tests.fleet.test_trust_director import device, issued, verify
from tests.fleet.test_trust_repository import updater

__all__ = ["device"]

PATH = "packages/digits/1.0.0/package.json"
TUF_ROLES = [role for role in ROLES if role != "director"]


@pytest.fixture
def released(base_fleet: Fleet) -> Fleet:
    base_fleet.repository.add_target(PATH, b"{}", {"package": "sha256:x"})
    return base_fleet


def look(fleet: Fleet, folder: Path, patch: pytest.MonkeyPatch) -> bytes:
    """What a device that keeps its state in `folder` gets for the package."""
    client = updater(fleet, folder, patch)
    client.refresh()
    info = client.get_targetinfo(PATH)
    assert info is not None
    return Path(client.download_target(info)).read_bytes()


@pytest.mark.parametrize("role", ROLES)
def test_devices_follow_a_rotated_key(
    released: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    known = tmp_path / "known"
    assert look(released, known, monkeypatch) == b"{}"
    old = released.repository.keyids(role)
    done = rotate_key(released, role)
    assert released.repository.keyids(role) == (done["keyid"],) != old
    assert look(released, known, monkeypatch) == b"{}", "a device that was there before"
    assert look(released, tmp_path / "new", monkeypatch) == b"{}", "one that trusts the first root only"
    released.repository.add_target(PATH, b"[]", {})
    assert look(released, known, monkeypatch) == b"[]", "what is signed afterwards"
    released.repository.verify()


@pytest.mark.parametrize("role", ROLES)
def test_a_key_is_rotated_again_and_again(
    released: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    for _ in range(3):
        rotate_key(released, role)
    assert look(released, tmp_path / "client", monkeypatch) == b"{}"
    assert len(list(released.home.keys.glob(f"{role}.retired-*.pem"))) == 3


def test_what_a_retired_timestamp_key_signs_is_refused(
    released: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(released, tmp_path / "client", monkeypatch)
    stolen = load_signer(key_path(released.home.keys, "timestamp"), "timestamp")
    rotate_key(released, "timestamp")
    place = released.home.metadata / "timestamp.json"
    forged = Metadata[Timestamp].from_file(str(place))
    forged.signed.version += 10
    forged.sign(stolen)
    forged.to_file(str(place))
    with pytest.raises(RepositoryError):
        look(released, tmp_path / "client", monkeypatch)


def test_the_old_root_key_alone_names_no_new_keys(
    released: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen = load_signer(key_path(released.home.keys, "root"), "root")
    rotate_key(released, "root")
    look(released, tmp_path / "client", monkeypatch)
    newest = max(int(path.name.split(".")[0]) for path in released.home.metadata.glob("*.root.json"))
    forged = Metadata.from_file(str(released.home.metadata / f"{newest}.root.json"))
    forged.signed.version += 1
    forged.signatures.clear()
    forged.sign(stolen)
    forged.to_file(str(released.home.metadata / f"{newest + 1}.root.json"))
    with pytest.raises(RepositoryError):
        look(released, tmp_path / "client", monkeypatch)


def test_a_rotated_director_has_signed_every_desired_document_anew(released: Fleet, device: str) -> None:
    before = issued(released, device)
    with released.database.write() as session:
        mark_published(session, {device: 1})
    rotate_key(released, "director")
    with released.database.read() as session:
        [(name, gen, payload)] = unpublished(session)
    after = Envelope.parse(payload)
    assert (name, gen, after.signed) == (device, 1, before.signed)
    verify(released, after)
    assert before.signatures[0].keyid not in released.repository.director_keys()


def test_a_running_service_signs_with_the_key_that_is_in_place(released: Fleet) -> None:
    service = Reconciler(released, EventBus())
    old = service._sign().keyid
    assert service._sign().keyid == old
    done = rotate_key(released, "director")
    assert service._sign().keyid == done["keyid"] != old


Writer = Callable[..., None]


@pytest.mark.parametrize("role", ROLES)
def test_a_rotation_that_is_cut_off_at_any_write_harms_no_device_and_is_completed(
    released: Fleet, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    issued(released, device)
    write: Writer = atomic_write
    for cut in range(20):
        left = [cut]

        def cutting(path: Path, data: bytes, *, mode: int | None = None, left: list[int] = left) -> None:
            if not left[0]:
                raise StorageError("the power went", where=str(path))
            left[0] -= 1
            write(path, data, **({} if mode is None else {"mode": mode}))

        with monkeypatch.context() as patch:
            patch.setattr(repository, "atomic_write", cutting)
            patch.setattr(rotation, "atomic_write", cutting)
            try:
                rotate_key(released, role)
            except StorageError:
                pass
            else:
                break
        assert look(released, tmp_path / "client", monkeypatch) == b"{}", f"cut at write {cut}"
        assert released.repository.refresh() == (), "the service goes on"
        with released.database.read() as session:
            for row in session.scalars(select(DesiredRow)):
                verify(released, Envelope.from_dict(row.envelope))
    else:
        raise AssertionError("it never ends")
    assert cut >= 2
    assert len(released.repository.keyids(role)) == 1
    assert look(released, tmp_path / "client", monkeypatch) == b"{}"


@pytest.mark.parametrize("role", TUF_ROLES)
def test_without_the_root_key_nothing_is_rotated(released: Fleet, role: str) -> None:
    key_path(released.home.keys, "root").unlink()
    before = sorted(released.home.keys.iterdir())
    with pytest.raises(HomeError, match="root key is not here"):
        rotate_key(released, role)
    assert sorted(released.home.keys.iterdir()) == before
    assert released.repository.verify()


def test_another_fleets_root_key_rotates_nothing(released: Fleet) -> None:
    key_path(released.home.keys, "root").write_bytes(CryptoSigner.generate_ed25519().private_bytes)
    with pytest.raises(TrustError):
        rotate_key(released, "timestamp")
    assert released.repository.verify()


def test_the_command_works_with_root_and_targets_keys_in_a_safe(released: Fleet, tmp_path: Path) -> None:
    safe = tmp_path / "safe"
    safe.mkdir()
    for role in ("root", "targets"):
        key_path(released.home.keys, role).rename(key_path(safe, role))
    words = ["--home", str(released.home.path), "--keys", str(safe), "--json"]
    told = []
    for role in ROLES:
        dry = CliRunner().invoke(key, ["rotate", role, *words, "--dry-run"], catch_exceptions=False)
        assert json.loads(dry.stdout)["keyid"] is None
        done = CliRunner().invoke(key, ["rotate", role, *words], catch_exceptions=False)
        told.append(json.loads(done.stdout))
    assert [Path(item["path"]).parent.name for item in told] == ["safe", "safe", "keys", "keys", "keys"]
    shown = CliRunner().invoke(key, ["status", *words], catch_exceptions=False)
    keyids = {item["role"]: item["keyid"] for item in json.loads(shown.stdout)["roles"]}
    assert keyids == {item["role"]: item["keyid"] for item in told}
    with released.database.read() as session:
        acts = session.scalars(select(AuditRow).where(AuditRow.verb == "key.rotate")).all()
    assert [act.subject for act in acts] == list(ROLES)
