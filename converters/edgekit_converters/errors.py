"""The converters' errors, under the core's root.

EdgekitError
├── Refusal                exit 3   a variant cannot or must not be built; carries the reason code
└── ToolFailed             exit 1   a foreign tool crashed, ran out of time or memory; contained
UsageError (core)          exit 2   DataError, SourceError, ContractError, ProfileError are used as they are
"""

from __future__ import annotations

import errno

from edgekit.errors import EdgekitError, RefusedError, StorageError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Refusal(RefusedError):
    """A variant cannot be built soundly, or failed its check. `code` is the reason code."""

    default_code = "refused"


class ToolFailed(EdgekitError):
    """A foreign converter or runtime crashed, raised, or exceeded its time or memory."""

    default_code = "tool_failed"


def storage_error(error: OSError, where: str, what: str, otherwise: str) -> StorageError:
    """The StorageError for `error` in doing `what`; `otherwise` is the remedy unless the disk is full."""
    full = error.errno in _FULL
    return StorageError(
        f"{what}: {error.strerror or error}",
        where=str(error.filename or where),
        remedy="free some space and run it again" if full else otherwise,
        code="disk_full" if full else None,
    )


def is_disk_full(error: OSError) -> bool:
    """Whether writing failed for want of space."""
    return error.errno in _FULL
