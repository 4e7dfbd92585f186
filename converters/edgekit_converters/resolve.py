"""The resolved contract: what the user wrote, completed by what the source says. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.contract import Contract, InputSpec, OutputSpec
from edgekit.errors import ContractError
from edgekit.package import Tensor
from edgekit.tomlfile import did_you_mean
from edgekit_converters.data import safe_name
from edgekit_converters.values import Signature, Source


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """What labels look like: the highest where they are one whole number a sample, and how many values
    belong to a sample."""

    highest: int | None
    per_sample: int


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The contract with every port known, and the map from the source's port names to its names."""

    contract: Contract
    names: Mapping[str, str]
    signature: Signature

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The contract's inputs, in the source's order."""
        return tuple(Tensor(name=i.name, dtype=i.dtype, shape=i.shape) for i in self.contract.inputs)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The contract's outputs, in the source's order."""
        return tuple(Tensor(name=o.name, dtype=o.dtype, shape=o.shape) for o in self.contract.outputs)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """(low, high) by input name where the contract gives one."""
        return {item.name: item.range for item in self.contract.inputs if item.range}

    @property
    def classifier(self) -> str | None:
        """The output whose argmax is the class: the one a top1 metric names, else the first of the task."""
        named = [m.output for m in self.contract.metrics if m.name == "top1" and m.output]
        tasks = [item.name for item in self.contract.outputs if item.has_argmax]
        return next((name for name in (*named, *tasks) if name in tasks), None)

    @property
    def activation(self) -> str:
        """The classifier's activation, ``none`` without a classifier."""
        chosen = self.classifier
        return next((item.activation for item in self.contract.outputs if item.name == chosen), "none")

    @property
    def judged(self) -> OutputSpec | None:
        """The output that labels judge: the one a metric names, else the first that has a task."""
        outputs = {item.name: item for item in self.contract.outputs if item.task}
        named = [m.output for m in self.contract.metrics if m.output in outputs]
        return outputs[named[0]] if named and named[0] else next(iter(outputs.values()), None)

    @property
    def tolerances(self) -> dict[str, float]:
        """The accepted loss by the metric's name, for the metrics of the contract."""
        return {item.name: item.tolerance for item in self.contract.metrics}


def resolve(contract: Contract, signature: Signature, source: Source, *, where: str) -> Resolved:
    """Complete `contract` from the source's signature.

    Raises:
        ContractError: ports, dtypes or shapes that do not fit, or a free axis that nobody pinned.
    """
    safe = _names_apart([port.name for port in (*signature.inputs, *signature.outputs)], contract)
    inputs = _pair(contract.inputs, signature.inputs, f"{where}: inputs")
    outputs = _pair(contract.outputs, signature.outputs, f"{where}: outputs")
    full_inputs = tuple(
        _input(port, spec, f"{where}: inputs.{spec.name if spec else port.name}", safe[port.name])
        for port, spec in inputs
    )
    full_outputs = tuple(
        _output(
            port,
            spec,
            signature.activation if index == 0 else "none",
            f"{where}: outputs.{port.name}",
            safe[port.name],
        )
        for index, (port, spec) in enumerate(outputs)
    )
    if signature.labels and full_outputs and not full_outputs[0].labels:
        full_outputs = (replace(full_outputs[0], labels=signature.labels), *full_outputs[1:])
    names = {port.name: spec.name for (port, _), spec in zip(inputs, full_inputs, strict=True)}
    for (port, _), found in zip(outputs, full_outputs, strict=True):
        if port.name in names:
            raise ContractError(
                f"{port.name!r} is an input and an output",
                where=where,
                remedy="export the model with another name for one of them",
            )
        names[port.name] = found.name
    if len(set(names.values())) != len(names):
        twice = sorted(name for name in names.values() if list(names.values()).count(name) > 1)
        raise ContractError(
            f"{twice[0]!r} is the name of several inputs or outputs",
            where=where,
            remedy="give each its own name in model.toml",
        )
    ports = {item.name for item in full_outputs}
    for metric in contract.metrics:
        if metric.output is not None and metric.output not in ports:
            raise ContractError(
                f"{metric.output!r} is no output of the model",
                where=f"{where}: metrics.{metric.name}.output",
                remedy=did_you_mean(metric.output, ports),
            )
    name = contract.name or _model_name(Path(source.path).stem, where)
    completed = replace(
        contract,
        name=name,
        version=contract.version or f"0.0.0+{source.digest[:8]}",
        inputs=full_inputs,
        outputs=full_outputs,
    )
    return Resolved(contract=completed, names=names, signature=signature)


def with_labels(resolved: Resolved, labels: LabelFacts) -> Resolved:
    """The same once labels were found in the validation data and no output has a task: whole numbers let
    the first matrix output classify (a single unit tells two classes apart; greater numbers are values to
    it), real values of the first output's size make it a regression."""
    contract = resolved.contract
    first = contract.outputs[0]
    if resolved.classifier or any(item.task for item in contract.outputs):
        return resolved
    if labels.highest is not None and len(first.shape) == 2 and (first.shape[1] > 1 or labels.highest <= 1):
        activation = first.activation if first.activation != "none" else "logits"
        return _with_first(resolved, replace(first, task="classification", activation=activation))
    if math.prod(first.shape[1:]) == labels.per_sample:
        return _with_first(resolved, replace(first, task="regression"))
    return resolved


