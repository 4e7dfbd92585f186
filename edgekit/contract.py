"""The model contract (`model.toml` beside the source): what the model is, takes, gives and promises.

Everything is optional: what is not given is inferred by the converters and shown. `load_contract`
reads what a person wrote and is strict; `Contract.from_dict` reads what stands in a package's
``contract`` member and keeps what a newer version added in `extra`. Shapes count the batch as -1.
Applying preprocessing and thresholds is the agent's business, checking data against the inputs the
converters'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import ContractError
from edgekit.tomlfile import Table, did_you_mean, json_ready, read_toml

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool")
MEANINGS = ("image", "audio", "text", "tabular", "tensor")
TASKS = ("classification", "detection", "segmentation", "regression", "embedding", "anomaly")
METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("top1", "top5", "auc"),
    "detection": ("map", "map50"),
    "segmentation": ("miou", "pixel_accuracy"),
    "regression": ("rmse", "mae"),
    "embedding": ("recall1",),
    "anomaly": ("auc",),
}
"""The figures of each task, the first being the one a contract without metrics is judged by."""
ACTIVATIONS = ("softmax", "sigmoid", "logits", "none")
ORIGINS = ("pretrained", "generated", "bespoke")
LAYOUTS = ("NHWC", "NCHW", "NTC", "NCT", "NC", "")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")
_IDENTITY_TEXTS = ("group", "owner", "contact", "licence", "git_revision", "framework", "description")
_IDENTITY_TABLES = ("framework_versions", "hyperparameters", "features", "training_data")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From what a sensor gives to what the model takes: value · scale, then (x − mean) / std.

    `resize` is (height, width), `crop` likewise after resizing, `color` ``rgb``, ``bgr`` or ``gray``.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    color: str | None = None
    tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """An input of the model. `range` is the (low, high) of valid values, after preprocessing."""

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    layout: str = ""
    meaning: str = "tensor"
    range: tuple[float, float] | None = None
    preprocess: Preprocess | None = None


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """An output of the model. `activation` says whether classes are softmax probabilities or logits."""

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    task: str | None = None
    labels: tuple[str, ...] = ()
    activation: str = "none"

    @property
    def has_argmax(self) -> bool:
        """Whether the largest value names a class."""
        return self.task == "classification"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quality figure and the loss that conversion may cause (absolute: 0.01 is one point of top1)."""

    name: str
    tolerance: float
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """Files with samples, relative to the contract's folder once loaded."""

    calibration: str | None = None
    validation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What users may rely on. Below `confidence_threshold` the answer is `fallback`."""

    confidence_threshold: float | None = None
    fallback: str | None = None
    latency_budget_ms: float | None = None
    memory_budget_mb: int | None = None


@dataclass(frozen=True, kw_only=True)
class Kpi:
    """A business figure with its target and the date it is looked at again (ISO)."""

    name: str
    target: str
    review: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A model contract; see the module. `identity` is JSON-ready free metadata of the model table."""

    name: str | None = None
    version: str | None = None
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    metrics: tuple[Metric, ...] = ()
    data: Data = Data()
    serving: Serving = Serving()
    drift_bins: int = 10
    kpis: tuple[Kpi, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, in the shape of the TOML file; what is not set is left out."""
        model = {"name": self.name, "version": self.version, **self.identity}
        body = {
            "model": model,
            "inputs": [asdict(item) for item in self.inputs],
            "outputs": [asdict(item) for item in self.outputs],
            "metrics": [asdict(item) for item in self.metrics],
            "kpis": [asdict(item) for item in self.kpis],
            "data": asdict(self.data),
            "serving": asdict(self.serving),
            "drift": {"bins": self.drift_bins},
        }
        return {**self.extra, **_pruned(body)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, where: str = "contract") -> Contract:
        """Read what `to_dict` wrote; unknown top-level members are kept in `extra`.

        Raises:
            ContractError: a member of the wrong type or value.
        """
        table = Table(json_ready(value), where=where, error=ContractError, strict=False)
        contract = _contract(table)
        known = {"model", "inputs", "outputs", "metrics", "kpis", "data", "serving", "drift"}
        extra = {key: member for key, member in value.items() if key not in known}
        return cls(**{**_fields_of(contract), "extra": extra})


def load_contract(path: Path) -> Contract:
    """Read a ``model.toml``. Data paths are made relative to the contract's folder.

    Raises:
        ContractError: unreadable, not TOML, or a key that is unknown or of the wrong kind.
    """
    table = read_toml(path, ContractError)
    contract = _contract(table)
    for index, metric in enumerate(contract.metrics):
        _check_metric(table, f"metrics[{index}]", metric, contract.outputs)
    data = Data(
        calibration=_beside(path, contract.data.calibration),
        validation=_beside(path, contract.data.validation),
    )
    return Contract(**{**_fields_of(contract), "data": data})


def _beside(path: Path, name: str | None) -> str | None:
    return str(path.parent / name) if name is not None else None


def _fields_of(contract: Contract) -> dict[str, Any]:
    return {name: getattr(contract, name) for name in Contract.__dataclass_fields__}


def _contract(table: Table) -> Contract:
    model = table.table("model")
    name, version = _checked(model, "name"), _checked(model, "version")
    contract = Contract(
        name=name,
        version=version,
        identity=_identity(model),
        inputs=table.tables("inputs", _input),
        outputs=table.tables("outputs", _output),
        metrics=table.tables("metrics", _metric),
        kpis=table.tables("kpis", _kpi),
        data=_data(table.table("data")),
        serving=_serving(table.table("serving")),
        drift_bins=_drift(table.table("drift")),
    )
    for key, items in (("inputs", contract.inputs), ("outputs", contract.outputs)):
        names = [item.name for item in items]
        if len(set(names)) != len(names):
            raise table.fail(key, "two entries have the same name")
    table.finish()
    return contract


def _checked(model: Table, key: str) -> str | None:
    value = model.maybe_text(key)
    if value is not None and not _NAME.match(value):
        raise model.fail(key, f"{value!r}: letters, digits and . _ + - were expected (at most 128)")
    return value


def _identity(model: Table) -> dict[str, Any]:
    """The free members of ``[model]``; from a package unknown ones are kept as they are."""
    found: dict[str, Any] = {}
    if model.has("tags"):
        found["tags"] = list(model.texts("tags"))
    if model.has("origin"):
        found["origin"] = model.text("origin", allowed=ORIGINS)
    found.update({key: model.text(key) for key in _IDENTITY_TEXTS if model.has(key)})
    found.update({key: model.mapping(key) for key in _IDENTITY_TABLES if model.has(key)})
    model.finish()
    return {**model.rest(), **found}


def _input(table: Table) -> InputSpec:
    limits = table.numbers("range")
    if table.has("range") and (len(limits) != 2 or limits[0] >= limits[1]):
        raise table.fail("range", "two numbers [low, high] with low < high were expected")
    return InputSpec(
        name=table.text("name"),
        dtype=table.text("dtype", "float32", allowed=DTYPES),
        shape=table.integers("shape"),
        layout=table.text("layout", "", allowed=LAYOUTS),
        meaning=table.text("meaning", "tensor", allowed=MEANINGS),
        range=(limits[0], limits[1]) if limits else None,
        preprocess=_preprocess(table.table("preprocess")) if table.has("preprocess") else None,
    )


def _preprocess(table: Table) -> Preprocess:
    step = Preprocess(
        scale=table.maybe_number("scale"),
        mean=table.numbers("mean"),
        std=table.numbers("std"),
        resize=table.integers("resize", low=1),
        crop=table.integers("crop", low=1),
        color=table.text("color", allowed=("rgb", "bgr", "gray")) if table.has("color") else None,
        tokenizer=table.maybe_text("tokenizer"),
    )
    if any(value == 0 for value in step.std):
        raise table.fail("std", "0 would divide by zero")
    for key in ("resize", "crop"):
        if len(getattr(step, key)) not in (0, 2):
            raise table.fail(key, "two whole numbers [height, width] were expected")
    table.finish()
    return step


def _output(table: Table) -> OutputSpec:
    return OutputSpec(
        name=table.text("name"),
        dtype=table.text("dtype", "float32", allowed=DTYPES),
        shape=table.integers("shape"),
        task=table.text("task", allowed=TASKS) if table.has("task") else None,
        labels=table.texts("labels"),
        activation=table.text("activation", "none", allowed=ACTIVATIONS),
    )


def _metric(table: Table) -> Metric:
    tolerance = table.number("tolerance")
    if tolerance < 0:
        raise table.fail("tolerance", "a number of at least 0 was expected")
    return Metric(name=table.text("name"), tolerance=tolerance, output=table.maybe_text("output"))


def _check_metric(table: Table, key: str, metric: Metric, outputs: tuple[OutputSpec, ...]) -> None:
    """A figure that nothing computes would silently not be judged."""
    if metric.name not in _names(METRICS):
        raise table.fail(
            f"{key}.name", f"there is no metric {metric.name!r}", did_you_mean(metric.name, _names(METRICS))
        )
    tasks = {item.task for item in outputs if item.task and metric.output in (None, item.name)}
    offered = _names(tasks)
    if offered and metric.name not in offered:
        raise table.fail(
            f"{key}.name",
            f"{metric.name} is no metric of {' or '.join(sorted(str(task) for task in tasks))}",
            f"its metrics: {', '.join(offered)}",
        )


def _names(tasks: Iterable[str | None]) -> tuple[str, ...]:
    """The metrics of tasks, each once."""
    return tuple(dict.fromkeys(name for task in tasks if task for name in METRICS[task]))


def _kpi(table: Table) -> Kpi:
    target = json_ready(table.free("target"))
    review = table.free("review") if table.has("review") else None
    return Kpi(
        name=table.text("name"),
        target=str(target),
        review=None if review is None else str(json_ready(review)),
    )


def _data(table: Table) -> Data:
    data = Data(calibration=table.maybe_text("calibration"), validation=table.maybe_text("validation"))
    table.finish()
    return data


def _serving(table: Table) -> Serving:
    threshold = table.maybe_number("confidence_threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        raise table.fail("confidence_threshold", f"a number within [0, 1] was expected, not {threshold}")
    serving = Serving(
        confidence_threshold=threshold,
        fallback=table.maybe_text("fallback"),
        latency_budget_ms=table.maybe_number("latency_budget_ms"),
        memory_budget_mb=table.maybe_integer("memory_budget_mb", low=1),
    )
    table.finish()
    return serving


def _drift(table: Table) -> int:
    bins = table.integer("bins", 10, low=2)
    if bins > 256:
        raise table.fail("bins", f"at most 256 bins, not {bins}")
    table.finish()
    return bins


def _pruned(value: Any) -> Any:
    """`value` without None and empty members, tuples as lists."""
    if isinstance(value, Mapping):
        kept = {key: _pruned(member) for key, member in value.items()}
        return {key: member for key, member in kept.items() if member not in (None, [], {})}
    if isinstance(value, list | tuple):
        return [_pruned(member) for member in value]
    return value
