"""What each part may import, seen from outside: import-linter's contracts, and what a bare process loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = Path(sys.executable).parent
HEAVY = frozenset({"coremltools", "keras", "onnx", "tensorflow", "torch"})
HEAVY |= {"click", "fastapi", "pydantic", "rich", "sqlalchemy", "starlette", "uvicorn"}
RUNTIMES = frozenset({"ai_edge_litert", "tflite_runtime", "onnxruntime"})


def loaded_by(statement: str) -> frozenset[str]:
    """Top-level names in sys.modules after a fresh interpreter ran `statement`."""
    code = f"{statement}\nimport sys\nprint(' '.join(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY / "docs"
    )
    return frozenset(done.stdout.split())


def test_every_import_contract_holds() -> None:
    done = subprocess.run(
        [SCRIPTS / "lint-imports", "--no-logo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout


def test_the_core_imports_the_standard_library_only() -> None:
    graph = grimp.build_graph("edgekit", include_external_packages=True, cache_dir=None)
    foreign = {
        (importer, imported)
        for importer in graph.modules
        if not importer.startswith("edgekit.cli")
        for imported in graph.find_modules_directly_imported_by(importer)
        if not imported.startswith("edgekit") and imported not in sys.stdlib_module_names
    }
    assert {imported for _, imported in foreign} <= {"tomli"}, sorted(foreign)


def test_importing_the_core_loads_nothing_foreign() -> None:
    modules = sorted(path.stem for path in (REPOSITORY / "edgekit").glob("[a-z]*.py"))
    loaded = loaded_by("import " + ", ".join(f"edgekit.{name}" for name in modules))
    assert not loaded & (HEAVY | RUNTIMES | {"numpy", "paho", "tuf", "cryptography"})


def test_asking_for_help_loads_no_part() -> None:
    loaded = loaded_by(
        "import contextlib, io\n"
        "from edgekit.cli.main import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    cli.main(['--help'], standalone_mode=False)"
    )
    assert "edgekit_fleet" not in loaded
    assert "edgekit_converters" not in loaded
    assert not loaded & (HEAVY - {"click"} | RUNTIMES | {"numpy", "paho", "tuf"})


@pytest.mark.parametrize("module", ["edgekit_agent", "edgekit_agent.cli"])
def test_the_agent_starts_without_heavy_stacks_runtimes_or_numpy(module: str) -> None:
    if not (REPOSITORY / "agent" / Path(*module.split(".")).with_suffix(".py")).exists() and "." in module:
        pytest.skip(f"{module} does not exist yet")
    loaded = loaded_by(f"import {module}")
    assert not loaded & (HEAVY | RUNTIMES | {"numpy", "tuf", "securesystemslib", "cryptography", "serial"})
