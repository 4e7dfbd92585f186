"""What outputs are judged by: the source's outputs on the evaluation data, labels, the contract's tolerances.

The verdict itself is `verify.verdict`'s; here stands what it needs of one conversion, in a form that can also
travel to a worker process, so that a search there asks the very verdict that the variant meets in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.contract import Contract
from edgekit.errors import DataError, EdgekitError
from edgekit_converters.data import Dataset
from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.resolve import Resolved
from edgekit_converters.values import EXACT, Signature
from edgekit_converters.verify.compare import OutputError, output_error
from edgekit_converters.verify.scores import class_scores
from edgekit_converters.verify.tasks import FIGURES, Judged, figures_of, judged
from edgekit_converters.verify.tasks.classification import worse_than_chance
from edgekit_converters.verify.verdict import Verdict, judge


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """See the module. `origin` is that of `samples`: ``validation``, ``calibration`` or ``synthetic``."""

    resolved: Resolved
    samples: Dataset
    origin: str
    reference: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def labels(self) -> Any:
        """The labels that judge, or None: those of calibration data do not."""
        return self.samples.labels if self.origin == "validation" else None

    def precision(self, named: str) -> str:
        """The precision whose thresholds hold: a source that computes with integers is met by other integer
        kernels, or by floats, within its steps."""
        return "int8" if self.resolved.signature.tolerance > EXACT else named

    def errors(self, outputs: Mapping[str, Any]) -> dict[str, OutputError]:
        """By output name.

        Raises:
            EdgekitError: an output of another shape than the source's.
        """
        classifier, activation = self.resolved.classifier, self.resolved.activation
        try:
            return {
                name: output_error(
                    self.reference[name], value, activation=activation if name == classifier else None
                )
                for name, value in outputs.items()
            }
        except ValueError as error:
            raise EdgekitError(f"an output has another {error}", code="outputs_differ") from error

    def figures(self, outputs: Mapping[str, Any]) -> tuple[Judged, ...]:
        """Paired quality on labelled data. The contract's metrics decide, else the task's first."""
        spec, labels = self.resolved.judged, self.labels
        if spec is None or labels is None:
            return ()
        where = f"{self.samples.where}: labels"
        found = figures_of(spec, self.reference, self.samples.inputs, labels, where)
        tolerances = self.resolved.tolerances
        named = [item.name for item in found if item.name in tolerances]
        decisive = named or list(FIGURES.get(spec.task or "", ())[:1])
        return tuple(
            judged(
                item,
                self.reference,
                outputs,
                self.samples.slices,
                tolerances.get(item.name),
                decides=item.name in decisive,
            )
            for item in found
        )

    def check_labels(self) -> tuple[str, ...]:
        """Look at the labels before anything is built for them; gives the codes of what is odd.

        Raises:
            DataError: they are not what the judged output's task needs.
        """
        spec, labels = self.resolved.judged, self.labels
        if spec is None or labels is None:
            return ()
        where = f"{self.samples.where}: labels"
        try:
            found = figures_of(spec, self.reference, self.samples.inputs, labels, where)
            rows = {figure.name: figure.rows(self.reference) for figure in found}
        except (ValueError, IndexError, TypeError) as error:
            raise DataError(
                f"labels {labels.dtype} {labels.shape} do not fit the {spec.task} of output {spec.name!r}",
                where=where,
                remedy="give labels in the form that the task needs, or correct outputs.task in the contract",
                code="wrong_labels",
            ) from error
        if "top1" not in rows:
            return ()
        classes = class_scores(self.reference[spec.name][:1], spec.activation).shape[-1]
        return ("labels_shifted",) if worse_than_chance(rows["top1"], classes) else ()

    def verdict(
        self, precision: str, errors: Mapping[str, OutputError], figures: Sequence[Judged]
    ) -> Verdict:
        """What `verify.verdict` says of them."""
        return judge(
            precision=self.precision(precision),
            errors=errors,
            figures=figures,
            origin=self.origin,
            n=self.samples.n,
            doubts=self.warnings,
        )

    def accepts(self, precision: str, outputs: Mapping[str, Any]) -> bool:
        """Whether a search may go on with what gives `outputs`: no breach, and the loss that was *measured*
        is within the tolerance too (a search finds what luck of few samples allows). On random inputs
        the thresholds hold as everywhere."""
        figures = self.figures(outputs)
        found = self.verdict(precision, self.errors(outputs), figures)
        lost = any(item.decides and item.drop > item.tolerance for item in figures)
        return found.verdict != "breach" and "below_threshold" not in found.reasons and not lost

    def save(self, path: Path) -> dict[str, Any]:
        """Arrays into the npz `path`; gives the JSON rest. The samples themselves are not in it."""
        arrays = {f"reference:{name}": value for name, value in self.reference.items()}
        more = {"labels": self.samples.labels, "slices": self.samples.slices}
        save_arrays(path, {**arrays, **{name: value for name, value in more.items() if value is not None}})
        return {
            "contract": self.resolved.contract.to_dict(),
            "names": dict(self.resolved.names),
            "signature": self.resolved.signature.to_dict(),
            "origin": self.origin,
            "where": self.samples.where,
            "warnings": list(self.warnings),
        }

    @classmethod
    def load(cls, facts: Mapping[str, Any], path: Path, samples: Path) -> Yardstick:
        """Back from `save`, with the evaluation inputs in the npz `samples`."""
        arrays = load_arrays(path)
        return cls(
            resolved=Resolved(
                contract=Contract.from_dict(facts["contract"]),
                names=facts["names"],
                signature=Signature.from_dict(facts["signature"]),
            ),
            samples=Dataset(
                inputs=load_arrays(samples),
                labels=arrays.get("labels"),
                slices=arrays.get("slices"),
                where=facts["where"],
            ),
            origin=facts["origin"],
            reference={
                name.removeprefix("reference:"): value
                for name, value in arrays.items()
                if name.startswith("reference:")
            },
            warnings=tuple(facts["warnings"]),
        )


__all__ = ["Yardstick"]
