"""Foreign tools that must not share our environment: each in one of its own, made on the user's word only.

`nvidia-pytriton` (it carries the tritonserver program) needs an older numpy, `ethos-u-vela` pins its own:
each gets a private virtual environment below `root()`, onnxruntime-web a folder of npm packages, installed
from a lock with hashes by ``edgekit tools install NAME``. Nothing here downloads anything unasked: a target
asks `Sidecar.ready()`, and where that is None its variants are labelled *prepared*.

A lock (``locks/<name>.txt``) is made anew from the sidecar's `requirements` with ``uv pip compile
--generate-hashes --no-annotate --no-header --no-build --python-version 3.11 --python-platform
x86_64-manylinux_2_35``, backports.strenum held below 1.3.1 (which no Python from 3.11 on takes), and must
come out the same for every Python in `pythons`.
"""

from __future__ import annotations

from edgekit_converters.sidecars.environment import Sidecar, root
from edgekit_converters.sidecars.node import NodeSidecar

TRITON = Sidecar(
    name="triton",
    title="NVIDIA Triton Inference Server (program of nvidia-pytriton, Python backend) and its client",
    requirements=(
        "nvidia-pytriton==0.7.0",
        "tritonclient[grpc,http]==2.73.0",
        "numpy==1.26.4",
        "onnxruntime==1.31.1",
        "ai-edge-litert==2.3.0",
    ),
    pythons=("3.11", "3.12"),
    megabytes=480,
)
VELA = Sidecar(
    name="vela",
    title="Vela, Arm's compiler for Ethos-U",
    requirements=("ethos-u-vela==5.2.0", "numpy>=2.2,<2.4"),
    pythons=("3.11", "3.12", "3.13"),
    megabytes=120,
)
WEB = NodeSidecar(
    name="web",
    title="onnxruntime-web, ONNX in web pages (it runs in Chromium)",
    requirements=("onnxruntime-web==1.30.0",),
    files=tuple(
        f"dist/{name}"
        for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    ),
    megabytes=150,
)
SIDECARS: tuple[Sidecar, ...] = (TRITON, VELA, WEB)

__all__ = ["SIDECARS", "TRITON", "VELA", "WEB", "NodeSidecar", "Sidecar", "root"]
