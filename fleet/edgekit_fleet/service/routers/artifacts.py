"""What devices download: TUF metadata, TUF targets, blobs (with Range).

Nothing here decides what may be trusted: that stands in the signed metadata, and the device checks it.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse

from edgekit.files import safe_relative
from edgekit_fleet.context import Fleet
from edgekit_fleet.errors import UnknownNameError
from edgekit_fleet.service.auth import either

_METADATA = re.compile(r"(timestamp|[1-9][0-9]{0,9}\.(root|snapshot|targets))\.json\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def build(fleet: Fleet) -> APIRouter:
    """The routes of `fleet`'s artifacts."""
    router = APIRouter(dependencies=[Depends(either(fleet))])

    @router.get("/tuf/metadata/{name}")
    def metadata(name: str) -> FileResponse:
        if not _METADATA.match(name):
            raise _unknown("metadata file", name)
        headers = {"Cache-Control": "no-store"} if name == "timestamp.json" else _FOREVER
        return _file(fleet.home.metadata / name, "application/json", headers, name)

    @router.get("/tuf/targets/{path:path}")
    def target(path: str) -> FileResponse:
        inside = safe_relative(path, where="target")
        return _file(fleet.home.targets / inside, "application/octet-stream", _FOREVER, path)

    @router.get("/blobs/sha256/{digest}")
    def blob(digest: str) -> FileResponse:
        if not _HEX.match(digest) or not fleet.store.has(digest):
            raise _unknown("blob", digest)
        return _file(fleet.store.path(digest), "application/octet-stream", _FOREVER, digest)

    return router


def _file(path: Path, media_type: str, headers: dict[str, str], name: str) -> FileResponse:
    if not path.is_file():
        raise _unknown("file", name)
    return FileResponse(path, media_type=media_type, headers=headers)


def _unknown(kind: str, name: str) -> UnknownNameError:
    return UnknownNameError(f"there is no {kind} {name[:200]!r}", where=kind, code="not_found")
