"""Edgekit agent: runs a model variant on a device.

``from edgekit_agent import Model`` is the library (embedded mode); everything else is the program
``edgekit-agent``. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit_agent.errors import ModelError, RequestError
    from edgekit_agent.serving.model import Model
    from edgekit_agent.serving.values import Decision, Prediction

_PLACES = {
    "Decision": "edgekit_agent.serving.values",
    "Model": "edgekit_agent.serving.model",
    "ModelError": "edgekit_agent.errors",
    "Prediction": "edgekit_agent.serving.values",
    "RequestError": "edgekit_agent.errors",
}

__all__ = ["Decision", "Model", "ModelError", "Prediction", "RequestError"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
