"""Writing ``report.json`` and ``index.html``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.digest import canonical_json
from edgekit.package import Manifest


def write_report(
    folder: Path, manifest: Manifest, measurements: Mapping[str, Any], facts: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write both forms into `folder`; gives the JSON form."""
    folder.mkdir()
    report = {
        "package": manifest.digest,
        "ref": manifest.ref,
        "manifest": manifest.to_dict(),
        "measurements": measurements,
        **facts,
    }
    (folder / "report.json").write_bytes(canonical_json(report))
    return report
