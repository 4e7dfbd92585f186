"""Rollouts as a part of the running service: ingest, reconciler and their routes."""

from __future__ import annotations

from edgekit_fleet.context import Fleet, Part
from edgekit_fleet.events import events_of
from edgekit_fleet.service.ingest import Ingest
from edgekit_fleet.service.reconciler import Reconciler
from edgekit_fleet.service.routers.rollouts import rollouts_router


def rollout_part(fleet: Fleet) -> Part:
    """Takes documents in, moves rollouts, answers about them."""
    events = events_of(fleet)
    reconciler = Reconciler(fleet, events)
    ingest = Ingest(fleet, events, wake=reconciler.wake)
    return Part(
        routers=(rollouts_router(fleet, events, reconciler.wake),),
        tasks=(reconciler, ingest),
        on_message=ingest.on_message,
    )
