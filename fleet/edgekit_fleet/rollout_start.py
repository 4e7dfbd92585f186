"""Starting a rollout: the order checked, its devices chosen, the rows written. The caller commits.

What happens to a rollout afterwards is `edgekit_fleet.rollout_orders`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgekit.contract import Contract
from edgekit.documents import ProbePolicy, Reported, TruthProbes
from edgekit.errors import PlanError, RefusedError
from edgekit.package import Manifest
from edgekit.select import VariantEntry, choose_variant
from edgekit.wire import Fields
from edgekit_fleet import audit
from edgekit_fleet.context import Fleet
from edgekit_fleet.db.rollouts import RingRow, RolloutRow
from edgekit_fleet.db.tables import DeviceRow, ReleaseRow, SlotRow
from edgekit_fleet.devices import facts_of
from edgekit_fleet.errors import ConflictError
from edgekit_fleet.releases import signed_release, stored_manifest
from edgekit_fleet.rollout.plan import Plan, default_plan, plan_from_dict
from edgekit_fleet.rollout.rings import Candidate, choose_members
from edgekit_fleet.rollout.states import RingState, RolloutState
from edgekit_fleet.rollout.unmatched import Unmatched, unmatched
from edgekit_fleet.rollouts import LIVE
from edgekit_fleet.slots import current_probes, get_slot


@dataclass(frozen=True, kw_only=True)
class StartOrder:
    """A rollout to start. `plan` is the parsed plan file, None for the default plan; `allow_empty` lets a
    ring select devices that are not enrolled yet."""

    release: str
    slot: str
    plan: Mapping[str, Any] | None = None
    plan_file: str = "plan"
    allow_unverified: bool = False
    allow_empty: bool = False


@dataclass(frozen=True, kw_only=True)
class Eligible:
    """A device that can get the release, with the variant chosen for it."""

    candidate: Candidate
    entry: VariantEntry


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An order that has been checked: all that a rollout row needs."""

    release: ReleaseRow
    manifest: Manifest
    plan: Plan
    truth: TruthProbes | None


def prepare(fleet: Fleet, session: Session, order: StartOrder) -> Prepared:
    """Check an order without changing anything.

    Raises:
        UnknownNameError: no such release or slot.
        RefusedError: not signed, invalidated, or another contract than the slot's.
        StorageError: the stored package is missing or damaged.
        PlanError: a plan that cannot work, or (unless `allow_empty`) a ring that selects no device.
    """
    slot = get_slot(session, order.slot)
    release = signed_release(session, order.release)
    manifest = stored_manifest(fleet, release)
    _check_contract(slot, manifest)
    truth = _truth(session, order.slot)
    plan = (
        plan_from_dict(order.plan, where=order.plan_file, truth_probes=truth is not None)
        if order.plan is not None
        else default_plan(truth_probes=truth is not None)
    )
    found = missing_names(session, plan)
    if found.empty and not order.allow_empty:
        raise PlanError(
            "; ".join(found.warnings),
            where=f"{order.plan_file}: ring[{found.empty[0]}].select",
            remedy="mend the name, or give --allow-empty if its devices will be enrolled later",
            code="empty_ring",
        )
    return Prepared(release=release, manifest=manifest, plan=plan, truth=truth)


def missing_names(session: Session, plan: Plan) -> Unmatched:
    """What the plan names and today's fleet does not have."""
    rows = session.scalars(select(DeviceRow).order_by(DeviceRow.id))
    return unmatched(plan, [Candidate(device=row.id, facts=facts_of(row)) for row in rows])


def start(fleet: Fleet, session: Session, order: StartOrder, *, actor: str) -> RolloutRow:
    """Start a rollout; the reconciler opens its first ring.

    Raises:
        ConflictError: another rollout of this slot is under way.
        EdgekitError: as `prepare`.
    """
    prepared = prepare(fleet, session, order)
    under_way = session.scalars(
        select(RolloutRow).where(RolloutRow.slot == order.slot, RolloutRow.state.in_(LIVE))
    ).first()
    if under_way is not None:
        raise ConflictError(
            f"rollout {under_way.id} of {under_way.release} is {under_way.state} there",
            where=f"slot {order.slot}",
            remedy=f"edgekit rollout abort {under_way.id}, or roll it back",
        )
    now = fleet.clock.now()
    row = _rollout_row(session, order, prepared, actor, now)
    session.add(row)
    session.flush()
    session.add_all(
        RingRow(rollout=row.id, idx=index, name=ring.name, state=RingState.PENDING.value, excluded={})
        for index, ring in enumerate(prepared.plan.rings)
    )
    audit.record(
        session,
        at=now,
        actor=actor,
        verb="rollout.start",
        subject=row.id,
        after={"release": row.release, "slot": row.slot},
    )
    return row


