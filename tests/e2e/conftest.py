"""Packages for the end-to-end tests, trained and converted once a session, and lines to put them on.

``EDGEKIT_E2E_PACKAGES=FOLDER`` keeps the packages between sessions of somebody who works on these tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit_fleet.demo.calls import Calls, Kind, kinds, wait_child
from edgekit_fleet.demo.processes import Children
from tests.conftest import REPOSITORY, require_service
from tests.e2e.line import Line

BROKERS = ("mosquitto", "fallback")
MakeLine = Callable[..., Line]


@dataclass(frozen=True, kw_only=True)
class Packages:
    """Folders of trained models with their ``package``: `good` and `better` are right, `bad` is wrong in
    the field."""

    good: Path
    better: Path
    bad: Path

    GOOD = "digits@1.0.0"
    BETTER = "digits@1.1.0"
    BAD = "digits@2.0.0"

    def all(self) -> list[tuple[Path, str]]:
        """(package folder, release) of each."""
        folders = ((self.good, self.GOOD), (self.better, self.BETTER), (self.bad, self.BAD))
        return [(folder / "package", ref) for folder, ref in folders]


@pytest.fixture(scope="session")
def host_kinds() -> tuple[Kind, ...]:
    """Kinds of devices this machine can be."""
    return kinds()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, host_kinds: tuple[Kind, ...]) -> Packages:
    """Trains a model, derives a better and a bad one, and converts them for this machine: `good` for every
    kind of device, the others for ONNX Runtime."""
    kept = os.environ.get("EDGEKIT_E2E_PACKAGES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("e2e-packages")
    found = Packages(good=folder / "good", better=folder / "better", bad=folder / "bad")
    if not all((package / "package.json").is_file() for package, _ in found.all()):
        _build(found, folder, host_kinds)
    return found


def _build(found: Packages, folder: Path, chosen: Sequence[Kind]) -> None:
    """Trains once; the other two come from the converted ONNX file, so that nothing heavy is needed."""
    script = REPOSITORY / "examples" / "digits" / "train.py"
    onnx_kinds = [kind for kind in chosen if kind.runtime == "onnxruntime"]
    with Children(folder=folder / "logs", environment={"XDG_CACHE_HOME": str(folder / "cache")}) as children:
        calls = Calls(children=children, folder=folder)
        wait_child(calls.train(script, found.good, version="1.0.0", inverted=False, epochs=16), 240)
        wait_child(calls.convert(found.good, version="1.0.0", chosen=chosen), 240)
        [source] = (found.good / "package" / "variants").glob("*onnx-fp32/model.onnx")
        _derive(found, found.better, onnx.load(source), version="1.1.0", inverted=False)
        _derive(found, found.bad, onnx.load(source), version="2.0.0", inverted=True)
        converted = [
            calls.convert(out, version=out.name, chosen=onnx_kinds, source="model.onnx")
            for out in (found.better, found.bad)
        ]
        for child in converted:
            wait_child(child, 240)


def _derive(found: Packages, out: Path, model: onnx.ModelProto, *, version: str, inverted: bool) -> None:
    """A model of its own from the good one: as good with other bytes, or for a world of inverted images."""
    out.mkdir(parents=True)
    contract = (found.good / "model.toml").read_text(encoding="utf-8")
    (out / "model.toml").write_text(contract.replace('version = "1.0.0"', f'version = "{version}"'))
    for name in ("calibration.npz", "validation.npz"):
        with np.load(found.good / name, allow_pickle=False) as data:
            arrays = dict(data)
        arrays["image"] = 1 - arrays["image"] if inverted else arrays["image"]
        np.savez(out / name, **arrays)
    model.producer_version = version
    if inverted:
        for node in model.graph.node:
            node.input[:] = ["inverted" if name == "image" else name for name in node.input]
        one = onnx.numpy_helper.from_array(np.array(1, np.float32), "one")
        model.graph.initializer.append(one)
        model.graph.node.insert(0, onnx.helper.make_node("Sub", ["one", "image"], ["inverted"]))
    else:
        weights = max(model.graph.initializer, key=lambda item: len(item.raw_data))
        changed = onnx.numpy_helper.to_array(weights) * np.float32(1.001)
        weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    onnx.save(model, out / "model.onnx")


@pytest.fixture(scope="session")
def prepared_home(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet home with keys, all three releases signed, and the slot with enforced probes. To be copied."""
    with Line(tmp_path_factory.mktemp("prepared"), broker="mosquitto") as line:
        line.prepare(packages.all(), packages.good / "model.toml")
        line.calls.probes(packages.good / "probes.npz", policy="enforce", min_accuracy=0.8)
        return line.calls.home


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[MakeLine]:
    """Lines of this test, ended with it; their logs are shown when it fails."""
    made: list[Line] = []

    def make(broker: str = "mosquitto", name: str = "line", **settings: str) -> Line:
        if broker == "mosquitto":
            require_service("mosquitto")
        line = Line(tmp_path / name, broker=broker, **settings)
        line.__enter__()
        made.append(line)
        return line

    yield make
    for line in made:
        line.__exit__()
        for log in sorted(line.children.folder.glob("*.log")):
            print(f"==== {log.name}", log.read_text(errors="replace")[-1500:], sep="\n", file=sys.stderr)
