"""The one list of what the running service is made of; a new part adds one line here.

Each entry is called once with the open fleet and returns its `Part` (routers, tasks, reducers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit_fleet.context import Fleet, Part
from edgekit_fleet.service.base import base_part
from edgekit_fleet.service.bench_part import bench_part
from edgekit_fleet.service.rollout_part import rollout_part
from edgekit_fleet.web.part import web_part

PARTS: Sequence[Callable[[Fleet], Part]] = (base_part, rollout_part, bench_part, web_part)


def build_parts(fleet: Fleet) -> tuple[Part, ...]:
    """All parts of the service, in the order of the list."""
    return tuple(make(fleet) for make in PARTS)
