"""Fleets and packages for tests: real homes in temporary folders, made-up model bytes."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from edgekit.contract import Contract, InputSpec, OutputSpec
from edgekit.digest import sha256_hex
from edgekit.documents import DeviceFacts, EnrolRequest
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
from edgekit_fleet.context import Fleet, open_fleet
from edgekit_fleet.home import Home
from edgekit_fleet.setup import init_keys
from tests.conftest import FrozenClock

CONTRACT = Contract(
    name="digits",
    version="1.0.0",
    inputs=(InputSpec(name="image", dtype="float32", shape=(-1, 8, 8, 1)),),
    outputs=(
        OutputSpec(
            name="digit", shape=(-1, 10), task="classification", labels=tuple(str(n) for n in range(10))
        ),
    ),
)
FACTS = DeviceFacts(
    machine="x86_64",
    agent="0.1.0",
    python="3.11.2",
    os="test",
    runtimes={"litert": "2.3.0"},
    profiles=("x86-64-litert",),
    labels={"site": "lab"},
)


def make_fleet(folder: Path, clock: FrozenClock, *, tenant: str = "default") -> Fleet:
    """An initialised fleet with keys; the caller closes its database."""
    init_keys(folder / "home", tenant=tenant, clock=clock)
    return open_fleet(Home(path=folder / "home"), clock=clock)


def write_package(
    folder: Path,
    *,
    version: str = "1.0.0",
    variants: Sequence[str] = ("x86-64-litert-tflite-int8",),
    salt: str = "",
    name: str = "digits",
) -> Manifest:
    """A package on disk; each variant's bytes follow from its id and `salt`."""
    made = tuple(_variant(folder, variant_id, f"{variant_id}{salt}".encode()) for variant_id in variants)
    manifest = Manifest(
        name=name,
        version=version,
        source={"format": "keras", "sha256": "0" * 64},
        contract=CONTRACT.to_dict(),
        variants=made,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_bytes(manifest.to_bytes())
    return manifest


def _variant(folder: Path, variant_id: str, data: bytes) -> Variant:
    files = (_write(folder, f"variants/{variant_id}/model.tflite", data),)
    probe = _write(folder, f"probes/{variant_id}.npz", b"probes of " + data)
    return Variant(
        id=variant_id,
        digest=variant_digest(variant_id, files),
        profile="x86-64-litert",
        target="tflite",
        precision="int8",
        files=files,
        requires=Requirements(runtime="litert"),
        inputs=(Tensor(name="image", dtype="float32", shape=(-1, 8, 8, 1)),),
        outputs=(Tensor(name="digit", dtype="float32", shape=(-1, 10)),),
        verification=Verification(method="executed", verdict="pass", runtime="litert", n=100),
        probe=Probe(file=probe, n=4, atol=0.01),
    )


def _write(folder: Path, path: str, data: bytes) -> File:
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return File(path=path, sha256=sha256_hex(data), bytes=len(data))


def probe_bytes(
    n: int = 6, *, change: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda arrays: arrays
) -> bytes:
    """A probe set that fits `CONTRACT`, with its arrays changed by `change`."""
    arrays: dict[str, Any] = {
        "image": np.linspace(0, 1, n * 64, dtype=np.float32).reshape(n, 8, 8, 1),
        "labels": np.arange(n) % 10,
    }
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **change(arrays))
    return stream.getvalue()


def enrol_request(
    token: str, key: Ed25519PrivateKey, *, name: str = "", facts: DeviceFacts = FACTS
) -> EnrolRequest:
    """What a device sends."""
    return EnrolRequest(
        token=token,
        public_key=key.public_key().public_bytes_raw().hex(),
        proof=key.sign(f"edgekit-enrol:{token}".encode()).hex(),
        facts=facts,
        name=name,
    )


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free loopback port from a thread; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
