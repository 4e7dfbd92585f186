"""The base part: enrolment, artifacts, devices, slots, releases, tokens; keeps metadata fresh."""

from __future__ import annotations

from edgekit_fleet.context import Fleet, Part


def base_part(fleet: Fleet) -> Part:
    """What the service cannot be without."""
    return Part()
