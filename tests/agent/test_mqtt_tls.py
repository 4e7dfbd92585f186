"""The MQTT link over TLS and a real Mosquitto: who the broker is is checked before anything is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.documents import EnrolAnswer
from edgekit_agent.clock import SystemClock
from edgekit_agent.config import Config, load_config
from edgekit_agent.errors import ConfigError
from edgekit_agent.mqtt import Address, Link, Tls, tls_of
from tests.conftest import require_service
from tests.simulators.certificates import Authority, authority
from tests.simulators.mosquitto import mosquitto

# paho leaves a socket whose handshake failed to the garbage collector.
LEFT_OPEN = "ignore:.*socket:pytest.PytestUnraisableExceptionWarning"
IDENTITY = EnrolAnswer(
    device="dev-1",
    tenant="acme",
    hardware="toy",
    url="http://127.0.0.1:1",
    mqtt_host="127.0.0.1",
    mqtt_port=1,
    username="dev-1",
    password="secret",
    root="{}",
)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ours")


@contextmanager
def broker(folder: Path, ca: Authority, *, name: str = "127.0.0.1", more: str = "") -> Iterator[int]:
    """A broker that says it is `name`; its port."""
    certificate, key = ca.issue(name)
    lines = f"cafile {ca.pem}\ncertfile {certificate}\nkeyfile {key}\n{more}"
    with mosquitto(require_service("mosquitto"), folder / "broker", listener=lines) as running:
        yield running.port


@contextmanager
def link(port: int, tls: Tls | None) -> Iterator[Link]:
    made = Link(
        Address(
            host="127.0.0.1",
            port=port,
            tenant="acme",
            device="dev-1",
            username="dev-1",
            password="secret",
            tls=tls,
        ),
        boot_id="00000001-a",
        agent="0.1.0",
        clock=SystemClock(),
        new_session=lambda: 1,
        on_message=lambda topic, payload: None,
        on_connection=lambda up: None,
        longest_pause=0.1,
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


def wait(done: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def test_the_link_speaks_tls_with_the_broker_it_was_given_the_certificate_of(
    tmp_path: Path, ours: Authority
) -> None:
    with broker(tmp_path, ours) as port:
        for ca in (str(ours.pem), ours.pem.read_text()):
            with link(port, Tls(ca=ca)) as connected:
                wait(lambda link=connected: link.connected)  # type: ignore[misc]  # bound now
                assert connected.publish("ev", b"{}")


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_a_broker_of_another_authority_learns_no_password(tmp_path: Path, ours: Authority) -> None:
    other = authority(tmp_path / "other")
    with broker(tmp_path, other) as port, link(port, Tls(ca=str(ours.pem))) as refused:
        wait(lambda: "certificate verify failed" in refused.last_error)
        assert not refused.connected
        assert refused.alive, "it goes on trying"


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_a_certificate_of_another_name_is_refused(tmp_path: Path, ours: Authority) -> None:
    with (
        broker(tmp_path, ours, name="broker.example") as port,
        link(port, Tls(ca=str(ours.pem))) as refused,
    ):
        wait(lambda: "certificate" in refused.last_error)
        assert not refused.connected


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_the_systems_authorities_do_not_vouch_for_our_broker(tmp_path: Path, ours: Authority) -> None:
    with broker(tmp_path, ours) as port, link(port, Tls()) as refused:
        wait(lambda: "certificate verify failed" in refused.last_error)


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_a_broker_that_speaks_no_tls_is_not_spoken_to_without(tmp_path: Path, ours: Authority) -> None:
    with (
        mosquitto(require_service("mosquitto"), tmp_path / "plain") as plain,
        link(plain.port, Tls(ca=str(ours.pem))) as refused,
    ):
        wait(lambda: refused.last_error)
        assert not refused.connected


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_a_broker_that_asks_for_the_devices_own_certificate_gets_it(tmp_path: Path, ours: Authority) -> None:
    certificate, key = ours.issue("dev-1")
    with broker(tmp_path, ours, more="require_certificate true\n") as port:
        with link(port, Tls(ca=str(ours.pem))) as refused:
            wait(lambda: refused.last_error)
            assert not refused.connected
        with link(port, Tls(ca=str(ours.pem), cert=str(certificate), key=str(key))) as connected:
            wait(lambda: connected.connected)


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA"])
def test_unusable_certificates_are_an_error_of_the_configuration(
    tmp_path: Path, ours: Authority, content: bytes | None
) -> None:
    broken = tmp_path / "broken.pem"
    if content is not None:
        broken.write_bytes(content)
    for tls in (Tls(ca=str(broken)), Tls(ca=str(ours.pem), cert=str(broken), key=str(broken))):
        with pytest.raises(ConfigError, match="no usable certificate") as caught:
            tls.context()
        assert str(broken) in (caught.value.where or "")


def test_the_configuration_goes_before_what_enrolment_gave(tmp_path: Path, ours: Authority) -> None:
    given = replace(IDENTITY, mqtt_ca=ours.pem.read_text())
    assert tls_of(Config(), IDENTITY) is None
    assert tls_of(Config(), given) == Tls(ca=ours.pem.read_text())
    config = tmp_path / "agent.toml"
    config.write_text('[mqtt]\nca = "other.pem"\ncert = "/etc/dev.pem"\nkey = "dev.key"\n')
    expected = Tls(ca=str(tmp_path / "other.pem"), cert="/etc/dev.pem", key=str(tmp_path / "dev.key"))
    assert tls_of(load_config(config), given) == expected
    config.write_text('[mqtt]\nca = "system"\n')
    assert tls_of(load_config(config), given) == Tls()
    config.write_text('[mqtt]\ncert = "a.pem"\n')
    with pytest.raises(ConfigError, match="belong together"):
        load_config(config)
