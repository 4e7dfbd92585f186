"""The command group: fast help, exit codes, errors that say which distribution is missing."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from edgekit import errors
from edgekit.cli import main as module
from edgekit.cli.registry import DISTRIBUTION, SHORT_HELP


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_imports_no_part_and_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['edgekit', '--help']\n"
        "from edgekit.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'fastapi', 'sqlalchemy', 'onnx', 'tensorflow', 'coremltools', 'rich', 'paho',\n"
        "         'edgekit_fleet', 'edgekit_converters', 'edgekit_agent'} & set(sys.modules)\n"
        "print('LOADED', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_an_unknown_command_is_a_usage_error_with_a_message() -> None:
    done = run("frobnicate")
    assert done.returncode == 2
    assert "frobnicate" in done.stderr


def test_every_command_of_ours_has_its_help_and_its_distribution() -> None:
    assert set(SHORT_HELP) == set(DISTRIBUTION)
    assert all(text.endswith(".") for text in SHORT_HELP.values())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.EdgekitError, 1),
        (errors.UsageError, 2),
        (errors.ProfileError, 2),
        (errors.RefusedError, 3),
        (errors.TrustError, 3),
        (errors.OperationTimeout, 4),
        (errors.InconclusiveError, 5),
    ],
)
def test_each_error_has_its_exit_code_and_names_where_and_remedy(
    kind: type[errors.EdgekitError],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_args: object, **_named: object) -> None:
        raise kind("is wrong", where="file.toml: field", remedy="mend it")

    monkeypatch.setattr(module.cli, "main", fail)
    with pytest.raises(SystemExit) as caught:
        module.main()
    assert caught.value.code == code
    assert capsys.readouterr().err == "edgekit: file.toml: field: is wrong (mend it)\n"


def test_a_missing_part_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_installed", dict)
    context = click.Context(module.cli)
    with pytest.raises(click.UsageError, match="pip install edgekit-fleet"):
        module.cli.get_command(context, "rollout")


def test_no_error_exits_with_zero() -> None:
    ours = [
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.EdgekitError)
    ]
    assert len(ours) > 10
    assert all(cls.exit_code for cls in ours)
