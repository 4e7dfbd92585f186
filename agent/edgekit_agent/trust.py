"""The resident side of trust: asks the trust child and turns its answer into values or a refusal.

The child (`edgekit_agent.trust_child`) is started per question, so that TUF and cryptography never
enter this process. Refusals are `VerificationError` with one of these codes:

================== ========= ==========================================================
code               stage     meaning
================== ========= ==========================================================
metadata_rollback  metadata  the repository offers an older metadata version
metadata_expired   metadata  metadata is past its date (retryable)
metadata_unsigned  metadata  signatures missing or below the threshold
metadata_invalid   metadata  metadata does not parse or contradicts itself
unreachable        metadata  no connection (retryable)
unsigned           envelope  the desired document has no signature
unknown_key        envelope  signed by a key that is no director's
bad_signature      envelope  altered after signing
wrong_device       envelope  another device's document
wrong_hardware     envelope  a document for other hardware
replayed           envelope  an older gen than one accepted before
expired, not_yet   envelope  a command outside its time
target_missing     package   the release was never signed, or was invalidated
package_mismatch   package   package, variant or probes are not the ones signed
hash_mismatch      any       a byte is not as signed
too_large          any       more bytes than signed or allowed
disk_full, storage any       this device cannot write (retryable)
child_failed       metadata  the child did not answer (retryable)
================== ========= ==========================================================
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgekit.documents import BenchOrder, Desired
from edgekit_agent.config import Home
from edgekit_agent.errors import VerificationError
from edgekit_agent.web import Service

_MEGA = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the child verified for one slot: its manifest and, if any, its ground-truth probes."""

    manifest: Path
    truth: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A genuine desired document. `slots` has evidence for those that are not installed yet."""

    desired: Desired
    slots: Mapping[str, Evidence]


class Trust(Protocol):
    """What the lifecycle needs of trust. Blocking: call it off the event loop."""

    def desired(self, envelope: bytes, *, gen: int, installed: Mapping[str, str]) -> Verified:
        """Verify an envelope; `gen` is the lowest acceptable, `installed` slot → ``package/digest``.

        Raises:
            VerificationError: see the table above.
        """

    def files(self, folder: Path, *, package: str, variant: str) -> None:
        """Compare a variant's files with the manifest of digest `package`.

        Raises:
            VerificationError: a file is not the one that was signed.
        """


class OrderTrust(Protocol):
    """What measuring on command needs of trust. Blocking: call it off the event loop."""

    def order(self, envelope: bytes, *, now: float, store: Path) -> BenchOrder:
        """Verify a command, and put the signed manifest it names below the folder `store`.

        Raises:
            VerificationError: see the table above.
        """

    def files(self, folder: Path, *, package: str, variant: str) -> None:
        """As `Trust.files`."""


class TrustChild:
    """`Trust` and `OrderTrust` by a process per question.

    Args:
        home: where root and metadata lie.
        service: where the repository is.
        device: this device's id.
        hardware: the strata it accepts documents for.
        seconds: time limit of one question.
        probe_mb: cap of a ground-truth probe set.
        state: where TUF's metadata lie, in the home by default.
    """

    def __init__(
        self,
        home: Home,
        service: Service,
        *,
        device: str,
        hardware: Sequence[str],
        seconds: float = 120.0,
        probe_mb: int = 256,
        state: Path | None = None,
    ) -> None:
        self._state = state or home.state / "tuf"
        self._home, self._service = home, service
        self._device, self._hardware = device, tuple(hardware)
        self._seconds, self._probe_bytes = seconds, probe_mb * _MEGA

    def desired(self, envelope: bytes, *, gen: int, installed: Mapping[str, str]) -> Verified:
        """See `Trust.desired`."""
        answer = self._ask(
            {
                **self._asked("desired", envelope, self._home.store),
                "hardware": list(self._hardware),
                "gen": gen,
                "installed": dict(installed),
                "limit": self._probe_bytes,
            }
        )
        slots = {
            name: Evidence(
                manifest=Path(item["manifest"]), truth=Path(item["truth"]) if item["truth"] else None
            )
            for name, item in answer["slots"].items()
        }
        return Verified(desired=Desired.from_dict(answer["signed"]), slots=slots)

    def order(self, envelope: bytes, *, now: float, store: Path) -> BenchOrder:
        """See `OrderTrust.order`."""
        answer = self._ask({**self._asked("order", envelope, store), "now": now})
        return BenchOrder.from_dict(answer["signed"])

    def _asked(self, op: str, envelope: bytes, store: Path) -> dict[str, Any]:
        """What every question about a signed document says."""
        return {
            "op": op,
            "envelope": envelope.decode("utf-8", "replace"),
            "state": str(self._state),
            "store": str(store),
            "root": str(self._home.root),
            "url": self._service.url,
            "username": self._service.username,
            "password": self._service.password,
            "device": self._device,
        }

    def files(self, folder: Path, *, package: str, variant: str) -> None:
        """See `Trust.files`."""
        self._ask({"op": "files", "folder": str(folder), "package": package, "variant": variant})

    def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "edgekit_agent.trust_child"],
                input=json.dumps(question).encode(),
                capture_output=True,
                timeout=self._seconds,
                check=False,
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else None
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise _failed(str(error)) from error
        if not isinstance(answer, dict):
            raise _failed(done.stderr.decode("utf-8", "replace")[-400:].strip() or f"exit {done.returncode}")
        if not answer["ok"]:
            raise VerificationError(
                answer["message"],
                code=answer["code"],
                stage=answer["stage"],
                retryable=answer["retryable"],
                where=answer["where"],
            )
        return answer


def _failed(detail: str) -> VerificationError:
    return VerificationError(
        f"the trust child gave no answer: {detail}", code="child_failed", stage="metadata", retryable=True
    )


__all__ = ["Evidence", "OrderTrust", "Trust", "TrustChild", "Verified"]
