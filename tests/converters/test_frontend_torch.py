"""PyTorch programs: exported archives, factories and TorchScript, each against PyTorch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgekit.errors import EdgekitError, SourceError
from edgekit_converters.engine.pool import Pool
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.source import recognise
from tests.conftest import require_package

require_package("torch", "torch")
pytestmark = pytest.mark.slow

_CODE = """
import torch
def make():
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    return torch.nn.Sequential(*layers, torch.nn.Softmax(1)), torch.randn(1, 3, 8, 8)
class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.LSTM(3, 4, batch_first=True)
    def forward(self, x):
        return self.inner(x)[0][:, -1]
def lstm():
    return Recurrent(), torch.randn(1, 7, 3)
def bare():
    return torch.nn.Linear(3, 2)
def number():
    return 3
def broken():
    raise RuntimeError("no weights here")
class Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
def branching():
    return Branching(), torch.randn(2, 3)
"""

_MAKE = """
import pathlib, sys, torch, warnings
warnings.simplefilter("ignore")
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
import net
module, example = net.make()
module.eval()
example = torch.cat([example, example])
free = ({0: torch.export.Dim("batch")},)
torch.export.save(torch.export.export(module, (example,), dynamic_shapes=free), folder / "free.pt2")
torch.jit.save(torch.jit.script(module), folder / "script" / "m.pt")
class Evil:
    def __reduce__(self):
        return (pathlib.Path.touch, (folder / "ran",))
torch.save((Evil(),), folder / "evil.bin")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code, and what PyTorch saved of it."""
    found = tmp_path_factory.mktemp("torch")
    (found / "script").mkdir()
    (found / "net.py").write_text(_CODE)
    subprocess.run([sys.executable, "-c", _MAKE, found], check=True, capture_output=True)
    contract = '[[inputs]]\nname = "picture"\ndtype = "float32"\nshape = [-1, 3, 8, 8]\n'
    (found / "script" / "model.toml").write_text(contract)
    return found


def both(path: Path, workers: Pool, tmp_path: Path, n: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """PyTorch's answers and those of the ONNX form, on the same rows."""
    source = asdict(recognise(path))
    facts = workers.run("torch", "describe", {"source": source})
    random = np.random.default_rng(0)
    rows = {i["name"]: random.random((n, *i["shape"][1:]), np.float32) for i in facts["inputs"]}
    save_arrays(tmp_path / "rows.npz", rows)
    names = {item["name"]: item["name"] for item in (*facts["inputs"], *facts["outputs"])}
    data = {"data": str(tmp_path / "rows.npz"), "out": str(tmp_path / "out.npz")}
    workers.run("torch", "reference", {"source": source, "names": names, **data})
    workers.run("torch", "export", {"source": source, "out": str(tmp_path / "m.onnx")})
    model = onnx.load(tmp_path / "m.onnx")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = dict(zip([item.name for item in session.get_inputs()], rows.values(), strict=True))
    expected = load_arrays(tmp_path / "out.npz")
    return expected, dict(zip(expected, session.run(None, fed), strict=True))


@pytest.mark.parametrize("name", ["free.pt2", "net.py:make", "net.py:lstm", "script/m.pt"])
def test_a_program_keeps_its_free_batch_and_computes_the_same(
    name: str, folder: Path, workers: Pool, tmp_path: Path
) -> None:
    expected, found = both(folder / name, workers, tmp_path)
    for port, values in expected.items():
        np.testing.assert_allclose(found[port], values, rtol=1e-5, atol=1e-6)
        assert found[port].shape == values.shape


def test_a_pickled_object_in_an_archive_is_not_run(folder: Path, workers: Pool, tmp_path: Path) -> None:
    path = tmp_path / "evil.pt2"
    with zipfile.ZipFile(folder / "free.pt2") as good, zipfile.ZipFile(path, "w") as bad:
        for item in good.namelist():
            evil = item.endswith("sample_inputs/model.pt")
            bad.writestr(item, (folder / "evil.bin").read_bytes() if evil else good.read(item))
    with pytest.raises(SourceError, match="cannot load"):
        workers.run("torch", "describe", {"source": asdict(recognise(path))})
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.py:bare", "sizes of its inputs"),
        ("net.py:number", "torch.nn.Module"),
        ("net.py:broken", "no weights here"),
        ("net.py:missing", "no function"),
        ("net.py:branching", "cannot follow"),
    ],
)
def test_a_factory_that_gives_no_model_is_refused_with_its_name(
    name: str, said: str, folder: Path, workers: Pool
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        workers.run("torch", "describe", {"source": asdict(recognise(folder / name))})
    assert str(caught.value.where).endswith(name)


def test_torchscript_without_a_contract_says_what_it_needs(
    folder: Path, workers: Pool, tmp_path: Path
) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes((folder / "script" / "m.pt").read_bytes())
    with pytest.raises(SourceError, match=r"model\.toml"):
        workers.run("torch", "describe", {"source": asdict(recognise(path))})


@pytest.mark.parametrize(("name", "part"), [("free.pt2", "models/model.json"), ("script/m.pt", "data.pkl")])
def test_a_damaged_part_is_refused_with_the_name_of_the_file(
    name: str, part: str, folder: Path, workers: Pool, tmp_path: Path
) -> None:
    path = tmp_path / Path(name).name
    with zipfile.ZipFile(folder / name) as good, zipfile.ZipFile(path, "w") as bad:
        for item in good.namelist():
            data = good.read(item)
            bad.writestr(item, data[: len(data) // 2] if item.endswith(part) else data)
    with pytest.raises(EdgekitError) as caught:
        workers.run("torch", "describe", {"source": asdict(recognise(path))})
    assert str(caught.value.where) == str(path.resolve())
