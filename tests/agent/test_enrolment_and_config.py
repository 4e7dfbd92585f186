"""Enrolment, configuration and the command line: what is refused, with which words and exit code."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgekit_agent import cli
from edgekit_agent.config import Home, load_config
from edgekit_agent.detect import cpu_features, memory_mb
from edgekit_agent.enrol import enrol
from edgekit_agent.errors import ConfigError, EnrolmentError, TransferError
from tests.conftest import REPOSITORY
from tests.simulators.service import FakeService


def home(folder: Path) -> Home:
    return Home(path=folder / "home")


def test_the_key_is_made_here_stays_here_and_proves_itself(tmp_path: Path, service: FakeService) -> None:
    answer = enrol(home(tmp_path), url=service.url, token=service.token, labels={"site": "lab"})
    assert answer.device == "dev-1"
    request = service.enrolled[0]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(request.public_key))
    public.verify(bytes.fromhex(request.proof), f"edgekit-enrol:{service.token}".encode())
    assert request.facts.labels == {"site": "lab"}
    assert stat.S_IMODE(home(tmp_path).key.stat().st_mode) == 0o600
    assert stat.S_IMODE(home(tmp_path).identity.stat().st_mode) == 0o600
    assert b"PRIVATE" not in request.to_bytes()


def test_a_service_with_another_root_than_the_tokens_is_refused(tmp_path: Path, service: FakeService) -> None:
    token = service.token.split(".")[0] + "." + hashlib.sha256(b"other").hexdigest()
    with pytest.raises(EnrolmentError) as caught:
        enrol(home(tmp_path), url=service.url, token=token)
    assert (caught.value.code, caught.value.exit_code) == ("wrong_root", 3)
    assert not home(tmp_path).identity.exists()
    assert not home(tmp_path).root.exists()


def test_a_used_token_is_refused_in_the_services_words(tmp_path: Path, service: FakeService) -> None:
    token = "another-secret" + service.token[service.token.index(".") :]
    with pytest.raises(EnrolmentError, match="the token is used up"):
        enrol(home(tmp_path), url=service.url, token=token)


def test_enrolling_again_after_a_lost_answer_uses_the_same_key(tmp_path: Path, service: FakeService) -> None:
    enrol(home(tmp_path), url=service.url, token=service.token)
    home(tmp_path).identity.unlink()
    enrol(home(tmp_path), url=service.url, token=service.token)
    assert service.enrolled[0].public_key == service.enrolled[1].public_key


def test_an_enrolled_home_is_not_enrolled_twice(tmp_path: Path, service: FakeService) -> None:
    enrol(home(tmp_path), url=service.url, token=service.token)
    with pytest.raises(ConfigError, match="enrolled already"):
        enrol(home(tmp_path), url=service.url, token=service.token)


def test_a_service_that_is_not_there_is_named(tmp_path: Path, service: FakeService) -> None:
    with pytest.raises(TransferError, match=r"http://127\.0\.0\.1:1/"):
        enrol(home(tmp_path), url="http://127.0.0.1:1", token=service.token)


@pytest.mark.parametrize(
    ("url", "token"),
    [("ftp://x", "s" * 10 + "." + "0" * 64), ("http://127.0.0.1:1", "nonsense"), ("", "x")],
)
def test_a_malformed_url_or_token_is_a_usage_error(tmp_path: Path, url: str, token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        enrol(home(tmp_path), url=url, token=token)
    assert caught.value.exit_code == 2


def test_the_written_configuration_reads_back(tmp_path: Path, service: FakeService) -> None:
    enrol(
        home(tmp_path),
        url=service.url,
        token=service.token,
        labels={"site": 'la"b'},
        runtimes=("onnxruntime",),
        precisions=("int8", "fp32"),
    )
    config = load_config(home(tmp_path).config)
    assert config.labels == {"site": 'la"b'}
    assert config.runtimes == ("onnxruntime",)
    assert config.precisions == ("int8", "fp32")
    assert set(service.enrolled[0].facts.runtimes) <= {"onnxruntime"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent", "not valid TOML"),
        ("[agent]\nmodes = ['servise']", "service"),
        ("[agent]\nmodes = ['batch', 'service']", "cannot be combined"),
        ("[agent]\nthreats = 2", "threads"),
        ("[http]\nport = 70000", "0 to 65535"),
        ("[telemetry]\nseconds = 0", "above 0"),
        ("[device.labels]\nfloor = 3", "texts were expected"),
        ("[[stream]]\nkind = 'serial'\nslot = 'x'", "needs its port"),
        ("[[stream]]\nkind = 'serial'\nslot = 'x'\nport = 'p'\nformat = 'morse'", "frames"),
        ("[[stream]]\nkind = 'mqtt'", "slot"),
        ("[[batch]]\nslot = 'x'\ninput = 'a'\noutput = 'b'\nformat = 'xml'", "format"),
    ],
)
def test_a_wrong_configuration_names_file_key_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_configuration_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.toml").modes == ("service",)


@pytest.mark.parametrize("command", [["run"], ["status"], ["status", "--json"]])
def test_a_home_that_is_not_enrolled_says_how_to_enrol(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit_agent.cli", *command, "--home", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 2
    assert "edgekit-agent enrol --url URL --token TOKEN" in done.stderr


def test_a_label_without_a_value_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    token = "s" * 10 + "." + "0" * 64
    code = cli.main(["enrol", "--url", "http://127.0.0.1:1", "--token", token, "--label", "site"])
    assert code == 2
    assert "site=lab" in capsys.readouterr().err


def test_enrol_as_json_and_its_refusal_as_json(
    tmp_path: Path, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["enrol", "--url", service.url, "--home", str(tmp_path / "h"), "--json", "--token"]
    assert cli.main([*words, service.token]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "dev-1"
    assert cli.main([*words, service.token]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "bad_config"


def test_facts_are_read_from_the_kernels_own_words() -> None:
    assert cpu_features("processor : 0\nFeatures\t: fp asimd crc32\n") == ("asimd", "crc32", "fp")
    assert cpu_features("flags : sse avx\nprocessor: 1\nflags: x\n") == ("avx", "sse")
    assert cpu_features("") == ()
    assert memory_mb("MemTotal:        3884040 kB\nMemFree: 1 kB\n") == 3793
    assert memory_mb("") == 0


def test_this_machine_is_detected_without_importing_a_runtime() -> None:
    program = (
        "import sys; from edgekit_agent.config import Config; from edgekit_agent.detect import detect; "
        "facts = detect(Config()).facts; "
        "assert facts.machine and facts.memory_mb > 0 and facts.os; "
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    for name in ("ai_edge_litert", "onnxruntime", "numpy", "tensorflow"):
        assert f"'{name}'" not in done.stdout
