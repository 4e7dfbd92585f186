"""The operations of `device`, `slot` and `release list`, through a running service.

`Backend` is what both ways offer; `edgekit_fleet.backend.LocalBackend` works on the home itself. Both
return the same JSON-ready documents, so that a command line prints the same wherever it runs. Nothing
heavy is imported here.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote

from edgekit.contract import Contract
from edgekit_fleet.client import FleetClient


class Backend(Protocol):
    """What both can do. Errors are `EdgekitError`, the same from both."""

    def devices(self) -> dict[str, Any]: ...

    def device(self, device: str) -> dict[str, Any]: ...

    def pin(self, device: str, slot: str, release: str | None) -> dict[str, Any]: ...

    def tokens(self) -> dict[str, Any]: ...

    def token(self, name: str, ttl: float) -> dict[str, Any]: ...

    def slots(self) -> dict[str, Any]: ...

    def slot(self, name: str) -> dict[str, Any]: ...

    def create_slot(self, name: str, contract: Contract) -> dict[str, Any]: ...

    def releases(self) -> dict[str, Any]: ...

    def release(self, ref: str) -> dict[str, Any]: ...

    def audit(self, limit: int) -> dict[str, Any]: ...

    def status(self) -> dict[str, Any]: ...


class RemoteBackend:
    """Through a running service."""

    def __init__(self, client: FleetClient) -> None:
        self._client = client

    def devices(self) -> dict[str, Any]:
        """All devices."""
        return self._get("/v1/devices")

    def device(self, device: str) -> dict[str, Any]:
        """One device."""
        return self._get(f"/v1/devices/{_part(device)}")

    def pin(self, device: str, slot: str, release: str | None) -> dict[str, Any]:
        """Pin a slot of a device to a signed release, or take the pin away."""
        path = f"/v1/devices/{_part(device)}/pins/{_part(slot)}"
        answer: dict[str, Any] = self._client.put(path, {"release": release})
        return answer

    def tokens(self) -> dict[str, Any]:
        """All tokens, without their secrets."""
        return self._get("/v1/tokens")

    def token(self, name: str, ttl: float) -> dict[str, Any]:
        """A new one-time token."""
        answer: dict[str, Any] = self._client.post("/v1/tokens", {"name": name, "ttl": ttl})
        return answer

    def slots(self) -> dict[str, Any]:
        """All slots."""
        return self._get("/v1/slots")

    def slot(self, name: str) -> dict[str, Any]:
        """One slot."""
        return self._get(f"/v1/slots/{_part(name)}")

    def create_slot(self, name: str, contract: Contract) -> dict[str, Any]:
        """A new slot."""
        body = {"name": name, "contract": contract.to_dict()}
        answer: dict[str, Any] = self._client.post("/v1/slots", body)
        return answer

    def releases(self) -> dict[str, Any]:
        """All releases."""
        return self._get("/v1/releases")

    def release(self, ref: str) -> dict[str, Any]:
        """The newest revision of one release."""
        return self._get(f"/v1/releases/{_part(ref)}")

    def audit(self, limit: int) -> dict[str, Any]:
        """The newest acts, newest first."""
        return self._get(f"/v1/audit?limit={limit}")

    def status(self) -> dict[str, Any]:
        """The fleet in figures."""
        return self._get("/v1/status")

    def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get(path)
        return answer


def _part(text: str) -> str:
    return quote(text, safe="@")
