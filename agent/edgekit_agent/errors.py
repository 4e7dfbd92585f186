"""What can go wrong on a device, under the core's root.

EdgekitError
├── UsageError
│   └── RequestError       a caller's request is wrong: names, shapes, dtypes, NaN, JSON; HTTP 400
├── ModelError             a loaded model failed while computing: held against the model; HTTP 500
├── UnknownModelError      no such slot, or another version than the one asked for; HTTP 404
└── UnavailableError
    └── BusyError          the inference queue is full, or nothing serves the slot yet; HTTP 503
"""

from __future__ import annotations

from edgekit.errors import EdgekitError, UnavailableError, UsageError


class RequestError(UsageError):
    """A caller's request is wrong; never held against a model. `code` is the kind that is counted."""

    default_code = "bad_request"


class ModelError(EdgekitError):
    """A loaded model failed while computing. `code` is the kind that is counted."""

    default_code = "model_failed"


class UnknownModelError(EdgekitError):
    """The slot does not exist, or does not serve the version that was asked for."""

    default_code = "unknown_model"


class BusyError(UnavailableError):
    """Too many requests are waiting, or nothing serves the slot yet; trying again later helps."""

    default_code = "busy"
