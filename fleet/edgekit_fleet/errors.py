"""Errors of the fleet part, below the core's (`edgekit.errors`), and what each means over HTTP.

UsageError
├── HomeError               400   the fleet home is missing, not initialised or damaged
└── UnknownNameError        404   no device, release, slot … of that name (with the nearest names)
RefusedError
├── ConflictError           409   it exists already and may not change (releases are immutable)
└── AccessError             401   no or wrong credentials
StorageError
└── BusyError               503   somebody else holds the home's lock
UnavailableError
└── BrokerError             503   the broker cannot be started or reached
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgekit.errors import (
    DocumentError,
    EdgekitError,
    InconclusiveError,
    OperationTimeout,
    RefusedError,
    StorageError,
    UnavailableError,
    UsageError,
)
from edgekit.tomlfile import did_you_mean


class HomeError(UsageError):
    """The fleet home is missing, not initialised or damaged."""

    default_code = "bad_home"


class UnknownNameError(UsageError):
    """There is nothing of that name."""

    default_code = "unknown_name"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """The error for an unknown `name` of `kind`, with the nearest of `known` as the remedy."""
        return cls(
            f"there is no {kind} {name!r}",
            where=kind,
            remedy=did_you_mean(name, known),
            code=f"unknown_{kind}",
        )


class ConflictError(RefusedError):
    """It is there already, and what is there may not change."""

    default_code = "conflict"


class AccessError(RefusedError):
    """No credentials, or the wrong ones."""

    default_code = "unauthorized"


class BusyError(StorageError):
    """Another process works on the same fleet home."""

    default_code = "busy"


class BrokerError(UnavailableError):
    """The MQTT broker cannot be started or reached."""

    default_code = "broker"


_STATUS: tuple[tuple[type[EdgekitError], int], ...] = (
    (UnknownNameError, 404),
    (ConflictError, 409),
    (AccessError, 401),
    (UsageError, 400),
    (DocumentError, 400),
    (RefusedError, 403),
    (BusyError, 503),
    (StorageError, 507),
    (UnavailableError, 503),
    (OperationTimeout, 504),
)
_BY_STATUS: Mapping[int, type[EdgekitError]] = {
    400: UsageError,
    401: AccessError,
    403: RefusedError,
    404: UnknownNameError,
    409: ConflictError,
    422: UsageError,
    503: UnavailableError,
    504: OperationTimeout,
    507: StorageError,
}
_BY_EXIT: Mapping[int, type[EdgekitError]] = {
    2: UsageError,
    3: RefusedError,
    4: OperationTimeout,
    5: InconclusiveError,
}


def http_status(error: EdgekitError) -> int:
    """The HTTP status that carries `error`."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(error: EdgekitError) -> dict[str, Any]:
    """The JSON body that carries `error`: ``error``, ``code``, ``where``, ``remedy``, ``exit_code``."""
    return {
        "error": error.message,
        "code": error.code,
        "where": error.where,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }


def error_from_body(status: int, body: Mapping[str, Any], *, where: str) -> EdgekitError:
    """The error an answer of the service carries; the inverse of `http_status` and `error_body`."""
    kind = _BY_STATUS.get(status) or _BY_EXIT.get(body.get("exit_code", 1), EdgekitError)

    def text(name: str) -> str | None:
        value = body.get(name)
        return value if isinstance(value, str) else None

    return kind(
        text("error") or f"the service answered {status}",
        where=text("where") or where,
        remedy=text("remedy"),
        code=text("code"),
    )
