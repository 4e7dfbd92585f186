"""A tiny linear classifier as a package, and the runtime that runs it: real seams, no big dependency.

The artifact is JSON with a weight matrix; the runtime calls itself ``litert`` so that manifests and
devices need nothing special. `Toy.behaviour` makes it misbehave on purpose.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.digest import sha256_hex
from edgekit.documents import DeviceFacts
from edgekit.errors import UnavailableError
from edgekit.package import (
    File,
    Manifest,
    Probe,
    Requirements,
    Tensor,
    Variant,
    Verification,
    variant_digest,
)
from edgekit_agent.detect import Detected
from edgekit_agent.serving.warmup import RUNS

FEATURES, CLASSES = 4, 3
PROFILE = "toy-board"
FACTS = DeviceFacts(
    machine="x86_64",
    agent="0.1.0",
    python="3.11",
    os="test",
    runtimes={"litert": "2.3.0"},
    profiles=(PROFILE,),
    memory_mb=1000,
)
DETECTED = Detected(facts=FACTS, runtimes={})
PROBED = RUNS + 12
GOOD = np.eye(FEATURES, CLASSES)
WRONG = GOOD[:, ::-1]


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A package and the bytes of its files by sha256."""

    manifest: Manifest
    blobs: Mapping[str, bytes]

    @property
    def variant(self) -> Variant:
        """Its only variant."""
        return self.manifest.variants[0]


def npz(**arrays: Any) -> bytes:
    """The bytes of an npz."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def samples(n: int = 12) -> tuple[Any, Any]:
    """Inputs and labels that `GOOD` gets right."""
    labels = np.arange(n) % CLASSES
    return np.eye(FEATURES, dtype=np.float32)[labels], labels


def truth_npz(n: int = 12) -> bytes:
    """Ground-truth probes."""
    inputs, labels = samples(n)
    return npz(x=inputs, labels=labels)


def make(
    version: str = "1.0.0",
    weights: Any = GOOD,
    *,
    behaviour: str = "",
    padding: int = 0,
    probe_weights: Any = None,
    name: str = "toy",
    runtime: str = "litert",
) -> Toy:
    """A package whose model computes ``x @ weights``.

    `behaviour`: ``crash`` kills the process when it is loaded, ``fail`` raises at each run after the
    probes, ``refuse`` cannot be loaded, ``hang`` never returns from a run after the probes, ``hang early``
    from the first probe (until `Hanging.release`), ``freeze`` stops every thread of the process besides.
    `probe_weights` make the package probes expect something else.
    """
    artifact = json.dumps(
        {"weights": np.asarray(weights).tolist(), "behaviour": behaviour, "padding": "x" * padding}
    ).encode()
    inputs, _ = samples()
    expected = inputs @ np.asarray(weights if probe_weights is None else probe_weights, dtype=np.float32)
    arrays: dict[str, Any] = {"in:x": inputs, "out:y": expected.astype(np.float32)}
    probe = npz(**arrays)
    files = (_file("variants/toy-int8/model.json", artifact),)
    variant = Variant(
        id="toy-int8",
        digest=variant_digest("toy-int8", files),
        profile=PROFILE,
        target="tflite",
        precision="int8",
        files=files,
        requires=Requirements(runtime=runtime),
        inputs=(Tensor(name="x", dtype="float32", shape=(-1, FEATURES)),),
        outputs=(Tensor(name="y", dtype="float32", shape=(-1, CLASSES)),),
        verification=Verification(method="executed", verdict="pass", n=12),
        probe=Probe(file=_file("probes/toy-int8.npz", probe), n=len(inputs), atol=1e-4),
    )
    manifest = Manifest(name=name, version=version, source={}, contract=CONTRACT, variants=(variant,))
    blobs = {sha256_hex(artifact): artifact, sha256_hex(probe): probe}
    return Toy(manifest=manifest, blobs=blobs)


CONTRACT: Mapping[str, Any] = {
    "name": "toy",
    "version": "1.0.0",
    "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, FEATURES], "meaning": "tabular"}],
    "outputs": [
        {
            "name": "y",
            "dtype": "float32",
            "shape": [-1, CLASSES],
            "task": "classification",
            "labels": ["a", "b", "c"],
            "activation": "none",
        }
    ],
}


def _file(path: str, data: bytes) -> File:
    return File(path=path, sha256=sha256_hex(data), bytes=len(data))


class Hanging:
    """Ends the hanging of ``hang`` models, so that a test can end."""

    release = threading.Event()


@dataclass(kw_only=True)
class ToySession:
    """`edgekit.ports.Session` over a weight matrix."""

    variant: Variant
    weights: Any
    behaviour: str
    runs: int = 0
    backend: str = "numpy"
    closed: bool = False

    @property
    def inputs(self) -> Sequence[Tensor]:
        """As the variant says."""
        return self.variant.inputs

    @property
    def outputs(self) -> Sequence[Tensor]:
        """As the variant says."""
        return self.variant.outputs

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """x @ weights."""
        from edgekit_agent.errors import ModelError

        self.runs += 1
        if self.behaviour == "fail" and self.runs > 40:
            raise ModelError("the toy breaks on purpose")
        if (self.behaviour == "hang" and self.runs > PROBED) or (
            self.behaviour == "hang early" and self.runs > RUNS
        ):
            Hanging.release.wait()
        if self.behaviour == "freeze" and self.runs > PROBED:
            ctypes.PyDLL(None).sleep(3600)  # PyDLL: with the interpreter's lock in hand
        return {"y": (np.asarray(inputs["x"]) @ self.weights).astype(np.float32)}

    def close(self) -> None:
        """Free the weights."""
        self.closed = True


@dataclass(kw_only=True)
class ToyRuntime:
    """`edgekit.ports.Runtime` for toy packages."""

    name: str = "litert"
    sessions: list[ToySession] = field(default_factory=list)

    def version(self) -> str | None:
        """A version."""
        return "2.3.0"

    def load(self, folder: Path, variant: Variant, *, threads: int = 1) -> ToySession:
        """Read the JSON."""
        body = json.loads((folder / variant.files[0].path).read_bytes())
        if body["behaviour"] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if body["behaviour"] == "refuse":
            raise UnavailableError("the toy refuses on purpose", code="load_failed")
        session = ToySession(
            variant=variant,
            weights=np.asarray(body["weights"], dtype=np.float32),
            behaviour=body["behaviour"],
        )
        self.sessions.append(session)
        return session
