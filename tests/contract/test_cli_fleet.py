"""`--json` of the fleet's commands, run on one fleet from its making on: one golden document a command.

What differs from run to run (times, keys, secrets, folders) is replaced by its kind. To write the golden
documents anew after a deliberate change: ``EDGEKIT_UPDATE_GOLDEN=1 pytest tests/contract``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgekit.cli.main import cli
from edgekit_fleet.context import open_fleet
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.home import Home
from tests.fleet.homes import FACTS, write_package

GOLDEN = Path(__file__).parent / "golden" / "cli"
MODEL = """\
[model]
name = "digits"
version = "1.0.0"

[[inputs]]
name = "image"
dtype = "float32"
shape = [-1, 8, 8, 1]

[[outputs]]
name = "digit"
task = "classification"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""
REF = "digits@1.0.0"
STEPS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("key_init", ("key", "init")),
    ("key_status", ("key", "status")),
    ("fleet_init", ("fleet", "init")),
    ("fleet_status", ("fleet", "status")),
    ("release_add_dry_run", ("release", "add", "{package}", "--dry-run")),
    ("release_add", ("release", "add", "{package}")),
    ("release_sign_dry_run", ("release", "sign", REF, "--dry-run")),
    ("release_sign", ("release", "sign", REF)),
    ("release_verify", ("release", "verify", REF)),
    ("release_show", ("release", "show", REF)),
    ("release_verify_folder", ("release", "verify", "{package}")),
    ("release_list", ("release", "list")),
    ("slot_create_dry_run", ("slot", "create", "digits", "--contract", "{model}", "--dry-run")),
    ("slot_create", ("slot", "create", "digits", "--contract", "{model}")),
    ("slot_probes_add", ("slot", "probes", "add", "digits", "{probes}", "--min-accuracy", "0.9")),
    ("slot_list", ("slot", "list")),
    ("slot_show", ("slot", "show", "digits")),
    ("device_token_dry_run", ("device", "token", "--name", "cam-1", "--dry-run")),
    ("device_token", ("device", "token", "--name", "cam-2")),
    ("device_list", ("device", "list")),
    ("device_show", ("device", "show", "cam-1")),
    ("device_pin_dry_run", ("device", "pin", "cam-1", REF, "--slot", "digits", "--dry-run")),
    ("device_pin", ("device", "pin", "cam-1", REF, "--slot", "digits")),
    ("device_pin_clear", ("device", "pin", "cam-1", "--slot", "digits", "--clear")),
    ("bench_offline_request", ("bench", REF, "--device", "cam-1", "--offline-request", "{request}")),
    ("bench_list", ("bench", "list")),
    ("release_invalidate_dry_run", ("release", "invalidate", REF, "--reason", "wrong", "--dry-run")),
    ("key_rotate_dry_run", ("key", "rotate", "timestamp", "--dry-run")),
    ("key_rotate", ("key", "rotate", "timestamp")),
    ("release_invalidate", ("release", "invalidate", REF, "--reason", "wrong")),
    ("fleet_audit", ("fleet", "audit")),
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every command run in order on one fleet; its JSON, volatile values replaced."""
    folder = tmp_path_factory.mktemp("golden")
    home = folder / "home"
    write_package(folder / "package")
    (folder / "model.toml").write_text(MODEL)
    image = np.linspace(0, 1, 4 * 64, dtype=np.float32).reshape(4, 8, 8, 1)
    np.savez(folder / "probes.npz", image=image, labels=np.arange(4))
    names = {"package": "package", "model": "model.toml", "probes": "probes.npz", "request": "request.zip"}
    places = {key: folder / name for key, name in names.items()}
    made: dict[str, Any] = {}
    for name, words in STEPS:
        if name == "device_list":
            add_device(home)
        arguments = [word.format(**places) for word in words]
        run = CliRunner().invoke(cli, [*arguments, "--home", str(home), "--json"], catch_exceptions=False)
        assert run.exit_code == 0, (name, run.output)
        made[name] = plain(json.loads(run.stdout), str(folder))
    return made


def add_device(home: Path) -> None:
    """A device as enrolment leaves it, without a service."""
    fleet = open_fleet(Home(path=home))
    with fleet.database.write() as session:
        session.add(
            DeviceRow(
                id="cam-1",
                hardware=FACTS.hardware,
                facts=FACTS.to_dict(),
                labels=dict(FACTS.labels),
                enrolled=1.0,
                public_key="1" * 64,
                password="",
                pins={},
            )
        )
    fleet.database.close()


def plain(value: Any, folder: str, key: str = "") -> Any:
    """`value` with times, keys, secrets and folders replaced by their kind."""
    if isinstance(value, dict):
        return {name: plain(member, folder, name) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member, folder, key) for member in value]
    if key in ("at", "now", "enrolled", "created", "ended") or key.endswith("_at"):
        return value if value is None else "<time>"
    if key in ("expires",):
        return value if value is None else "<date>"
    if key == "actor":
        return "<actor>"
    if key in ("keyid", "hash", "sha256", "root", "targets", "snapshot", "timestamp", "director"):
        return value if value is None else "<hex>"
    if key == "token" and value and "." in value:
        return "<token>"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{12}", value):
        return "<id>"
    if key == "id" and isinstance(value, str) and re.fullmatch(r"[a-z0-9]{16}", value):
        return "<id>"
    if not isinstance(value, str):
        return value
    if key in ("before", "keyids") and re.fullmatch(r"[0-9a-f]{64}", value):
        return "<hex>"
    return re.sub(r"retired-[0-9a-f]{12}", "retired-<hex>", value).replace(folder, "<folder>")


@pytest.mark.parametrize("name", [name for name, _ in STEPS])
def test_the_answer_is_the_golden_one(answers: dict[str, Any], name: str) -> None:
    text = json.dumps(answers[name], indent=2, sort_keys=True) + "\n"
    place = GOLDEN / f"{name}.json"
    if os.environ.get("EDGEKIT_UPDATE_GOLDEN"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert place.read_text() == text


def test_no_golden_document_is_left_over() -> None:
    known = {f"{name}.json" for name, _ in STEPS}
    mine = {
        p.name
        for p in GOLDEN.glob("*.json")
        if p.name.partition("_")[0] in ("key", "release", "slot", "device", "bench")
    }
    assert mine <= known
