"""The TUF repository by threat: what a client that verifies sees, and what damage is named."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edgekit.errors import StorageError, TrustError
from edgekit_fleet.context import Fleet
from edgekit_fleet.errors import BusyError, ConflictError, HomeError, UnknownNameError
from edgekit_fleet.home import Home
from edgekit_fleet.setup import init_keys
from edgekit_fleet.trust.keys import ROLES, key_path, load_signer, make_keys
from tests.conftest import FrozenClock

PATH = "packages/digits/1.0.0/package.json"


class FromFolder(FetcherInterface):
    """python-tuf's client fetching from the published folder."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def _fetch(self, url: str):  # type: ignore[no-untyped-def]  # an iterator of bytes
        from tuf.api.exceptions import DownloadHTTPError

        kind, _, name = url.removeprefix("http://fleet/").partition("/")
        place = (self._home.metadata if kind == "metadata" else self._home.targets) / name
        if not place.is_file():
            raise DownloadHTTPError("missing", 404)
        yield place.read_bytes()


def updater(fleet: Fleet, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Updater:
    """A device's client at the fleet's frozen time, trusting the first root."""
    folder.mkdir(exist_ok=True)
    now = datetime.fromtimestamp(fleet.clock.now(), UTC)
    made = Updater(
        metadata_dir=str(folder),
        metadata_base_url="http://fleet/metadata/",
        target_dir=str(folder),
        target_base_url="http://fleet/targets/",
        fetcher=FromFolder(fleet.home),
        bootstrap=fleet.repository.root_bytes(),
    )
    monkeypatch.setattr(made._trusted_set, "reference_time", now)
    return made


def test_a_client_gets_what_was_signed_and_its_custom(
    base_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_fleet.repository.add_target(PATH, b"{}", {"package": "sha256:x"})
    client = updater(base_fleet, tmp_path / "client", monkeypatch)
    client.refresh()
    info = client.get_targetinfo(PATH)
    assert info is not None
    assert info.custom == {"edgekit": {"package": "sha256:x"}}
    assert Path(client.download_target(info)).read_bytes() == b"{}"
    director = client.get_targetinfo("director.json")
    assert director is not None
    keys = json.loads(Path(client.download_target(director)).read_bytes())["keys"]
    assert list(keys) == [
        load_signer(key_path(base_fleet.home.keys, "director"), "director").public_key.keyid
    ]


def test_a_client_that_saw_a_newer_state_refuses_the_older_one(
    base_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuf.api.exceptions import BadVersionNumberError

    repository, published = base_fleet.repository, base_fleet.home.metadata
    shutil.copytree(published, tmp_path / "older")
    repository.add_target(PATH, b"{}", {})
    updater(base_fleet, tmp_path / "client", monkeypatch).refresh()
    shutil.rmtree(published)
    shutil.copytree(tmp_path / "older", published)
    with pytest.raises(BadVersionNumberError):
        updater(base_fleet, tmp_path / "client", monkeypatch).refresh()


def test_a_withdrawn_target_is_gone_for_clients(
    base_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_fleet.repository.add_target(PATH, b"{}", {})
    base_fleet.repository.remove_target(PATH)
    client = updater(base_fleet, tmp_path / "client", monkeypatch)
    client.refresh()
    assert client.get_targetinfo(PATH) is None
    with pytest.raises(UnknownNameError):
        base_fleet.repository.remove_target(PATH)


@pytest.mark.parametrize("name", ["1.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone", "other"])
def test_damaged_metadata_is_named_and_nothing_is_signed_over_it(
    base_fleet: Fleet, name: str, how: str
) -> None:
    base_fleet.repository.add_target(PATH, b"{}", {})
    place = base_fleet.home.metadata / name
    before = place.read_bytes()
    if how == "gone":
        place.unlink()
    else:
        damaged = {
            "flip": before.replace(b'"expires": "20', b'"expires": "21'),
            "cut": before[:-20],
            "other": b'{"signed": {}, "signatures": []}',
        }
        place.write_bytes(damaged[how])
    expected = HomeError if (name, how) == ("timestamp.json", "gone") else TrustError
    versions = sorted(path.name for path in base_fleet.home.metadata.iterdir())
    for act in (
        base_fleet.repository.verify,
        base_fleet.repository.refresh,
        lambda: base_fleet.repository.add_target("x.json", b"1", {}),
    ):
        with pytest.raises(expected) as caught:
            act()
        if expected is TrustError:
            assert caught.value.where is not None
            assert name in caught.value.where
    assert sorted(path.name for path in base_fleet.home.metadata.iterdir()) == versions


def test_a_flipped_byte_in_a_target_is_found(base_fleet: Fleet) -> None:
    base_fleet.repository.add_target(PATH, b'{"a": 1}', {})
    assert base_fleet.repository.verify() == 2
    place = next((base_fleet.home.targets / "packages/digits/1.0.0").iterdir())
    place.write_bytes(b'{"a": 2}')
    with pytest.raises(TrustError, match="not the signed one"):
        base_fleet.repository.verify()
    place.unlink()
    with pytest.raises(TrustError, match="missing"):
        base_fleet.repository.read_target(PATH)


def test_metadata_signed_by_a_foreign_key_is_refused(base_fleet: Fleet) -> None:
    place = base_fleet.home.metadata / "timestamp.json"
    timestamp = Metadata[Timestamp].from_file(str(place))
    timestamp.signed.version += 1
    timestamp.sign(CryptoSigner.generate_ed25519())
    timestamp.to_file(str(place))
    with pytest.raises(TrustError, match="not signed by the timestamp key"):
        base_fleet.repository.verify()


def test_metadata_of_another_role_in_its_place_is_refused(base_fleet: Fleet) -> None:
    metadata = base_fleet.home.metadata
    shutil.copy(metadata / "1.targets.json", metadata / "timestamp.json")
    with pytest.raises(TrustError, match="holds targets metadata"):
        base_fleet.repository.verify()


def test_a_crash_before_the_timestamp_leaves_the_old_state_and_the_next_signing_works(
    base_fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(base_fleet.repository, "_write_timestamp", crash)
        with pytest.raises(KeyboardInterrupt):
            base_fleet.repository.add_target(PATH, b"half", {})
    assert set(base_fleet.repository.targets()) == {"director.json"}
    orphan = (base_fleet.home.metadata / "2.targets.json").read_bytes()
    base_fleet.repository.add_target(PATH, b"whole", {})
    assert base_fleet.repository.read_target(PATH) == b"whole"
    assert (base_fleet.home.metadata / "2.targets.json").read_bytes() == orphan
    assert (base_fleet.home.metadata / "3.targets.json").is_file()


def test_published_metadata_is_never_overwritten_but_the_timestamp(base_fleet: Fleet) -> None:
    published = {p.name: p.read_bytes() for p in base_fleet.home.metadata.glob("[0-9]*.json")}
    for number in range(3):
        base_fleet.repository.add_target(f"t{number}.json", b"1", {})
    assert all((base_fleet.home.metadata / name).read_bytes() == data for name, data in published.items())


def test_timestamp_is_renewed_without_the_offline_keys(base_fleet: Fleet, clock: FrozenClock) -> None:
    for role in ("root", "targets"):
        key_path(base_fleet.home.keys, role).unlink()
    assert base_fleet.repository.refresh() == ()
    clock.advance(4 * 86_400)
    assert base_fleet.repository.refresh() == ("timestamp",)
    clock.advance(20 * 86_400)
    assert base_fleet.repository.refresh() == ("snapshot", "timestamp")
    base_fleet.repository.verify()
    with pytest.raises(HomeError, match="targets key is not here"):
        base_fleet.repository.add_target(PATH, b"{}", {})


def test_expired_metadata_is_named_with_its_role(base_fleet: Fleet, clock: FrozenClock) -> None:
    clock.advance(timedelta(days=8).total_seconds())
    with pytest.raises(TrustError, match="timestamp metadata expired"):
        base_fleet.repository.verify()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a\\b", "c:x"])
def test_a_target_cannot_leave_its_folder(base_fleet: Fleet, path: str) -> None:
    with pytest.raises(Exception, match="plain relative path"):
        base_fleet.repository.add_target(path, b"1", {})


def test_two_writers_never_interleave(base_fleet: Fleet) -> None:
    with base_fleet.home.locked("tuf"), pytest.raises(BusyError), base_fleet.home.locked("tuf", seconds=0.1):
        pass


def test_a_full_disk_leaves_the_published_state(base_fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    base_fleet.repository.add_target(PATH, b"{}", {})
    replace = os.replace

    def full(source: str, target: Path) -> None:
        if "targets" in str(target):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("edgekit.files.os.replace", full)
    with pytest.raises(StorageError) as caught:
        base_fleet.repository.add_target("new.json", b"1", {})
    assert caught.value.code == "disk_full"
    monkeypatch.undo()
    assert base_fleet.repository.verify() == 2


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", root_folder=tmp_path / "safe")
    for role in ROLES:
        place = key_path(tmp_path / ("safe" if role == "root" else "keys"), role)
        assert place.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="never overwritten"):
        make_keys(tmp_path / "keys", root_folder=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_key_others_may_read_is_refused(base_fleet: Fleet) -> None:
    key_path(base_fleet.home.keys, "targets").chmod(0o644)
    with pytest.raises(TrustError, match="may be read by others"):
        base_fleet.repository.add_target(PATH, b"{}", {})


@pytest.mark.parametrize(
    "data", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_named(base_fleet: Fleet, data: bytes) -> None:
    place = key_path(base_fleet.home.keys, "targets")
    place.write_bytes(data)
    with pytest.raises(TrustError) as caught:
        base_fleet.repository.add_target(PATH, b"{}", {})
    assert caught.value.where == str(place)


def test_a_wrong_key_publishes_nothing_a_client_would_take(base_fleet: Fleet) -> None:
    from edgekit.files import atomic_write

    other = CryptoSigner.generate_ed25519()
    atomic_write(key_path(base_fleet.home.keys, "targets"), other.private_bytes, mode=0o600)
    before = (base_fleet.home.metadata / "timestamp.json").read_bytes()
    with pytest.raises(TrustError, match="not the targets key of this fleet"):
        base_fleet.repository.add_target(PATH, b"{}", {})
    assert (base_fleet.home.metadata / "timestamp.json").read_bytes() == before


def test_key_init_is_completed_after_a_crash_between_keys_and_metadata(tmp_path: Path) -> None:
    home = tmp_path / "home"
    init_keys(home)
    keys = {role: key_path(home / "keys", role).read_bytes() for role in ROLES}
    shutil.rmtree(home / "tuf" / "metadata")
    init_keys(home)
    assert {role: key_path(home / "keys", role).read_bytes() for role in ROLES} == keys
    with pytest.raises(ConflictError, match="has its keys already"):
        init_keys(home)


def test_snapshot_lists_the_newest_targets_only(base_fleet: Fleet) -> None:
    base_fleet.repository.add_target(PATH, b"{}", {})
    snapshot = Metadata[Snapshot].from_file(str(base_fleet.home.metadata / "2.snapshot.json"))
    targets = Metadata[Targets].from_file(str(base_fleet.home.metadata / "2.targets.json"))
    assert snapshot.signed.meta["targets.json"].version == targets.signed.version == 2
