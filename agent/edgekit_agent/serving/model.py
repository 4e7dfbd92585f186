"""Embedded mode: a package's model as an object in the user's own program.

    from edgekit_agent import Model

    with Model.open("out/digits") as model:
        answer = model.predict({"image": pixels})
        print(answer.decisions["scores"].labels)

The same runtimes, pipeline and validation as in the service; no fleet, no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit.errors import RefusedError, UnavailableError, UsageError
from edgekit.package import Manifest, Tensor, Variant, load_package
from edgekit.ports import Clock, Runtime
from edgekit.select import choose_variant, variant_table
from edgekit_agent.clock import SystemClock
from edgekit_agent.installed import Installed
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.values import Prediction

_SLOT = "model"


class Model:
    """A loaded model. Thread-safe. Made by `open`; close it, or use it in a ``with``."""

    def __init__(self, installed: Installed, runtime: Runtime, *, threads: int, clock: Clock) -> None:
        self._installed = installed
        self._host = ModelHost({installed.variant.requires.runtime: runtime}, threads=threads, clock=clock)
        self._host.switch(_SLOT, self._host.prepare(installed))
        self._host.commit(_SLOT)

    @classmethod
    def open(
        cls,
        package: str | Path,
        variant: str | None = None,
        *,
        threads: int = 1,
        allow_unverified: bool = False,
    ) -> Model:
        """Load a package's variant for this machine.

        Args:
            package: the folder that `edgekit convert` wrote.
            variant: id of the variant; without one, the one a fleet would assign to this machine.
            threads: threads the runtime may use for one request.
            allow_unverified: take a variant whose verdict is ``unverified``.

        Raises:
            StorageError, DocumentError: the package is missing or damaged (every sha256 is checked).
            UsageError: no such variant.
            RefusedError: no variant is for this machine; the reason of each is named.
            UnavailableError: the runtime is missing or refuses the model.
        """
        folder = Path(package)
        manifest = load_package(folder)
        chosen, places = _choose(manifest, variant, allow_unverified)
        installed = Installed(
            slot=_SLOT, manifest=manifest, variant=chosen, folder=folder, package=manifest.digest
        )
        return cls(installed, _runtime(chosen, places), threads=threads, clock=SystemClock())

    @property
    def name(self) -> str:
        """The model's name."""
        return self._installed.manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self._installed.manifest.version

    @property
    def variant(self) -> Variant:
        """What is loaded."""
        return self._installed.variant

    @property
    def inputs(self) -> Sequence[Tensor]:
        """Inputs: name, dtype, shape (-1 is the batch)."""
        return self.variant.inputs

    @property
    def outputs(self) -> Sequence[Tensor]:
        """Outputs, likewise."""
        return self.variant.outputs

    @property
    def host(self) -> ModelHost:
        """The host inside, for its counters."""
        return self._host

    def predict(self, inputs: Mapping[str, Any] | Any, *, request_id: str | None = None) -> Prediction:
        """Compute one sample or a batch.

        Args:
            inputs: arrays or nested lists by input name; with one input, the array itself. A single
                sample needs no batch axis; the answer always has one.
            request_id: comes back in the answer.

        Raises:
            RequestError: the inputs do not fit.
            ModelError: the model failed.
            BusyError: the model was closed.
        """
        return self._host.infer_values(_SLOT, inputs, request_id=request_id)

    def close(self) -> None:
        """Free everything."""
        self._host.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _choose(
    manifest: Manifest, variant: str | None, allow_unverified: bool
) -> tuple[Variant, Mapping[str, str]]:
    """The variant, and where the runtimes that are installed here are."""
    from edgekit_agent.config import Config
    from edgekit_agent.detect import detect

    detected = detect(Config())
    if variant is None:
        choice = choose_variant(variant_table(manifest), detected.facts, allow_unverified=allow_unverified)
        if choice.entry is None:
            raise RefusedError(
                f"no variant is for this machine: {choice.explanation}",
                where=manifest.ref,
                remedy="name one with variant=…, or convert for one of the profiles "
                + (", ".join(detected.facts.profiles) or "of this machine"),
                code="no_variant",
            )
        variant = choice.entry.id
    found = next((item for item in manifest.variants if item.id == variant), None)
    if found is None:
        raise UsageError(
            f"there is no variant {variant!r}",
            where=manifest.ref,
            remedy=f"variants: {', '.join(item.id for item in manifest.variants) or 'none'}",
            code="unknown_variant",
        )
    return found, detected.runtimes


def _runtime(variant: Variant, places: Mapping[str, str]) -> Runtime:
    from edgekit_agent.detect import make_runtime

    place = places.get(variant.requires.runtime)
    if place is None:
        raise UnavailableError(
            f"runtime {variant.requires.runtime!r} is not installed here",
            where=variant.id,
            remedy=f"installed: {', '.join(sorted(places)) or 'none'}",
            code="runtime_missing",
        )
    return make_runtime(place)


__all__ = ["Model"]
