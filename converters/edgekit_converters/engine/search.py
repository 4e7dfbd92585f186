"""``--budget``: builds what may keep it, measures, and leaves one variant a profile in the plan.

The decisions are `edgekit_converters.budget`'s; here they are fed with what was built and measured. A figure
of an enrolled device counts for the very bytes it measured (`Measurement.digest`), and only where the device
was one of the variant's profile; else the latency is this computer's and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.digest import digest_of_files, sha256_file
from edgekit.documents import Measurement, Measurements
from edgekit.errors import DataError, DocumentError
from edgekit.files import read_bytes
from edgekit.package import Refusal
from edgekit_converters.budget.candidate import BUILT, HOST, TARGET, Candidate, Figure, document
from edgekit_converters.budget.front import Choice, choose, pareto, unknown_metrics
from edgekit_converters.budget.order import not_worth_trying, rounds, rung_above
from edgekit_converters.budget.terms import SNR, Budget, with_standing
from edgekit_converters.engine.figures import measured, size
from edgekit_converters.engine.plan import Plan, Wanted
from edgekit_converters.engine.prepare import Context, Prepared
from edgekit_converters.engine.variants import Checked

Outcome = Checked | Refusal
Build = Callable[[Plan], Mapping[str, Outcome]]
_LIMIT = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """The plan with what was picked and how (`Plan.search`), and the outcomes of that plan."""

    plan: Plan
    outcomes: Mapping[str, Outcome]


def read_measurements(paths: Sequence[Path]) -> tuple[Measurement, ...]:
    """The files that ``edgekit bench … --out`` wrote.

    Raises:
        DataError: a file is not one of those.
    """
    found: list[Measurement] = []
    for path in paths:
        try:
            read = Measurements.parse(read_bytes(path, limit=_LIMIT)).measurements
            if not read:
                raise DocumentError("it names no device's figures")
            found += read
        except DocumentError as error:
            raise DataError(
                f"no measurements: {error}",
                where=str(path),
                remedy="give a file written by: edgekit bench PACKAGE --device NAME --out FILE",
                code="bad_measurements",
            ) from error
    return tuple(found)


@dataclass
class Search:
    """One search.

    Args:
        context, prepared: what variants stand on.
        plan: everything that may be tried, in the profiles' order of preference.
        budget, measurements: what is wanted, and what is known of devices.
        build: builds and checks the variants of a plan.
    """

    context: Context
    prepared: Prepared
    plan: Plan
    budget: Budget
    measurements: Sequence[Measurement]
    build: Build
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)
    _budgets: dict[str, Budget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        promised = self.prepared.resolved.contract.serving
        for item in self.plan.wanted:
            board = item.profile
            self._budgets[board.name] = with_standing(self.budget, promised, board.budgets)

    def run(self) -> Found:
        """Try, choose, explain."""
        for level in self._levels():
            wanted = [item for item in level if self._worth(item)]
            built = self.build(replace(self.plan, wanted=tuple(wanted))) if wanted else {}
            self.outcomes.update(built)
            for item in wanted:
                self.candidates[item.id] = self._candidate(item, built[item.id])
        found = list(self._in_order())
        profiles = list(dict.fromkeys(item.profile.name for item in self.plan.wanted))
        choices = [choose(name, found, self._budgets[name]) for name in profiles]
        self._check_known(found)
        return self._found(found, choices)

    def _levels(self) -> list[list[Wanted]]:
        order = rounds(list(dict.fromkeys(item.precision for item in self.plan.wanted)))
        return [[item for item in self.plan.wanted if item.precision in level] for level in order]

    def _in_order(self) -> list[Candidate]:
        return [self.candidates[item.id] for item in self.plan.wanted]

    def _worth(self, item: Wanted) -> bool:
        """Whether to build it; one that is not worth it is a candidate all the same, with the reason."""
        own = {
            other.precision: self.candidates[other.id]
            for other in self.plan.wanted
            if (other.profile, other.target) == (item.profile, item.target) and other.id in self.candidates
        }
        above = rung_above(item.precision, own)
        weights = int((self.prepared.hub.facts or {}).get("weights", 0))
        budget = self._budgets[item.profile.name]
        why = not_worth_trying(item.precision, own[above] if above else None, budget, weights)
        if why is not None:
            self.candidates[item.id] = replace(self._blank(item), refusal=why)
        return why is None

    def _blank(self, item: Wanted) -> Candidate:
        ranks = [other.id for other in self.plan.wanted if other.profile == item.profile]
        return Candidate(
            id=item.id,
            profile=item.profile.name,
            target=item.target,
            precision=item.precision,
            rank=ranks.index(item.id),
        )

    def _candidate(self, item: Wanted, outcome: Outcome) -> Candidate:
        blank = self._blank(item)
        if isinstance(outcome, Refusal):
            return replace(blank, refusal=f"{outcome.reason_code}: {outcome.detail}")
        decisive = next((one.name for one in outcome.figures if one.decides), "")
        found = {**self._built(outcome), **self._host(item, outcome)}
        on_target = self._on_target(item, outcome)
        if on_target is not None:
            found |= _device_figures(on_target)
        return replace(
            blank,
            verdict=outcome.verdict.verdict,
            decisive=decisive,
            figures=found,
            measured_on=on_target.device if on_target else "",
        )

    def _built(self, outcome: Checked) -> dict[str, Figure]:
        """What the artifact and the check on the data say."""
        needs, told = outcome.built.requires, outcome.built.facts
        figures = {"size": float(told.get("model_bytes") or size(outcome))}
        if needs.arena_kb is not None:
            figures["arena"] = needs.arena_kb * 1024.0
        if needs.flash_kb is not None:
            figures["flash"] = needs.flash_kb * 1024.0
        ratios = [item.snr_db for item in outcome.errors.values()]
        if ratios and all(map(math.isfinite, ratios)):
            figures[SNR] = float(min(ratios))
        figures |= {one.name: float(one.variant) for one in outcome.figures}
        return {name: Figure(value=value, source=BUILT) for name, value in figures.items()}

    def _host(self, item: Wanted, outcome: Checked) -> dict[str, Figure]:
        """Latency and memory on this computer; none for what its own runtime does not run here."""
        self.context.progress.step(item.id, "measuring")
        told = measured(self.context, self.prepared, item, outcome) or {}
        self.context.progress.step(item.id, "done")
        found: dict[str, float] = {}
        if latency := told.get("latency_us"):
            found |= {"latency": float(latency["median"]), "latency_p90": float(latency["p90"])}
        if memory := told.get("memory_mb"):
            found["memory"] = float(memory["peak"]) * 2**20
        return {name: Figure(value=value, source=HOST) for name, value in found.items()}

    def _on_target(self, item: Wanted, outcome: Checked) -> Measurement | None:
        """The newest measurement of these very bytes on a device of this profile."""
        if not self.measurements:
            return None
        digest = self._digest(outcome.folder)
        own = [
            one
            for one in self.measurements
            if one.on_target and one.digest == digest and one.profile == item.profile.name
        ]
        return max(own, key=lambda one: one.at, default=None)

    def _digest(self, folder: Path) -> str:
        """The variant digest that the files in `folder` will have in a package."""
        if folder not in self._digests:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            pairs = ((path.relative_to(folder).as_posix(), sha256_file(path)) for path in files)
            self._digests[folder] = digest_of_files(pairs)
        return self._digests[folder]

    def _check_known(self, found: Sequence[Candidate]) -> None:
        """A metric that nothing here has is a mistake of the caller, not a bound that is kept."""
        unknown = [
            name
            for name in unknown_metrics(found, self.budget)
            if name not in ("latency", "latency_p90", "memory", "arena", "flash")
        ]
        if not unknown:
            return
        known = sorted({name for item in found for name in item.figures})
        raise DataError(
            f"nothing here has a metric {unknown[0]!r}",
            where="--budget",
            remedy=f"there are {', '.join(known)}; a task's metric needs --validation data with labels",
            code="unknown_metric",
        )

    def _found(self, found: Sequence[Candidate], choices: Sequence[Choice]) -> Found:
        picked = {choice.picked.id for choice in choices if choice.picked is not None}
        refused = [
            Refusal(id=choice.profile, reason_code="over_budget", detail=choice.why, remedy=choice.would_fit)
            for choice in choices
            if choice.picked is None
        ]
        plan = replace(
            self.plan,
            wanted=tuple(item for item in self.plan.wanted if item.id in picked),
            refused=(*self._untried(), *refused),
        )
        front = {item.id for item in pareto(found)}
        facts = {
            "budget": self.budget.text,
            "candidates": [
                {
                    **document(item, self._budgets[item.profile]),
                    "front": item.id in front,
                    "picked": item.id in picked,
                }
                for item in found
            ],
            "not_possible": [
                {"id": item.id, "reason": f"{item.reason_code}: {item.detail}"} for item in self.plan.refused
            ],
            "choices": [
                {
                    "profile": choice.profile,
                    "picked": choice.picked.id if choice.picked else None,
                    "why": choice.why,
                    "would_fit": choice.would_fit or None,
                }
                for choice in choices
            ],
        }
        outcomes = {name: item for name, item in self.outcomes.items() if name in picked}
        return Found(plan=replace(plan, search=facts), outcomes=outcomes)

    def _untried(self) -> tuple[Refusal, ...]:
        """What was refused beforehand, of the profiles that have nothing else."""
        tried = {item.profile.name for item in self.plan.wanted}
        return tuple(
            item for item in self.plan.refused if not any(item.id.startswith(f"{name}-") for name in tried)
        )


def _device_figures(found: Measurement) -> dict[str, Figure]:
    figures = found.figures
    known = {
        "latency": figures.median_us,
        "latency_p90": figures.p90_us,
        "memory": figures.memory_mb * 2**20,
    }
    return {name: Figure(value=value, source=TARGET) for name, value in known.items()}


__all__ = ["Found", "Search", "read_measurements"]
