"""Foreign tools in environments of their own: made only when asked, whole or not at all, pinned."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from edgekit.errors import UnavailableError, UsageError
from edgekit_converters.cli_tools import tools as command
from edgekit_converters.errors import ToolFailed
from edgekit_converters.sidecars import SIDECARS, TRITON, VELA, WEB, Sidecar, environment, root
from edgekit_converters.sidecars.tools import sidecar_called, tools


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for tools, and no package index but a folder of wheels."""
    monkeypatch.setenv("EDGEKIT_TOOLS", str(tmp_path / "tools"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(environment, "LOCKS", tmp_path)
    return tmp_path


def little(place: Path, digest: str | None = None) -> Sidecar:
    """A sidecar of one package of ours, its lock and its wheel in `place`."""
    wheel = place / "littletool-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("littletool.py", "ANSWER = 42\n")
        archive.writestr(
            "littletool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: littletool\nVersion: 1.0\n"
        )
        archive.writestr(
            "littletool-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("littletool-1.0.dist-info/RECORD", "")
    found = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    (place / "little.txt").write_text(f"littletool==1.0 --hash=sha256:{found}\n")
    return Sidecar(
        name="little",
        title="A tool",
        requirements=("littletool==1.0",),
        pythons=("3.11", "3.12", "3.13"),
        megabytes=1,
    )


def test_looking_for_a_tool_installs_nothing(place: Path) -> None:
    assert [item.ready() for item in SIDECARS] == [None, None, None]
    assert [item.place for item in tools() if item.installable] == [None, None, None]
    assert not root().exists()


def test_an_environment_is_installed_used_outdated_by_a_new_lock_and_removed(place: Path) -> None:
    sidecar = little(place)
    assert sidecar.python() is None
    python = sidecar.install()
    answer = subprocess.run(
        [python, "-c", "import littletool; print(littletool.ANSWER)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "42\n"
    assert sidecar.python() == python == sidecar.install()
    assert sidecar.packages() is not None
    lock = sidecar.lock.read_text()
    sidecar.lock.write_text(lock + "# other\n")
    assert sidecar.python() is None
    sidecar.lock.write_text(lock)
    (lost,) = sidecar.folder.glob("lib/python3.*/site-packages/littletool.py")
    lost.unlink()
    assert sidecar.python() is None
    assert sidecar.install() == sidecar.python()
    assert lost.exists()
    assert sidecar.remove()
    assert not sidecar.remove()
    assert sidecar.python() is None


def test_bytes_that_are_not_the_pinned_ones_leave_no_environment(place: Path) -> None:
    sidecar = little(place, digest="0" * 64)
    with pytest.raises(ToolFailed) as caught:
        sidecar.install()
    assert caught.value.code == "install_failed"
    assert sidecar.python() is None


def test_a_python_that_the_lock_does_not_serve_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    old = Sidecar(name="little", title="t", requirements=("a==1",), pythons=("3.8",), megabytes=1)
    with pytest.raises(UnavailableError) as caught:
        old.install()
    assert caught.value.code == "no_python"
    assert "python3.8" in str(caught.value.remedy)


@pytest.mark.parametrize("sidecar", [TRITON, VELA], ids=lambda item: item.name)
def test_the_lock_pins_what_the_sidecar_requires_with_hashes(sidecar: Sidecar) -> None:
    lines = sidecar.lock.read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
    for text in sidecar.requirements:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name]), text
    hashed = sum(
        line.endswith("\\") and after.strip().startswith("--hash=sha256:")
        for line, after in itertools.pairwise(lines)
        if "==" in line
    )
    assert hashed == len(pins)


def test_the_package_lock_pins_what_the_web_sidecar_requires_with_hashes() -> None:
    packages = json.loads(WEB.lock.read_text())["packages"]
    wanted = json.loads(WEB.lock.with_name("package.json").read_text())["dependencies"]
    assert wanted == {"onnxruntime-web": WEB.version}
    assert packages.pop("")["dependencies"] == wanted
    assert packages["node_modules/onnxruntime-web"]["version"] == WEB.version
    assert all(item["integrity"].startswith("sha512-") for item in packages.values())


def test_without_npm_the_web_sidecar_says_what_it_needs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(UnavailableError) as caught:
        WEB.install()
    assert caught.value.code == "no_npm"
    assert WEB.ready() is None


def test_a_package_that_lost_its_files_is_as_good_as_none(place: Path) -> None:
    lock = place / "web" / "package-lock.json"
    lock.parent.mkdir()
    lock.write_text("{}")
    for name in WEB.files:
        (WEB.made / name).parent.mkdir(parents=True, exist_ok=True)
        (WEB.made / name).touch()
    (WEB.folder / environment.STAMP).write_text(hashlib.sha256(b"{}").hexdigest())
    assert WEB.ready() == WEB.made
    (WEB.made / WEB.files[0]).unlink()
    assert WEB.ready() is None


def test_a_tool_of_the_system_is_not_installed_but_explained() -> None:
    with pytest.raises(UsageError) as caught:
        sidecar_called("armnn")
    assert caught.value.code == "not_installable"
    assert "python3-pyarmnn" in str(caught.value.remedy)
    with pytest.raises(UsageError) as caught:
        sidecar_called("tritn")
    assert caught.value.remedy == "did you mean triton?"


def test_kits_are_found_by_their_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDL_TOOLS_PATH", str(tmp_path))
    monkeypatch.setenv("TFLM_ROOT", str(tmp_path))
    found = {item.name: item.place for item in tools()}
    assert found["tidl"] == str(tmp_path)
    assert found["tflm"] is None  # a folder, but not its sources
    (tmp_path / "tensorflow/lite/micro").mkdir(parents=True)
    assert {item.name: item.place for item in tools()}["tflm"] == str(tmp_path)
    monkeypatch.delenv("TIDL_TOOLS_PATH")
    assert {item.name: item.place for item in tools()}["tidl"] is None


def test_the_commands_say_what_is_absent_and_how_it_is_got(place: Path) -> None:
    listed = CliRunner().invoke(command, ["list", "--json"])
    rows = {item["name"]: item for item in json.loads(listed.stdout)}
    assert set(rows) == {"triton", "vela", "armnn", "tidl", "tflm", "web", "chromium"}
    assert rows["triton"]["get"].startswith("edgekit tools install triton")
    assert not rows["vela"]["found"]
    assert "absent" in CliRunner().invoke(command, ["list"]).stdout
    removed = CliRunner().invoke(command, ["remove", "vela", "--json"])
    assert json.loads(removed.stdout) == {"vela": "was not installed"}
