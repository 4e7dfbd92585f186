"""Where the npm package onnxruntime-web and the browser lie on this machine; nothing is started."""

from __future__ import annotations

from pathlib import Path

from edgekit_converters.sidecars import WEB
from edgekit_converters.targets.onnx.web.browser import find_browser


def tools() -> tuple[Path, Path] | None:
    """The browser and the folder of the runtime's scripts, or None where one of them is absent."""
    browser, package = find_browser(), WEB.ready()
    return None if browser is None or package is None else (browser, package / "dist")


def web_version() -> str:
    """The version that runs here, empty where it is absent."""
    return WEB.version if WEB.ready() else ""
