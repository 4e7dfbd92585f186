"""The converters' errors, under the core's root.

EdgekitError
├── Refusal                exit 3   a variant cannot or must not be built; carries the reason code
└── ToolFailed             exit 1   a foreign tool crashed, ran out of time or memory; contained
UsageError (core)          exit 2   DataError, SourceError, ContractError, ProfileError are used as they are
"""

from __future__ import annotations

from edgekit.errors import EdgekitError, RefusedError


class Refusal(RefusedError):
    """A variant cannot be built soundly, or failed its check. `code` is the reason code."""

    default_code = "refused"


class ToolFailed(EdgekitError):
    """A foreign converter or runtime crashed, raised, or exceeded its time or memory."""

    default_code = "tool_failed"