def _rollout_row(
    session: Session, order: StartOrder, prepared: Prepared, actor: str, now: float
) -> RolloutRow:
    number = (session.scalar(select(func.count()).select_from(RolloutRow)) or 0) + 1
    name = f"r-{number:04d}"
    return RolloutRow(
        id=name,
        slot=order.slot,
        release=prepared.release.ref,
        package=prepared.release.digest,
        previous=_most_common(session, order.slot),
        state=RolloutState.RUNNING.value,
        plan=prepared.plan.to_dict(),
        salt=prepared.plan.sticky_salt or f"{name}|{prepared.release.digest}",
        truth=_truth_dict(prepared.truth),
        table=prepared.release.table,
        reference=asdict(prepared.manifest.reference),
        allow_unverified=order.allow_unverified,
        actor=actor,
        created=now,
        updated=now,
    )


def _check_contract(slot: SlotRow, manifest: Manifest) -> None:
    """Clients of a slot must not notice a change of version: the same tensors in and out.

    What the slot's contract leaves open (no tensors, no shape) is not held against a release.
    """
    wanted, given = Contract.from_dict(slot.contract), Contract.from_dict(manifest.contract)
    for kind in ("inputs", "outputs"):
        ours = {item.name: (item.dtype, item.shape) for item in getattr(wanted, kind)}
        theirs = {item.name: (item.dtype, item.shape) for item in getattr(given, kind)}
        same = ours.keys() == theirs.keys() and all(
            not shape or (dtype, shape) == theirs[name] for name, (dtype, shape) in ours.items()
        )
        if ours and not same:
            raise RefusedError(
                f"{manifest.ref} has other {kind} ({_tensors(theirs)}) than the slot ({_tensors(ours)})",
                where=f"slot {slot.name}",
                remedy="create another slot for it",
                code="contract_mismatch",
            )


def _tensors(items: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in items.items())


def _truth(session: Session, slot: str) -> TruthProbes | None:
    row = current_probes(session, slot)
    if row is None:
        return None
    return TruthProbes(
        target=row.target,
        sha256=row.sha256,
        bytes=row.size,
        min_accuracy=row.min_accuracy,
        policy=ProbePolicy(row.policy),
    )


def _truth_dict(truth: TruthProbes | None) -> dict[str, Any] | None:
    return truth.to_dict() if truth else None


def _most_common(session: Session, slot: str) -> str:
    """The release most devices run in the slot, for people; "" when none does."""
    counts: dict[str, int] = {}
    for reported in session.scalars(select(DeviceRow.reported)):
        state = Reported.from_dict(reported).slots.get(slot) if reported else None
        if state is not None:
            counts[state.release] = counts.get(state.release, 0) + 1
    return max(sorted(counts), key=lambda ref: counts[ref], default="")


def eligible_devices(
    session: Session, *, slot: str, release: str, table: Sequence[Any], allow_unverified: bool
) -> tuple[tuple[Eligible, ...], dict[str, str]]:
    """Devices that can get a release, and why the others cannot (device → reason)."""
    entries = [VariantEntry.read(Fields(item, where="variant table")) for item in table]
    fitting: list[Eligible] = []
    excluded: dict[str, str] = {}
    for row in session.scalars(select(DeviceRow).order_by(DeviceRow.id)):
        facts = facts_of(row)
        choice = choose_variant(entries, facts, allow_unverified=allow_unverified)
        if row.pins.get(slot) not in (None, release):
            excluded[row.id] = f"pinned to {row.pins[slot]}"
        elif choice.entry is None:
            excluded[row.id] = choice.explanation[:300]
        else:
            fitting.append(Eligible(candidate=Candidate(device=row.id, facts=facts), entry=choice.entry))
    return tuple(fitting), excluded


def preview(fleet: Fleet, session: Session, order: StartOrder) -> dict[str, Any]:
    """What a rollout would do with today's fleet; changes nothing. Errors as `prepare`."""
    prepared = prepare(fleet, session, order)
    fitting, excluded = eligible_devices(
        session,
        slot=order.slot,
        release=order.release,
        table=prepared.release.table,
        allow_unverified=order.allow_unverified,
    )
    number = (session.scalar(select(func.count()).select_from(RolloutRow)) or 0) + 1
    salt = prepared.plan.sticky_salt or f"r-{number:04d}|{prepared.release.digest}"
    variants = {item.candidate.device: item.entry.id for item in fitting}
    taken: set[str] = set()
    rings = []
    for ring in prepared.plan.rings:
        members = choose_members(ring.select, [item.candidate for item in fitting], salt=salt, taken=taken)
        taken |= set(members)
        rings.append(
            {**ring.to_dict(), "members": [{"device": name, "variant": variants[name]} for name in members]}
        )
    return {
        "release": order.release,
        "slot": order.slot,
        "package": prepared.release.digest,
        "truth": _truth_dict(prepared.truth),
        "devices": len(fitting) + len(excluded),
        "rings": rings,
        "unassigned": sorted(set(variants) - taken),
        "excluded": excluded,
        "warnings": list(missing_names(session, prepared.plan).warnings),
        "timers": prepared.plan.timers.to_dict(),
    }
