"""Releases by threat: tampered, changed, poisoned, interrupted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from edgekit.digest import sha256_hex
from edgekit.errors import DocumentError, StorageError, TrustError
from edgekit_fleet.audit import verify_chain
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import AuditRow
from edgekit_fleet.errors import ConflictError, HomeError, UnknownNameError
from edgekit_fleet.releases import (
    add_release,
    invalidate_release,
    list_releases,
    show_release,
    sign_release,
    signed_release,
    target_path,
    verify_folder,
    verify_release,
)
from edgekit_fleet.trust.keys import key_path
from tests.fleet.homes import write_package

REF = "digits@1.0.0"
A, B = "x86-64-litert-tflite-int8", "x86-64-litert-tflite-fp32"


def add(fleet: Fleet, folder: Path, **options: Any) -> dict[str, Any]:
    return add_release(fleet, folder, actor="test", **options)


def sign(fleet: Fleet, ref: str = REF, **options: Any) -> dict[str, Any]:
    return sign_release(fleet, ref, actor="test", **options)


def states(fleet: Fleet) -> list[tuple[int, str]]:
    with fleet.database.read() as session:
        return sorted((row.revision, row.state) for row in list_releases(session))


def blobs(fleet: Fleet) -> list[Path]:
    return sorted(path for path in fleet.home.blobs.rglob("*") if path.is_file())


def test_a_package_is_added_signed_and_verified_end_to_end(base_fleet: Fleet, tmp_path: Path) -> None:
    manifest = write_package(tmp_path / "p", variants=(A, B))
    assert add(base_fleet, tmp_path / "p")["added"] is True
    assert sign(base_fleet)["state"] == "signed"
    target = base_fleet.repository.target(target_path("digits", "1.0.0"))
    assert target is not None
    custom = target.custom["edgekit"]
    assert custom["package"] == manifest.digest
    assert [entry["id"] for entry in custom["variants"]] == [A, B]
    assert verify_release(base_fleet, REF)["files"] == 4
    assert verify_folder(base_fleet, tmp_path / "p")["signed"] is True
    for item in manifest.all_files():
        assert sha256_hex(base_fleet.store.path(item.sha256).read_bytes()) == item.sha256


def test_adding_and_signing_twice_changes_nothing(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    assert add(base_fleet, tmp_path / "p")["added"] is False
    sign(base_fleet)
    published = sorted(path.name for path in base_fleet.home.metadata.iterdir())
    assert sign(base_fleet)["signed_now"] is False
    assert sorted(path.name for path in base_fleet.home.metadata.iterdir()) == published
    assert states(base_fleet) == [(1, "signed")]


def test_a_flipped_byte_in_the_folder_is_refused_and_nothing_is_kept(
    base_fleet: Fleet, tmp_path: Path
) -> None:
    write_package(tmp_path / "p")
    model = tmp_path / "p" / f"variants/{A}/model.tflite"
    model.write_bytes(model.read_bytes().swapcase())
    with pytest.raises(DocumentError) as caught:
        add(base_fleet, tmp_path / "p")
    assert caught.value.code == "digest_mismatch"
    assert states(base_fleet) == []
    assert blobs(base_fleet) == []


def test_bytes_that_change_between_check_and_copy_are_refused(
    base_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "p")
    model = tmp_path / "p" / f"variants/{A}/model.tflite"
    real = base_fleet.store.put

    def late(path: Path, *, expected: str | None = None) -> str:
        model.write_bytes(b"swapped after the check")
        return real(path, expected=expected)

    monkeypatch.setattr(base_fleet.store, "put", late)
    with pytest.raises(DocumentError, match="expected"):
        add(base_fleet, tmp_path / "p")
    assert states(base_fleet) == []
    assert blobs(base_fleet) == []


def test_the_same_version_with_other_content_is_refused(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    write_package(tmp_path / "q", salt="other weights")
    add(base_fleet, tmp_path / "p")
    with pytest.raises(ConflictError) as caught:
        add(base_fleet, tmp_path / "q")
    assert caught.value.code == "immutable"
    assert caught.value.exit_code == 3
    assert states(base_fleet) == [(1, "added")]


def test_a_revision_may_add_variants_only(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p", variants=(A,))
    write_package(tmp_path / "more", variants=(A, B))
    add(base_fleet, tmp_path / "p")
    sign(base_fleet)
    assert add(base_fleet, tmp_path / "more")["revision"] == 2
    with base_fleet.database.read() as session:
        assert signed_release(session, REF).revision == 1
    sign(base_fleet)
    assert states(base_fleet) == [(1, "replaced"), (2, "signed")]
    write_package(tmp_path / "less", variants=(B,))
    with pytest.raises(ConflictError, match="differs"):
        add(base_fleet, tmp_path / "less")


def test_an_invalidated_release_is_gone_for_ever(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    sign(base_fleet)
    done = invalidate_release(base_fleet, REF, reason="trained on inverted images", actor="test")
    assert done["state"] == "invalidated"
    assert base_fleet.repository.target(target_path("digits", "1.0.0")) is None
    with pytest.raises(ConflictError, match="inverted"):
        add(base_fleet, tmp_path / "p")
    with pytest.raises(ConflictError, match="inverted"):
        sign(base_fleet)
    with pytest.raises(TrustError, match="inverted"):
        verify_release(base_fleet, REF)
    with base_fleet.database.read() as session, pytest.raises(ConflictError, match="inverted"):
        signed_release(session, REF)


def test_invalidating_again_keeps_the_first_reason(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    sign(base_fleet)
    first = invalidate_release(base_fleet, REF, reason="trained on inverted images", actor="test")
    assert first["invalidated_now"] is True
    for dry_run in (True, False):
        again = invalidate_release(base_fleet, REF, reason="spring cleaning", actor="test", dry_run=dry_run)
        assert (again["reason"], again["invalidated_now"]) == ("trained on inverted images", False)
    with base_fleet.database.read() as session:
        acts = session.scalars(select(AuditRow).where(AuditRow.verb == "release.invalidate")).all()
    assert [act.after["reason"] for act in acts if act.after] == ["trained on inverted images"]


def test_a_damaged_blob_is_never_signed(base_fleet: Fleet, tmp_path: Path) -> None:
    manifest = write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    base_fleet.store.path(manifest.variants[0].files[0].sha256).write_bytes(b"rotten")
    with pytest.raises(DocumentError, match="damaged"):
        sign(base_fleet)
    assert states(base_fleet) == [(1, "added")]
    assert base_fleet.repository.target(target_path("digits", "1.0.0")) is None


def test_verify_finds_damage_after_signing(base_fleet: Fleet, tmp_path: Path) -> None:
    manifest = write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    sign(base_fleet)
    place = base_fleet.store.path(manifest.variants[0].files[0].sha256)
    data = place.read_bytes()
    place.write_bytes(data[:-1])
    with pytest.raises(DocumentError, match="damaged"):
        verify_release(base_fleet, REF)
    place.unlink()
    with pytest.raises(StorageError, match="no such blob"):
        verify_release(base_fleet, REF)


def test_an_unsigned_release_is_not_verified_and_not_brought_out(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    with pytest.raises(TrustError, match="not signed"):
        verify_release(base_fleet, REF)
    with base_fleet.database.read() as session, pytest.raises(ConflictError) as caught:
        signed_release(session, REF)
    assert caught.value.code == "not_signed"


def test_a_crash_between_publishing_and_the_table_is_healed_by_signing_again(
    base_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgekit_fleet.releases.audit.record", crash)
        with pytest.raises(KeyboardInterrupt):
            sign(base_fleet)
    assert states(base_fleet) == [(1, "added")]
    assert base_fleet.repository.target(target_path("digits", "1.0.0")) is not None
    assert sign(base_fleet)["state"] == "signed"
    assert verify_release(base_fleet, REF)["verified"] is True


def test_a_full_disk_leaves_no_half_blob_and_no_release(
    base_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "p")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgekit_fleet.store.os.fsync", full)
    with pytest.raises(StorageError) as caught:
        add(base_fleet, tmp_path / "p")
    assert caught.value.code == "disk_full"
    assert caught.value.remedy is not None
    monkeypatch.undo()
    assert blobs(base_fleet) == []
    assert states(base_fleet) == []
    add(base_fleet, tmp_path / "p")


def test_without_the_targets_key_nothing_changes_and_the_remedy_is_said(
    base_fleet: Fleet, tmp_path: Path
) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    safe = tmp_path / "safe"
    safe.mkdir()
    os.rename(key_path(base_fleet.home.keys, "targets"), key_path(safe, "targets"))
    with pytest.raises(HomeError) as caught:
        sign(base_fleet)
    assert "--keys" in (caught.value.remedy or "")
    assert states(base_fleet) == [(1, "added")]


@pytest.mark.parametrize("ref", ["digits@1.0.1", "digit@1.0.0"])
def test_an_unknown_release_is_answered_with_the_nearest(base_fleet: Fleet, tmp_path: Path, ref: str) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    with pytest.raises(UnknownNameError, match=REF):
        sign(base_fleet, ref)
    with pytest.raises(UnknownNameError, match=REF):
        verify_release(base_fleet, ref)
    with pytest.raises(UnknownNameError, match=REF):
        invalidate_release(base_fleet, ref, reason="x", actor="test")


@pytest.mark.parametrize("ref", ["digits", "@", "a@", "../x@1", "a@../1", "a b@1"])
def test_a_ref_that_is_none_is_refused(base_fleet: Fleet, ref: str) -> None:
    with pytest.raises(DocumentError, match="NAME@VERSION"):
        sign(base_fleet, ref)


@pytest.mark.parametrize("damage", ["gone", "json", "schema", "path"])
def test_a_malformed_package_is_named(base_fleet: Fleet, tmp_path: Path, damage: str) -> None:
    write_package(tmp_path / "p")
    place = tmp_path / "p" / "package.json"
    body = json.loads(place.read_bytes())
    if damage == "gone":
        place.unlink()
    elif damage == "json":
        place.write_bytes(b"{")
    elif damage == "schema":
        place.write_text(json.dumps({**body, "schema": 99}))
    else:
        body["variants"][0]["files"][0]["path"] = "../../etc/passwd"
        place.write_text(json.dumps(body))
    with pytest.raises((DocumentError, StorageError)) as caught:
        add(base_fleet, tmp_path / "p")
    assert caught.value.where is not None
    assert states(base_fleet) == []


def test_a_dry_run_changes_nothing(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    assert add(base_fleet, tmp_path / "p", dry_run=True)["added"] is True
    assert states(base_fleet) == []
    assert blobs(base_fleet) == []
    add(base_fleet, tmp_path / "p")
    assert sign(base_fleet, dry_run=True)["signed_now"] is True
    assert states(base_fleet) == [(1, "added")]
    invalidate_release(base_fleet, REF, reason="x", actor="test", dry_run=True)
    assert states(base_fleet) == [(1, "added")]


def test_everything_done_stands_in_the_audit_trail(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    add(base_fleet, tmp_path / "p")
    sign(base_fleet)
    invalidate_release(base_fleet, REF, reason="x", actor="test")
    with base_fleet.database.read() as session:
        assert verify_chain(session) == 4  # with key.init


# -- papers


def papers(folder: Path, digest: str, note: str = "first") -> None:
    """Measurements and report as `edgekit convert` writes them."""
    (folder / "report").mkdir(exist_ok=True)
    (folder / "measurements.json").write_text(json.dumps({"package": digest, "note": note}))
    (folder / "report" / "index.html").write_text(f"<p>{note}</p>")


def test_measurements_and_report_are_kept_beside_the_release(base_fleet: Fleet, tmp_path: Path) -> None:
    manifest = write_package(tmp_path / "p")
    papers(tmp_path / "p", manifest.digest)
    assert add(base_fleet, tmp_path / "p", dry_run=True)["papers"] == []
    assert not base_fleet.home.papers.exists()
    kept = ["measurements.json", "report/index.html"]
    assert add(base_fleet, tmp_path / "p")["papers"] == kept
    sign(base_fleet)
    shown = show_release(base_fleet, REF, out=tmp_path / "out")
    assert (shown["papers"], shown["digest"]) == (kept, manifest.digest)
    assert (tmp_path / "out" / "report" / "index.html").read_text() == "<p>first</p>"
    with pytest.raises(ConflictError, match="already"):
        show_release(base_fleet, REF, out=tmp_path / "out")


def test_adding_a_package_again_replaces_its_papers_and_nothing_else(
    base_fleet: Fleet, tmp_path: Path
) -> None:
    manifest = write_package(tmp_path / "p")
    papers(tmp_path / "p", manifest.digest)
    add(base_fleet, tmp_path / "p")
    papers(tmp_path / "p", manifest.digest, "second")
    assert add(base_fleet, tmp_path / "p")["added"] is False
    show_release(base_fleet, REF, out=tmp_path / "out")
    assert (tmp_path / "out" / "report" / "index.html").read_text() == "<p>second</p>"
    shutil.rmtree(tmp_path / "p" / "report")
    (tmp_path / "p" / "measurements.json").unlink()
    assert add(base_fleet, tmp_path / "p")["papers"], "a package that comes without keeps what there is"


@pytest.mark.parametrize("content", ["{", "[]", '{"package": "sha256:00"}'])
def test_the_measurements_of_another_package_are_refused(
    base_fleet: Fleet, tmp_path: Path, content: str
) -> None:
    write_package(tmp_path / "p")
    (tmp_path / "p" / "measurements.json").write_text(content)
    with pytest.raises(DocumentError, match=r"measurements\.json"):
        add(base_fleet, tmp_path / "p")
    assert states(base_fleet) == []


def test_a_release_without_papers_says_so(base_fleet: Fleet, tmp_path: Path) -> None:
    write_package(tmp_path / "p")
    assert add(base_fleet, tmp_path / "p")["papers"] == []
    with pytest.raises(ConflictError, match="no papers"):
        show_release(base_fleet, REF, out=tmp_path / "out")
