"""What an attacker, a broken mirror or an old backup can offer, and the code the trust child answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from edgekit_agent.errors import VerificationError
from edgekit_agent.trust import TrustChild, Verified
from edgekit_agent.web import Service
from tests.agent.harness import make_home
from tests.simulators import toy_model
from tests.simulators.service import FakeService
from tests.simulators.toy_model import PROFILE, Toy
from tests.simulators.tuf_repo import _expiry


class Device:
    """One device that asks the trust child."""

    def __init__(self, folder: Path, service: FakeService) -> None:
        self.home, _ = make_home(folder, service)
        self.service = service
        self.toy = toy_model.make()
        service.add(self.toy)
        self.child = TrustChild(
            self.home, Service(url=service.url), device="dev-1", hardware=(PROFILE,), seconds=60
        )

    def ask(self, envelope: bytes, *, gen: int = 0) -> Verified:
        return self.child.desired(envelope, gen=gen, installed={})

    def refusal(self, envelope: bytes, *, gen: int = 0) -> VerificationError:
        with pytest.raises(VerificationError) as caught:
            self.ask(envelope, gen=gen)
        return caught.value

    def good(self, toy: Toy | None = None) -> bytes:
        return self.service.envelope(self.service.wish(toy or self.toy))


@pytest.fixture
def device(tmp_path: Path, service: FakeService) -> Device:
    return Device(tmp_path, service)


def test_a_genuine_document_gives_the_verified_manifest_and_probes(device: Device) -> None:
    truth = device.service.add_probes(toy_model.truth_npz())
    wish = device.service.wish(device.toy, truth=truth)
    verified = device.ask(device.service.envelope(wish))
    evidence = verified.slots["toy"]
    assert evidence.manifest.read_bytes() == device.toy.manifest.to_bytes()
    assert evidence.truth is not None
    assert evidence.truth.read_bytes() == toy_model.truth_npz()
    assert verified.desired.slots["toy"].digest == device.toy.variant.digest


def test_a_slot_that_runs_the_package_already_needs_no_release(device: Device) -> None:
    envelope = device.good()
    device.service.repo.remove_target("packages/toy/1.0.0/package.json")
    device.service.repo.publish()
    running = {"toy": f"{device.toy.manifest.digest}/{device.toy.variant.digest}"}
    verified = device.child.desired(envelope, gen=0, installed=running)
    assert verified.slots == {}


def test_an_altered_document_is_refused_as_bad_signature(device: Device) -> None:
    value = json.loads(device.good())
    value["signed"]["gen"] += 1
    error = device.refusal(json.dumps(value).encode())
    assert (error.code, error.stage) == ("bad_signature", "envelope")


def test_an_unsigned_document_is_refused(device: Device) -> None:
    value = json.loads(device.good())
    bare = json.dumps({**value, "signatures": []}).encode()
    assert device.refusal(bare).code == "unsigned"
    assert device.refusal(json.dumps(value["signed"]).encode()).code == "malformed"


def test_a_document_signed_by_another_key_is_refused_as_unknown_key(device: Device) -> None:
    desired = device.service.desire(device.service.wish(device.toy))
    forged = device.service.repo.sign(desired, signer=CryptoSigner.generate_ed25519())
    assert device.refusal(forged.to_bytes()).code == "unknown_key"
    targets = device.service.repo.sign(desired, signer=device.service.repo.signers["targets"])
    assert device.refusal(targets.to_bytes()).code == "unknown_key"


def test_another_devices_document_is_refused(device: Device) -> None:
    envelope = device.service.envelope(device.service.wish(device.toy), device="dev-2")
    assert device.refusal(envelope).code == "wrong_device"


def test_a_document_for_other_hardware_is_refused(device: Device) -> None:
    envelope = device.service.envelope(device.service.wish(device.toy), hardware="rpi4")
    assert device.refusal(envelope).code == "wrong_hardware"


def test_a_replayed_document_is_refused(device: Device) -> None:
    old = device.good()
    error = device.refusal(old, gen=2)
    assert (error.code, error.stage, error.retryable) == ("replayed", "envelope", False)


def test_an_unsigned_package_is_refused(device: Device) -> None:
    error = device.refusal(device.good(toy_model.make("9.9.9")))
    assert (error.code, error.stage) == ("target_missing", "package")


def test_an_invalidated_release_is_refused(device: Device) -> None:
    device.ask(device.good())
    device.service.repo.remove_target("packages/toy/1.0.0/package.json")
    device.service.repo.publish()
    assert device.refusal(device.good()).code == "target_missing"


def test_a_signed_name_with_another_package_digest_is_refused(device: Device) -> None:
    other = toy_model.make("1.0.0", toy_model.WRONG)
    assert device.refusal(device.good(other)).code == "package_mismatch"


def test_a_variant_that_is_not_in_the_signed_table_is_refused(device: Device) -> None:
    wish = replace(device.service.wish(device.toy), digest="sha256:" + "0" * 64)
    assert device.refusal(device.service.envelope(wish)).code == "package_mismatch"


def test_a_flipped_byte_in_the_manifest_is_refused(device: Device) -> None:
    files = device.service.repo.files
    name = next(path for path in files if path.endswith(".package.json"))
    files[name] = files[name].replace(b"toy-int8", b"toy-int9", 1)
    error = device.refusal(device.good())
    assert (error.code, error.stage) == ("hash_mismatch", "package")


def test_a_flipped_byte_in_the_probes_is_refused(device: Device) -> None:
    truth = device.service.add_probes(toy_model.truth_npz())
    files = device.service.repo.files
    name = next(path for path in files if path.endswith(".npz"))
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    envelope = device.service.envelope(device.service.wish(device.toy, truth=truth))
    assert device.refusal(envelope).code == "hash_mismatch"


def test_other_probes_than_the_signed_ones_are_refused(device: Device) -> None:
    truth = device.service.add_probes(toy_model.truth_npz())
    wish = device.service.wish(device.toy, truth=replace(truth, sha256="0" * 64))
    assert device.refusal(device.service.envelope(wish)).code == "package_mismatch"


def test_new_timestamp_version_rollback_is_refused(device: Device) -> None:
    files = device.service.repo.files
    old = files["metadata/timestamp.json"]
    device.service.add(toy_model.make("2.0.0"))
    device.ask(device.good())
    files["metadata/timestamp.json"] = old
    error = device.refusal(device.good())
    assert (error.code, error.stage) == ("metadata_rollback", "metadata")


def test_expired_metadata_is_refused_and_may_get_better(device: Device) -> None:
    device.service.repo.timestamp.expires = _expiry(-1)
    device.service.repo.publish()
    error = device.refusal(device.good())
    assert (error.code, error.retryable) == ("metadata_expired", True)


def test_metadata_signed_by_another_key_is_refused(device: Device) -> None:
    device.service.repo.signers["targets"] = CryptoSigner.generate_ed25519()
    device.service.repo.publish()
    assert device.refusal(device.good()).code == "metadata_unsigned"


def test_another_repositorys_metadata_is_refused(device: Device, tmp_path: Path) -> None:
    from tests.simulators.tuf_repo import TufRepo

    mine = device.good()
    device.service.repo = TufRepo()
    assert device.refusal(mine).code == "metadata_unsigned"


def test_endless_metadata_is_refused(device: Device) -> None:
    device.service.repo.files["metadata/timestamp.json"] = b" " * 100_000
    assert device.refusal(device.good()).code == "too_large"


def test_a_service_that_is_down_is_unreachable_and_may_come_back(device: Device) -> None:
    device.service.refuse["/tuf/"] = (503, {})
    error = device.refusal(device.good())
    assert (error.code, error.retryable) == ("unreachable", True)


def test_a_redirect_to_another_host_is_not_followed(device: Device) -> None:
    device.service.refuse["/tuf/metadata/timestamp"] = (302, {"Location": "http://127.0.0.2:9/x"})
    assert device.refusal(device.good()).code == "unreachable"


def test_a_damaged_file_on_disk_is_found_before_it_is_loaded(device: Device, tmp_path: Path) -> None:
    evidence = device.ask(device.good()).slots["toy"]
    folder = evidence.manifest.parent
    for item in device.toy.manifest.all_files():
        path = folder / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(device.toy.blobs[item.sha256])
    package, variant = device.toy.manifest.digest, device.toy.variant.id
    device.child.files(folder, package=package, variant=variant)
    model = folder / device.toy.variant.files[0].path
    model.write_bytes(model.read_bytes().replace(b"1.0", b"1.5", 1))
    with pytest.raises(VerificationError) as caught:
        device.child.files(folder, package=package, variant=variant)
    assert caught.value.code == "hash_mismatch"


def test_a_child_that_hangs_or_dies_is_a_refusal_and_not_a_hang(device: Device) -> None:
    impatient = TrustChild(
        device.home, Service(url=device.service.url), device="dev-1", hardware=(PROFILE,), seconds=0.01
    )
    with pytest.raises(VerificationError) as caught:
        impatient.desired(device.good(), gen=0, installed={})
    assert (caught.value.code, caught.value.retryable) == ("child_failed", True)
