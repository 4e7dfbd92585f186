"""Who calls: an operator (bearer token) or a device (HTTP Basic with its broker credential).

Routes take `operator`, `device` or `either` as a dependency of the caller's name, for the audit trail.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable

from fastapi import Request

from edgekit_fleet.broker.credentials import check_password
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.tables import DeviceRow
from edgekit_fleet.errors import AccessError

OPERATOR = "operator"
Caller = Callable[[Request], str]


def operator(fleet: Fleet) -> Caller:
    """A dependency that lets operators through and returns ``operator``."""

    def check(request: Request) -> str:
        if not _is_operator(fleet, request):
            raise AccessError(
                "the operator token is needed",
                where=request.url.path,
                remedy="give --home, or set EDGEKIT_TOKEN to what stands in operator.token of the fleet home",
            )
        return OPERATOR

    return check


def either(fleet: Fleet) -> Caller:
    """A dependency that lets operators and devices through; returns ``operator`` or the device id."""

    def check(request: Request) -> str:
        if _is_operator(fleet, request):
            return OPERATOR
        device = _device(fleet, request)
        if device is None:
            raise AccessError(
                "unknown device or wrong password", where=request.url.path, remedy="enrol the device again"
            )
        return device

    return check


def _is_operator(fleet: Fleet, request: Request) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    token = fleet.home.operator_token()
    return bool(token) and hmac.compare_digest(given.strip().encode(), token.encode())


def _device(fleet: Fleet, request: Request) -> str | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    with fleet.database.read() as session:
        row = session.get(DeviceRow, user) if colon else None
        hashed = row.password if row else None
    return user if check_password(password, hashed) else None
