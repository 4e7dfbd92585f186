"""Reading request bodies with a limit, whatever the client announces."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from edgekit.errors import DocumentError
from edgekit.wire import parse_object

LIMIT = 4 << 20


async def limited_body(request: Request, limit: int = LIMIT) -> bytes:
    """The body, at most `limit` bytes.

    Raises:
        DocumentError: it is larger; the rest is not read.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise DocumentError(f"at most {limit} bytes are allowed", where="body", code="too_large")
        pieces.append(piece)
    return b"".join(pieces)


async def json_body(request: Request, limit: int = LIMIT) -> dict[str, Any]:
    """The body as one JSON object, strictly read.

    Raises:
        DocumentError: too large or no JSON object.
    """
    return parse_object(await limited_body(request, limit), where="body", limit=limit)
