"""Where the npm package onnxruntime-web and the browser lie on this machine; nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit_converters.sidecars import root
from edgekit_converters.targets.onnx.web.browser import find_browser


def tools() -> tuple[Path, Path] | None:
    """The browser and the folder of the runtime's scripts, or None where one of them is absent."""
    browser, scripts = find_browser(), scripts_folder()
    return None if browser is None or scripts is None else (browser, scripts)


def scripts_folder() -> Path | None:
    """The installed package's ``dist`` folder."""
    found = _package() / "dist"
    return found if (found / "ort.wasm.min.js").is_file() else None


def web_version() -> str:
    """The installed package's version, empty where it is absent."""
    try:
        facts = json.loads((_package() / "package.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(facts.get("version", ""))


def _package() -> Path:
    return root() / "web" / "node_modules" / "onnxruntime-web"
