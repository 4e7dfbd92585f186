"""Mosquitto with TLS as the fleet configures it: certificates made and renewed, devices check who it is."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edgekit_fleet.broker.certificates import ensure_certificates
from edgekit_fleet.broker.child import BrokerChild
from edgekit_fleet.broker.choice import Chosen, choose_broker
from edgekit_fleet.broker.credentials import hash_password
from edgekit_fleet.broker.files import BrokerFiles
from edgekit_fleet.errors import BrokerError
from edgekit_fleet.home import Home, create_home
from edgekit_fleet.transport import Address, MqttTransport
from tests.conftest import require_service
from tests.fleet.mqtt_client import Client

# paho leaves a socket whose handshake failed to the garbage collector.
LEFT_OPEN = "ignore:.*socket:pytest.PytestUnraisableExceptionWarning"
NAMES = ("127.0.0.1", "broker.example")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = create_home(tmp_path / "home")
    change(made, "tls = false", "tls = true")
    return made


def change(home: Home, old: str, new: str) -> None:
    text = home.settings_file.read_text()
    assert old in text
    home.settings_file.write_text(text.replace(old, new))


@contextmanager
def running(home: Home) -> Iterator[Chosen]:
    require_service("mosquitto")
    chosen = choose_broker(home, home.settings(), "mosquitto", {"cam-1": hash_password("of cam-1")})
    assert chosen.launch is not None
    child = BrokerChild(chosen.launch)
    child.start()
    try:
        yield chosen
    finally:
        child.stop()


def device(chosen: Chosen, ca: str) -> Client:
    client = Client(chosen.device_port, "cam-1", "of cam-1")
    context = ssl.create_default_context(cadata=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    client.paho.tls_set_context(context)
    return client


def test_devices_speak_tls_and_the_service_reaches_them_over_loopback(home: Home) -> None:
    got: list[bytes] = []
    with running(home) as chosen:
        assert (chosen.host, chosen.device_host) == ("127.0.0.1", "127.0.0.1")
        assert chosen.port != chosen.device_port
        address = Address(
            host=chosen.host, port=chosen.port, username=chosen.username, password=chosen.password
        )
        service = MqttTransport(address)
        service.start(["ek/1/default/d/+/ev"], lambda _topic, payload, _retained: got.append(payload))
        service.wait_connected(10)
        with device(chosen, chosen.ca) as client:
            client.subscribe("ek/1/default/d/cam-1/desired")
            client.publish("ek/1/default/d/cam-1/ev", b"hello")
            assert service.publish("ek/1/default/d/cam-1/desired", b"do", retain=True)
            client.wait(lambda: bool(client.received))
        service.stop()
    assert got == [b"hello"]


def test_who_does_not_speak_tls_is_not_let_in_at_the_devices_port(home: Home) -> None:
    hello = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05cam-1"
    with running(home) as chosen, socket.create_connection(("127.0.0.1", chosen.device_port), 5) as plain:
        plain.sendall(hello)
        with contextlib.suppress(ConnectionResetError):
            assert not plain.recv(4).startswith(b"\x20"), "no CONNACK"


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_a_device_with_another_ca_says_nothing_to_this_broker(home: Home, tmp_path: Path) -> None:
    other = ensure_certificates(tmp_path / "other", NAMES)
    with running(home) as chosen, pytest.raises(ssl.SSLCertVerificationError):
        device(chosen, other.ca.read_text()).start()


def test_certificates_are_made_once_and_keys_are_private(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path / "tls", NAMES)
    before = {path.name: path.read_bytes() for path in files.folder.iterdir()}
    assert ensure_certificates(tmp_path / "tls", NAMES) == files
    assert {path.name: path.read_bytes() for path in files.folder.iterdir()} == before
    for key in (files.ca_key, files.server_key):
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("names", "days", "renewed"),
    [(NAMES, 300, False), (NAMES, 340, True), (NAMES, 400, True), ((*NAMES, "10.0.0.7"), 0, True)],
)
def test_the_server_certificate_is_renewed_under_the_same_ca_before_it_ends_or_for_new_names(
    tmp_path: Path, names: tuple[str, ...], days: int, renewed: bool
) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    ca, server = files.ca.read_bytes(), files.server.read_bytes()
    later = datetime.now(UTC) + timedelta(days=days)
    ensure_certificates(tmp_path, names, now=later)
    assert files.ca.read_bytes() == ca, "devices keep what they trust"
    assert (files.server.read_bytes() != server) is renewed
    made = x509.load_pem_x509_certificate(files.server.read_bytes())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    assert made.not_valid_after_utc - later > timedelta(days=29)


def test_damaged_certificates_are_named(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES)
    files.server.write_bytes(b"rotten")
    with pytest.raises(BrokerError, match="damaged certificates"):
        ensure_certificates(tmp_path, NAMES)


def test_a_broker_that_listens_everywhere_must_be_told_its_name(home: Home) -> None:
    require_service("mosquitto")
    change(home, 'host = "127.0.0.1"', 'host = "0.0.0.0"')
    change(home, "port = 0", "port = 8883")
    with pytest.raises(BrokerError, match="must be known"):
        choose_broker(home, home.settings(), "mosquitto", {})
    change(home, 'public_host = ""', 'public_host = "fleet.example"')
    choose_broker(home, home.settings(), "mosquitto", {})
    server = x509.load_pem_x509_certificate(BrokerFiles(home=home).tls.server.read_bytes())
    told = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "fleet.example" in told.get_values_for_type(x509.DNSName)


def test_the_fallback_broker_says_that_it_has_no_tls(home: Home) -> None:
    with pytest.raises(BrokerError, match="does not speak TLS"):
        choose_broker(home, home.settings(), "fallback", {})
