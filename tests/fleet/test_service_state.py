"""Home, database, register and audit trail by threat."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from sqlalchemy import text

from edgekit.documents import DeviceStep, Presence, Reported
from edgekit.errors import StorageError, TrustError
from edgekit_fleet import audit
from edgekit_fleet.backend import LocalBackend
from edgekit_fleet.context import Fleet
from edgekit_fleet.db import Database
from edgekit_fleet.db.tables import DeviceRow, MetaRow
from edgekit_fleet.devices import (
    get_device,
    record_facts,
    record_presence,
    record_reported,
)
from edgekit_fleet.errors import BusyError, ConflictError, HomeError, UnknownNameError
from edgekit_fleet.home import Home, create_home
from edgekit_fleet.setup import rotate_key
from edgekit_fleet.trust.director import Director
from tests.fleet.homes import FACTS

BIRTH = Presence(state="online", session=3, boot_id="00000001-a", agent="0.1.0", at=1.0)
REPORT = Reported(
    boot_id="00000001-a", seq=5, gen=1, deployment="r-1", attempt=1, step=DeviceStep.TRIAL, at=1.0
)


@pytest.fixture
def fleet(base_fleet: Fleet) -> Fleet:
    with base_fleet.database.write() as session:
        session.add(
            DeviceRow(
                id="cam-1",
                hardware="unknown",
                facts=FACTS.to_dict(),
                labels={},
                enrolled=0.0,
                public_key="1" * 64,
                password="",
                pins={},
            )
        )
    return base_fleet


# -- home


def test_a_home_that_is_none_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="fleet init"):
        Home(path=tmp_path / "nothing").settings()


def test_secrets_are_private(base_fleet: Fleet) -> None:
    assert base_fleet.home.operator_token_file.stat().st_mode & 0o077 == 0
    assert base_fleet.home.path.stat().st_mode & 0o077 == 0
    assert len(base_fleet.home.operator_token()) >= 32


def test_making_a_home_again_keeps_what_is_there(base_fleet: Fleet) -> None:
    token, settings = base_fleet.home.operator_token(), base_fleet.home.settings_file.read_text()
    base_fleet.home.settings_file.write_text(settings.replace("timestamp_days = 7", "timestamp_days = 3"))
    again = create_home(base_fleet.home.path, tenant="other")
    assert again.operator_token() == token
    assert again.settings().expiry.timestamp == 3
    assert again.settings().tenant == "default"


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('tenant = "a/b"', "tenant"),
        ("tenant = 5", "tenant"),
        ('kind = "rabbit"', "kind"),
        ("port = 70000", "port"),
        ("timestamp_days = 0", "timestamp_days"),
        ('producers = ["a/b"]', "producers"),
        ('producers = "plc"', "producers"),
        ("tennant = 1", "tennant"),
    ],
)
def test_a_wrong_setting_names_file_and_key(base_fleet: Fleet, line: str, where: str) -> None:
    key = line.partition(" ")[0]
    lines = base_fleet.home.settings_file.read_text().splitlines()
    kept = [line if item.startswith(f"{key} =") else item for item in lines]
    base_fleet.home.settings_file.write_text("\n".join([*([] if line in kept else [line]), *kept]))
    with pytest.raises(HomeError) as caught:
        base_fleet.home.settings()
    assert "fleet.toml" in (caught.value.where or "")
    assert where in (caught.value.where or "") + caught.value.message


def test_a_service_file_of_a_dead_process_is_ignored(base_fleet: Fleet) -> None:
    home = base_fleet.home
    home.write_service_file({"url": "http://127.0.0.1:1", "pid": 2**22 - 3})
    assert home.running_service() is None
    home.service_file.write_text("{")
    assert home.running_service() is None


# -- database


def test_a_write_that_read_first_is_never_cut_off_by_another_writer(base_fleet: Fleet) -> None:
    def count(times: int) -> None:
        for _ in range(times):
            with base_fleet.database.write() as session:
                row = session.get(MetaRow, "n") or session.merge(MetaRow(key="n", value="0"))
                row.value = str(int(row.value) + 1)

    threads = [threading.Thread(target=count, args=(20,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with base_fleet.database.read() as session:
        assert session.get_one(MetaRow, "n").value == "80"


def test_a_database_that_another_keeps_locked_is_said_to_be_busy(
    base_fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit_fleet.db.engine._BUSY_SECONDS", 0)
    database = Database(base_fleet.home.database_url)
    holder = sqlite3.connect(base_fleet.home.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(BusyError), database.write() as session:
            session.get(MetaRow, "n")
    finally:
        holder.close()
        database.close()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    place = tmp_path / "fleet.db"
    place.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(StorageError, match="cannot be used"):
        Database(f"sqlite:///{place}").upgrade()


def test_a_database_of_a_newer_edgekit_is_refused(base_fleet: Fleet) -> None:
    with base_fleet.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError) as caught:
        base_fleet.database.upgrade()
    assert caught.value.code == "database_newer"


def test_a_name_used_twice_at_once_is_a_conflict(fleet: Fleet) -> None:
    with pytest.raises(ConflictError), fleet.database.write() as session:
        session.add(DeviceRow(id="cam-1", hardware="x", facts={}, enrolled=0.0, public_key="2", password=""))


# -- register


def test_an_old_will_that_arrives_late_is_ignored(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        assert record_presence(session, "cam-1", BIRTH, now=10.0)
        assert not record_presence(session, "cam-1", replace(BIRTH, session=2, state="lost"), now=11.0)
        assert get_device(session, "cam-1").state == "online"
        assert record_presence(session, "cam-1", replace(BIRTH, state="lost"), now=12.0)
        assert get_device(session, "cam-1").state == "lost"
        assert get_device(session, "cam-1").last_seen == 10.0


def test_duplicate_and_older_reports_are_dropped(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        assert record_reported(session, "cam-1", REPORT, now=1.0)
        assert not record_reported(session, "cam-1", REPORT, now=2.0)
        assert not record_reported(session, "cam-1", replace(REPORT, seq=4), now=3.0)
        later_boot = replace(REPORT, boot_id="00000002-b", seq=1)
        assert record_reported(session, "cam-1", later_boot, now=4.0)
        assert not record_reported(session, "cam-1", replace(REPORT, seq=99), now=5.0)


def test_the_stratum_follows_the_facts_and_unknown_devices_change_nothing(fleet: Fleet) -> None:
    with fleet.database.write() as session:
        assert record_facts(session, "cam-1", FACTS, now=1.0)
        assert get_device(session, "cam-1").hardware == "x86-64-litert"
        assert not record_facts(session, "ghost", FACTS, now=1.0)
        assert not record_presence(session, "ghost", BIRTH, now=1.0)
        assert not record_reported(session, "ghost", REPORT, now=1.0)
        with pytest.raises(UnknownNameError, match="cam-1"):
            get_device(session, "cam-2")


# -- audit


def _acts(fleet: Fleet, count: int) -> None:
    with fleet.database.write() as session:
        for number in range(count):
            audit.record(session, at=float(number), actor="test", verb="t", subject=str(number))


def test_the_audit_table_refuses_changes(fleet: Fleet) -> None:
    _acts(fleet, 2)
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with pytest.raises(ConflictError, match="append-only"), fleet.database.write() as session:
            session.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'somebody else' WHERE id = 3",
        "UPDATE audit SET at = at + 1 WHERE id = 3",
        "UPDATE audit SET after = '{}' WHERE id = 3",
        "DELETE FROM audit WHERE id = 3",
        "UPDATE audit SET prev = hash WHERE id = 3",
    ],
)
def test_a_trail_changed_behind_the_triggers_is_found(fleet: Fleet, statement: str) -> None:
    _acts(fleet, 5)
    with fleet.database.write() as session:
        for act in ("update", "delete"):
            session.execute(text(f"DROP TRIGGER audit_no_{act}"))
        session.execute(text(statement))
    with fleet.database.read() as session, pytest.raises(TrustError, match="broken at row"):
        audit.verify_chain(session)


def _cut(fleet: Fleet, first: int) -> None:
    """Remove the acts from `first` on, behind the triggers."""
    with fleet.database.write() as session:
        session.execute(text("DROP TRIGGER audit_no_delete"))
        session.execute(text(f"DELETE FROM audit WHERE id >= {first}"))


@pytest.mark.parametrize("first", [5, 2, 1])
def test_a_trail_whose_tail_was_cut_off_is_found(fleet: Fleet, first: int) -> None:
    _acts(fleet, 4)
    backend = LocalBackend(fleet, actor="test")
    assert backend.audit(10)["head"]["id"] == backend.audit(10)["count"] == 5
    _cut(fleet, first)
    with fleet.database.read() as session:
        assert audit.verify_chain(session) == first - 1, "as a chain it is whole"
    with pytest.raises(TrustError, match="was cut"):
        backend.audit(10)


def test_acts_put_in_place_of_a_cut_tail_are_found(fleet: Fleet) -> None:
    _acts(fleet, 4)
    head = fleet.home.audit_head.read_bytes()
    _cut(fleet, 4)
    _acts(fleet, 2)
    fleet.home.audit_head.write_bytes(head)
    with pytest.raises(TrustError, match="was cut"):
        LocalBackend(fleet, actor="test").audit(10)


@pytest.mark.parametrize("forged", [b"", b"{}", b'{"signed": {"id": 1, "hash": "x"}, "signatures": [{}]}'])
def test_a_head_that_is_gone_or_forged_is_found(fleet: Fleet, forged: bytes) -> None:
    _acts(fleet, 4)
    fleet.home.audit_head.write_bytes(forged)
    with pytest.raises(TrustError, match="head"):
        LocalBackend(fleet, actor="test").audit(10)
    fleet.home.audit_head.unlink()
    with pytest.raises(TrustError, match="missing"):
        LocalBackend(fleet, actor="test").audit(10)


def test_a_head_signed_by_another_key_is_found(fleet: Fleet) -> None:
    _acts(fleet, 2)
    envelope = json.loads(fleet.home.audit_head.read_bytes())
    stranger = Director(CryptoSigner.generate_ed25519())
    fleet.home.audit_head.write_bytes(stranger.sign_document(envelope["signed"]).to_bytes())
    with pytest.raises(TrustError, match="not signed by this fleet"):
        LocalBackend(fleet, actor="test").audit(10)


def test_a_crash_between_an_act_and_its_head_is_no_cut(fleet: Fleet) -> None:
    _acts(fleet, 2)
    head = fleet.home.audit_head.read_bytes()
    _acts(fleet, 1)
    fleet.home.audit_head.write_bytes(head)
    assert LocalBackend(fleet, actor="test").audit(10)["count"] == 4


def test_the_head_outlives_a_rotation_of_the_directors_key(fleet: Fleet) -> None:
    _acts(fleet, 2)
    rotate_key(fleet, "director")
    assert LocalBackend(fleet, actor="test").audit(10)["acts"][0]["verb"] == "key.rotate"


def test_a_failed_act_leaves_no_trace_in_the_trail(fleet: Fleet) -> None:
    def failing() -> None:
        with fleet.database.write() as session:
            audit.record(session, at=1.0, actor="test", verb="t", subject="x")
            raise RuntimeError("the act failed")

    with pytest.raises(RuntimeError):
        failing()
    with fleet.database.read() as session:
        assert audit.verify_chain(session) == 1  # key.init
