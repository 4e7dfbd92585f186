"""Where this machine keeps its files is nobody's business who reads a package.

A foreign tool names paths in what it says: of the conversion's work folder (another one each time), of the
cache, of its own environment, of the user's home. What is written into a package keeps only a file's name.
Paths elsewhere stay: a node of a network may be called ``/layer1/conv1``.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekit_converters.sidecars import root

_PACKAGE = Path(__file__).parents[1]


def without_places(text: str, places: Sequence[Path] = ()) -> str:
    """`text` with the paths below `places` and the usual folders of this machine cut to their last part."""
    usual = (Path(tempfile.gettempdir()), root(), Path.home(), Path(sys.prefix), _PACKAGE)
    known = {str(path.absolute()) for path in (*places, *usual) if len(path.absolute().parts) > 1}
    for place in sorted(known, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(place)}(?:/([^\s'\",:;()\[\]]*))?(?![\w-])", _last, text)
    return text


def _last(match: re.Match[str]) -> str:
    return (match[1] or "").rstrip("/").rpartition("/")[2] or "…"


__all__ = ["without_places"]
