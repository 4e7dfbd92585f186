"""Versions of the foreign tools, read from their metadata: nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

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


def tool_versions() -> Mapping[str, str]:
    """Name → version of the tools that are installed."""
    found: dict[str, str] = {}
    for name, distributions in _TOOLS.items():
        for distribution in distributions:
            try:
                found[name] = version(distribution)
                break
            except PackageNotFoundError:
                continue
    return found
