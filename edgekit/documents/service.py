"""Documents of the service itself and of enrolment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from edgekit.documents.base import Document
from edgekit.documents.device import DeviceFacts
from edgekit.wire import Fields


@dataclass(frozen=True, kw_only=True)
class ControllerState(Document):
    """Birth and last will of the service (``ctl/state``, retained). `epoch` grows with each start."""

    kind: ClassVar[str] = "controller"
    state: str
    epoch: int
    at: float

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {"state": source.text("state"), "epoch": source.integer("epoch"), "at": source.number("at")}


@dataclass(frozen=True, kw_only=True)
class EnrolRequest(Document):
    """``POST /v1/enrol``: a one-time token, the public half of the key made on the device
    (Ed25519, 64 hex digits), `proof` = hex signature over ``edgekit-enrol:<token>`` by that key, and
    the facts."""

    kind: ClassVar[str] = "enrol"
    token: str
    public_key: str
    proof: str
    facts: DeviceFacts
    name: str = ""

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "token": source.text("token"),
            "public_key": source.text("public_key"),
            "proof": source.text("proof"),
            "facts": source.maybe("facts", DeviceFacts.read) or _missing(source, "facts"),
            "name": source.text("name", ""),
        }


def _missing(source: Fields, name: str) -> DeviceFacts:
    raise source.fail(name, "is missing")


@dataclass(frozen=True, kw_only=True)
class EnrolAnswer(Document):
    """What a device gets for its token. `root` is the trusted TUF root metadata (JSON text), whose
    sha256 must be the one the token carries; `url` the service's address as the device reached it;
    `mqtt_ca` the certificates (PEM) by which the broker is recognised, empty where it speaks no TLS."""

    kind: ClassVar[str] = "enrolled"
    device: str
    tenant: str
    hardware: str
    url: str
    mqtt_host: str
    mqtt_port: int
    username: str
    password: str
    root: str
    mqtt_ca: str = ""

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "device": source.text("device"),
            "tenant": source.text("tenant"),
            "hardware": source.text("hardware"),
            "url": source.text("url"),
            "mqtt_host": source.text("mqtt_host"),
            "mqtt_port": source.integer("mqtt_port", low=1, high=65_535),
            "username": source.text("username"),
            "password": source.text("password"),
            "root": source.text("root", limit=1 << 20),
            "mqtt_ca": source.text("mqtt_ca", "", limit=1 << 16),
        }
