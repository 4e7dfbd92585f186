"""Versions of the foreign tools, read from their metadata: nothing is imported."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata, version

_TOOLS = {
    "edgekit": ("edgekit-converters",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "keras": ("keras",),
    "tf2onnx": ("tf2onnx",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai-edge-litert",),
    "tflite-micro": ("tflite-micro",),
    "coremltools": ("coremltools",),
    "torch": ("torch",),
    "onnxscript": ("onnxscript",),
    "scikit-learn": ("scikit-learn",),
    "skl2onnx": ("skl2onnx",),
    "xgboost": ("xgboost-cpu", "xgboost"),
    "lightgbm": ("lightgbm",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "numpy": ("numpy",),
}
_CLASSIFIED = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}
"""Classifiers that name one licence; the one for BSD names three."""


@functools.cache
def tool_versions() -> Mapping[str, str]:
    """Name → version of the tools that are installed."""
    return {name: version(distribution) for name, distribution in installed().items()}


@functools.cache
def installed() -> Mapping[str, str]:
    """Name → the distribution of PyPI that it is installed from."""
    found: dict[str, str] = {}
    for name, distributions in _TOOLS.items():
        for distribution in distributions:
            try:
                version(distribution)
            except PackageNotFoundError:
                continue
            found[name] = distribution
            break
    return found


def licence_of(distribution: str) -> str:
    """The licence that a distribution's metadata name: an SPDX expression where they do, else their words."""
    try:
        facts = metadata(distribution)
    except PackageNotFoundError:
        return ""
    words = {key: facts[key] for key in ("License-Expression", "License") if key in facts}
    if expression := words.get("License-Expression"):
        return expression
    classes = [str(item) for item in facts.get_all("Classifier") or () if str(item).startswith("License ::")]
    known = next((_CLASSIFIED[item] for item in classes if item in _CLASSIFIED), "")
    lines = words.get("License", "").strip().splitlines()
    return known or (lines[0].strip()[:80] if lines else "")
