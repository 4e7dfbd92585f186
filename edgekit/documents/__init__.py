"""Every document that travels over MQTT or between agent and service, as a frozen dataclass.

Each has `schema`, is written with `to_bytes` (canonical JSON) and read with `parse`, which raises
`DocumentError` naming the field. Members added by a newer version are kept in `extra` and written
back. Golden files of all of them lie in ``tests/contract``. Times are seconds since the epoch, UTC,
as the sender's clock had them; durations are in seconds unless the name says otherwise.

A `boot_id` is ``<boot counter, 8 digits>-<random>``: comparing two as strings tells which boot is
the later one. (boot_id, seq) names a message of a device for ever.
"""

from __future__ import annotations

from edgekit.documents.base import SCHEMA, Document
from edgekit.documents.bench import (
    BenchFigures,
    BenchOrder,
    BenchResult,
    BenchResults,
    Measurement,
    Measurements,
)
from edgekit.documents.desired import Desired, Envelope, ProbePolicy, Signature, SlotDesire, TruthProbes
from edgekit.documents.device import DeviceFacts, DeviceStep, Event, Presence, Reason, Reported, SlotState
from edgekit.documents.service import ControllerState, EnrolAnswer, EnrolRequest
from edgekit.documents.telemetry import Ack, ProbeReport, Telemetry, Window, parse_telemetry

__all__ = [
    "SCHEMA",
    "Document",
    "BenchFigures",
    "BenchOrder",
    "BenchResult",
    "BenchResults",
    "Measurement",
    "Measurements",
    "Desired",
    "Envelope",
    "ProbePolicy",
    "Signature",
    "SlotDesire",
    "TruthProbes",
    "DeviceFacts",
    "DeviceStep",
    "Event",
    "Presence",
    "Reason",
    "Reported",
    "SlotState",
    "ControllerState",
    "EnrolAnswer",
    "EnrolRequest",
    "Ack",
    "ProbeReport",
    "Telemetry",
    "Window",
    "parse_telemetry",
]
