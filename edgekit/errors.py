"""Every error the core raises, under one root.

EdgekitError                    exit 1   something asked for could not be done
├── UsageError                  exit 2   the call, or a file the user named, is wrong
│   ├── ProfileError                     a hardware profile or rules file
│   ├── ContractError                    a model contract
│   ├── DataError                        calibration, validation or probe data
│   ├── SourceError                      a model file
│   └── PlanError                        a rollout plan
├── RefusedError                exit 3   a gate or a check said no
│   └── TrustError                       signature, digest, rollback, replay: never loaded
├── OperationTimeout            exit 4   did not finish in the time given
├── InconclusiveError           exit 5   neither proven good nor proven bad
├── DocumentError               exit 1   a wire document that does not parse (dropped, counted)
├── StorageError                exit 1   disk full, path not writable; what was there is kept
└── UnavailableError            exit 1   broker, service or runtime not reachable

Facts are attributes (`where`, `remedy`, `code`), so that a command line prints them, HTTP answers
carry them as JSON and tests do not have to match sentences. Each part subclasses these in its own
`errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping


class EdgekitError(Exception):
    """Root of all errors.

    Args:
        message: what is wrong, in one sentence, with what was expected.
        where: the file, field or address it is about, for example ``model.toml: inputs[0].dtype``.
        remedy: what the user can do about it.
        code: a stable machine-readable reason such as ``unknown_profile``; defaults to the class's.
    """

    exit_code = 1
    default_code = "failed"

    def __init__(
        self, message: str, *, where: str | None = None, remedy: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy
        self.code = code or self.default_code

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text

    def as_dict(self) -> Mapping[str, str | None]:
        """The error as JSON-ready facts: ``code``, ``message``, ``where``, ``remedy``."""
        return {"code": self.code, "message": self.message, "where": self.where, "remedy": self.remedy}


class UsageError(EdgekitError):
    """The call or a file given by the user is wrong."""

    exit_code = 2
    default_code = "usage"


class ProfileError(UsageError):
    """A hardware profile or rules file is unknown, unreadable or invalid."""

    default_code = "bad_profile"


class ContractError(UsageError):
    """A model contract is unreadable or does not fit the model."""

    default_code = "bad_contract"


class DataError(UsageError):
    """Calibration, validation or probe data do not fit the model or are unusable."""

    default_code = "bad_data"


class SourceError(UsageError):
    """A model file is missing, corrupt or of a kind that is not supported."""

    default_code = "bad_source"


class PlanError(UsageError):
    """A rollout plan is unreadable or impossible."""

    default_code = "bad_plan"


class RefusedError(EdgekitError):
    """A gate or a check said no; nothing was changed."""

    exit_code = 3
    default_code = "refused"


class TrustError(RefusedError):
    """Something is not signed, not what was signed, older than what was seen, or not for this device."""

    default_code = "untrusted"


class OperationTimeout(EdgekitError):
    """The operation did not finish in the time given; its state is kept."""

    exit_code = 4
    default_code = "timeout"


class InconclusiveError(EdgekitError):
    """The evidence proves neither good nor bad."""

    exit_code = 5
    default_code = "inconclusive"


class DocumentError(EdgekitError):
    """A wire document does not parse; it is dropped and counted, never half used."""

    default_code = "bad_document"


class StorageError(EdgekitError):
    """Writing failed; what was there before is untouched."""

    default_code = "storage"


class UnavailableError(EdgekitError):
    """A broker, a service or a runtime cannot be reached or is not installed."""

    default_code = "unavailable"
