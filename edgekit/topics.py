"""The MQTT topic tree, built and parsed in this one place.

``ek/1/<tenant>/d/<device>/…`` belongs to one device:

========== ======== ========== =================================================
leaf       retained direction  document
========== ======== ========== =================================================
presence   yes      device →   `Presence`; birth and last will
profile    yes      device →   `DeviceFacts`
reported   yes      device →   `Reported`
ev         no       device →   `Event`
tm/<slot>  no       device →   `Window` or `ProbeReport`
desired    yes      → device   `Envelope` of `Desired`
ack        yes      → device   `Ack`
cmd/<cid>  no       → device   `Envelope` of `BenchOrder`; never a part of the desired state
res/<cid>  no       device →   `BenchResult`
in/<slot>  no       → device   samples for inference, from whoever the ACL lets (stream mode)
out/<slot> no       device →   predictions of stream mode
========== ======== ========== =================================================

``ek/1/<tenant>/ctl/state`` is the service's birth and will; ``ek/1/<tenant>/ro/<rollout>/…`` its feed.
Everything is QoS 1 and MQTT 3.1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.errors import DocumentError

ROOT = "ek/1"
WRITTEN_BY_DEVICE = ("presence", "profile", "reported", "ev", "tm/+", "out/+", "res/+")
READ_BY_DEVICE = ("desired", "ack", "in/+", "cmd/+")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LEAVES = frozenset({"presence", "profile", "reported", "ev", "desired", "ack"})
_SLOT_LEAVES = frozenset({"tm", "in", "out", "cmd", "res"})


@dataclass(frozen=True, kw_only=True)
class DeviceTopic:
    """A parsed device topic; `slot` is set for tm, in and out, and is the cid of cmd and res."""

    tenant: str
    device: str
    leaf: str
    slot: str | None = None


def check_word(text: str, *, where: str) -> str:
    """Check that `text` may stand as one level of a topic (tenant, device, slot, rollout).

    Raises:
        DocumentError: empty, too long, or with ``/``, ``+``, ``#``, white space or the like.
    """
    if not _WORD.match(text):
        raise DocumentError(f"{text!r}: letters, digits and . _ - were expected (at most 64)", where=where)
    return text


def device_topic(tenant: str, device: str, leaf: str, slot: str | None = None) -> str:
    """Topic of one device, for example ``device_topic("acme", "cam-1", "tm", "digits")``."""
    check_word(tenant, where="tenant")
    check_word(device, where="device")
    if slot is None:
        if leaf not in _LEAVES:
            raise DocumentError(f"{leaf!r} is no device topic", where="topic")
        return f"{ROOT}/{tenant}/d/{device}/{leaf}"
    if leaf not in _SLOT_LEAVES:
        raise DocumentError(f"{leaf!r} takes no slot", where="topic")
    return f"{ROOT}/{tenant}/d/{device}/{leaf}/{check_word(slot, where='slot')}"


def device_subscriptions(tenant: str, device: str) -> tuple[str, ...]:
    """The filters an agent subscribes to."""
    base = f"{ROOT}/{check_word(tenant, where='tenant')}/d/{check_word(device, where='device')}"
    return tuple(f"{base}/{leaf}" for leaf in READ_BY_DEVICE)


def service_subscriptions(tenant: str) -> tuple[str, ...]:
    """The filters the service subscribes to."""
    base = f"{ROOT}/{check_word(tenant, where='tenant')}/d/+"
    return tuple(f"{base}/{leaf}" for leaf in WRITTEN_BY_DEVICE)


def controller_topic(tenant: str) -> str:
    """Birth and last will of the service."""
    return f"{ROOT}/{check_word(tenant, where='tenant')}/ctl/state"


def rollout_topic(tenant: str, rollout: str) -> str:
    """The service's feed about one rollout (retained JSON, at most one a second)."""
    return f"{ROOT}/{check_word(tenant, where='tenant')}/ro/{check_word(rollout, where='rollout')}/status"


def parse_device_topic(topic: str) -> DeviceTopic:
    """Take a device topic apart.

    Raises:
        DocumentError: not a topic of this tree.
    """
    parts = topic.split("/")
    if len(parts) >= 6 and parts[:2] == ROOT.split("/") and parts[3] == "d":
        tenant, device, leaf, rest = parts[2], parts[4], parts[5], parts[6:]
        words_ok = all(_WORD.match(word) for word in (tenant, device, *rest))
        if words_ok and not rest and leaf in _LEAVES:
            return DeviceTopic(tenant=tenant, device=device, leaf=leaf)
        if words_ok and len(rest) == 1 and leaf in _SLOT_LEAVES:
            return DeviceTopic(tenant=tenant, device=device, leaf=leaf, slot=rest[0])
    raise DocumentError(f"{topic!r} is not a topic of this tree", where="topic")