def _with_first(resolved: Resolved, first: OutputSpec) -> Resolved:
    outputs = (first, *resolved.contract.outputs[1:])
    return replace(resolved, contract=replace(resolved.contract, outputs=outputs))


def _names_apart(names: Sequence[str], contract: Contract) -> dict[str, str]:
    """By port name a name that every runtime takes; ``a:0`` and ``a_0`` stay two names."""
    given = {item.name for item in contract.inputs} | {item.name for item in contract.outputs}
    taken = {name for name in names if safe_name(name) == name} | given
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        safe, count = safe_name(name), 0
        while safe != name and (safe in taken or safe in found.values()):
            count += 1
            safe = f"{safe_name(name)}_{count}"
        found[name] = safe
    return found


_SPELLED = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "œ": "oe"}
)


def _model_name(stem: str, where: str) -> str:
    """The file's name as a model's: letters with marks lose the marks, other signs become ``-``.

    Raises:
        ContractError: there are letters that have no Latin form.
    """
    spelled = unicodedata.normalize("NFKD", stem.translate(_SPELLED))
    plain = "".join(sign for sign in spelled if not unicodedata.combining(sign))
    lost = [sign for sign in plain if sign.isalnum() and not sign.isascii()]
    if lost:
        raise ContractError(
            f"the name {stem!r} has letters that a model's name cannot have: {''.join(dict.fromkeys(lost))}",
            where=where,
            remedy='write [model] name = "…" into model.toml, in letters A to Z, digits and . _ + -',
            code="unusable_name",
        )
    return re.sub(r"[^A-Za-z0-9._+-]", "-", plain).lstrip("._+-") or "model"


def _pair(
    specs: Sequence[InputSpec | OutputSpec], ports: Sequence[Tensor], where: str
) -> list[tuple[Tensor, InputSpec | OutputSpec | None]]:
    """Each port with what the contract says of it: by name, else by place when the numbers are equal."""
    if not specs:
        return [(port, None) for port in ports]
    by_name = {item.name: item for item in specs}
    known = {port.name for port in ports}
    if set(by_name) <= known:
        return [(port, by_name.get(port.name)) for port in ports]
    if len(specs) == len(ports):
        return list(zip(ports, specs, strict=True))
    raise ContractError(
        f"{sorted(by_name)} are named, the model has {sorted(known)}",
        where=where,
        remedy="give one entry for each, in the model's order, or use the model's names",
        code="ports_differ",
    )


def _input(port: Tensor, spec: InputSpec | OutputSpec | None, where: str, name: str) -> InputSpec:
    assert spec is None or isinstance(spec, InputSpec)
    base = spec or InputSpec(name=name, dtype=port.dtype)
    _same_dtype(base.dtype, port, where)
    shape = _merged(port.shape, base.shape, where)
    if -1 in shape[1:]:
        raise ContractError(
            f"shape {list(shape)} leaves an axis free besides the batch",
            where=where,
            remedy="give the sizes in model.toml: [[inputs]] shape = [-1, …]",
            code="dynamic_shape",
        )
    return replace(base, shape=shape)


def _output(
    port: Tensor, spec: InputSpec | OutputSpec | None, activation: str, where: str, name: str
) -> OutputSpec:
    assert spec is None or isinstance(spec, OutputSpec)
    base = spec or OutputSpec(name=name, dtype=port.dtype)
    _same_dtype(base.dtype, port, where)
    found = replace(base, shape=_merged(port.shape, base.shape, where))
    if found.activation == "none" and activation != "none":
        found = replace(found, activation=activation)
    if found.task is None and found.activation == "softmax" and len(found.shape) == 2:
        found = replace(found, task="classification")
    if found.labels and found.shape[-1] not in (-1, len(found.labels)):
        raise ContractError(
            f"{len(found.labels)} labels for {found.shape[-1]} classes",
            where=f"{where}.labels",
            remedy="give one label for each class, in the model's order",
            code="wrong_length",
        )
    return found


def _same_dtype(wanted: str, port: Tensor, where: str) -> None:
    if wanted != port.dtype:
        raise ContractError(
            f"the contract says {wanted}, the model has {port.dtype}",
            where=f"{where}.dtype",
            remedy=f'write dtype = "{port.dtype}"',
            code="wrong_dtype",
        )


def _merged(model: tuple[int, ...], wanted: tuple[int, ...], where: str) -> tuple[int, ...]:
    """The model's shape with free axes pinned by the contract."""
    if not wanted:
        return model
    fits = len(model) == len(wanted) and all(
        a in (-1, b) or b == -1 for a, b in zip(model[1:], wanted[1:], strict=True)
    )
    if not fits:
        raise ContractError(
            f"the contract says {list(wanted)}, the model has {list(model)}",
            where=f"{where}.shape",
            remedy="write the model's shape, -1 for the batch",
            code="wrong_shape",
        )
    return (-1, *(b if a == -1 else a for a, b in zip(model[1:], wanted[1:], strict=True)))
