"""Ways in which a target can build one artifact. The engine tries them in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way. `worker` is the kind of process that builds; `needs_hub` whether it starts from the hub."""

    name: str
    worker: str
    needs_hub: bool = True
