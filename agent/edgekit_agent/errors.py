"""What can go wrong on a device, under the core's root.

EdgekitError
├── UsageError
│   ├── ConfigError        agent.toml or the call is wrong
│   ├── NotEnrolledError   this home has no identity yet
│   └── RequestError       a caller's request is wrong: names, shapes, dtypes, NaN, JSON; HTTP 400
├── RefusedError
│   ├── EnrolmentError     the service said no, or its root is not the one the token vouches for
│   └── TrustError (core)
│       └── VerificationError   the trust child's refusal: `stage`, `retryable`
├── InstallError           a step of an installation failed: `retryable`
├── ModelError             a loaded model failed while computing: held against the model; HTTP 500
├── UnknownModelError      no such slot, or another version than the one asked for; HTTP 404
└── UnavailableError
    ├── BusyError          the inference queue is full, or nothing serves the slot yet; HTTP 503
    └── TransferError      an HTTP exchange failed: `status`, `retry_after`
"""

from __future__ import annotations

from edgekit.errors import EdgekitError, RefusedError, TrustError, UnavailableError, UsageError


class ConfigError(UsageError):
    """The agent's configuration or call is wrong."""

    default_code = "bad_config"


class NotEnrolledError(UsageError):
    """The home folder has no device identity."""

    default_code = "not_enrolled"


class RequestError(UsageError):
    """A caller's request is wrong; never held against a model. `code` is the kind that is counted."""

    default_code = "bad_request"


class EnrolmentError(RefusedError):
    """Enrolment was refused, by the service or by this device."""

    default_code = "enrolment_refused"


class VerificationError(TrustError):
    """Something offered to the device was not trusted.

    `stage` says how far it got: ``metadata`` (TUF), ``envelope`` (the desired document itself: nothing
    in it may be believed), ``package`` (the document is genuine, what it names is not). `retryable`
    is true where waiting may help.
    """

    def __init__(
        self, message: str, *, code: str, stage: str, retryable: bool = False, where: str | None = None
    ) -> None:
        super().__init__(message, code=code, where=where)
        self.stage = stage
        self.retryable = retryable


class InstallError(EdgekitError):
    """A step of an installation failed; the incumbent goes on serving."""

    def __init__(self, message: str, *, code: str, retryable: bool = False, where: str | None = None) -> None:
        super().__init__(message, code=code, where=where)
        self.retryable = retryable


class ModelError(EdgekitError):
    """A loaded model failed while computing. `code` is the kind that is counted."""

    default_code = "model_failed"


class UnknownModelError(EdgekitError):
    """The slot does not exist, or does not serve the version that was asked for."""

    default_code = "unknown_model"


class BusyError(UnavailableError):
    """Too many requests are waiting, or nothing serves the slot yet; trying again later helps."""

    default_code = "busy"


class TransferError(UnavailableError):
    """An HTTP exchange failed. `status` is None when there was no answer; `retry_after` in seconds."""

    default_code = "unreachable"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, where=where, code=code)
        self.status = status
        self.retry_after = retry_after


__all__ = [
    "BusyError",
    "ConfigError",
    "EnrolmentError",
    "InstallError",
    "ModelError",
    "NotEnrolledError",
    "RequestError",
    "TransferError",
    "UnknownModelError",
    "VerificationError",
]
