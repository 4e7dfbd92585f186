"""The seams: what a part must offer so that another can use it without knowing it.

Implementations register through entry points (`edgekit.targets`, `edgekit.runtimes`). Nothing here
imports numpy; arrays are typed as `Any` and documented.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgekit.package import Quantization, Requirements, Tensor, Variant

Arrays = Mapping[str, Any]
"""numpy arrays by tensor name; the first axis is the batch."""


class Clock(Protocol):
    """Time, so that tests can freeze it."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. May be wrong on a device (1970 after a power cut)."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""


class Session(Protocol):
    """A loaded variant. Not thread-safe unless the runtime says so."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Inputs in the contract's terms."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """Outputs in the contract's terms."""

    @property
    def backend(self) -> str:
        """What really computes, for example ``xnnpack`` or ``CPUExecutionProvider``."""

    def run(self, inputs: Arrays) -> Arrays:
        """Compute all outputs for one batch, in the contract's dtypes (quantized I/O is converted here)."""

    def close(self) -> None:
        """Free everything; the session must not be used afterwards."""


class Runtime(Protocol):
    """Loads variants of one kind on this machine; registered as ``edgekit.runtimes``."""

    name: str

    def version(self) -> str | None:
        """Version installed here, or None when it cannot be used. Must not import the runtime."""

    def load(self, folder: Path, variant: Variant, *, threads: int = 1) -> Session:
        """Load `variant` whose files lie below `folder` (the package folder).

        Raises:
            UnavailableError: the runtime is not installed or refuses the file.
        """


class Artifact(Protocol):
    """What a target wrote for one variant (see `edgekit_converters.targets`)."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...

    @property
    def outputs(self) -> Sequence[Tensor]: ...

    @property
    def requires(self) -> Requirements: ...


class Target(Protocol):
    """A format and its runtime: turns a source into artifacts; registered as ``edgekit.targets``."""

    name: str
    precisions: tuple[str, ...]

    def build(self, job: Any, folder: Path) -> Artifact:
        """Write the artifact for one (profile, precision) below `folder`."""

    def run(self, folder: Path, artifact: Artifact, inputs: Arrays) -> Arrays | None:
        """Execute or emulate the saved artifact on a batch; None when nothing can run it here."""


class Subscriber(Protocol):
    """Called by a Transport for each message, on the transport's own thread."""

    def __call__(self, topic: str, payload: bytes, retained: bool) -> None: ...


class Transport(Protocol):
    """MQTT as edgekit uses it: 3.1.1 semantics, QoS 1."""

    def start(self, subscriptions: Sequence[str], on_message: Subscriber) -> None:
        """Connect in the background, stay connected, subscribe again after each reconnect."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand a QoS 1 message over; False when it is not connected and nothing was queued."""

    def on_connection(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with True after each connect and False after each loss."""

    def stop(self) -> None:
        """Disconnect cleanly."""


class Store(Protocol):
    """Content-addressed bytes."""

    def put(self, path: Path) -> str:
        """Take in a file; returns its sha256 hex. The same bytes twice cost nothing."""

    def has(self, sha256: str) -> bool:
        """Whether these bytes are here, whole."""

    def path(self, sha256: str) -> Path:
        """Where the bytes lie. Raises StorageError when they are not here."""


__all__ = [
    "Arrays",
    "Artifact",
    "Clock",
    "Quantization",
    "Runtime",
    "Session",
    "Store",
    "Subscriber",
    "Target",
    "Transport",
]
