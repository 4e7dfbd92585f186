"""From a caller's arrays to an answer: validate → preprocess → model → postprocess, all from the contract.

Callers send what the sensor gives: where the contract has preprocessing, raw values of any numeric
dtype, which become the model's by resize, crop, colour, ``value · scale``, ``(x − mean) / std``; without
preprocessing, exactly the input's dtype and shape. Classification outputs become probabilities
(softmax, or sigmoid for a single unit, where the contract says logits), a label and a confidence.

Package probes bypass all this (they test the artifact, see `edgekit_agent.probing`); ground-truth
probes go through it. Counting and error statistics belong to the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Contract, InputSpec, OutputSpec, Serving
from edgekit.errors import RefusedError
from edgekit.package import Manifest, Tensor, Variant
from edgekit.ports import Arrays, Session
from edgekit_agent.errors import ModelError, RequestError
from edgekit_agent.serving.image import color_as, crop_center, resize
from edgekit_agent.serving.observe import Observer
from edgekit_agent.serving.values import Decision, Result

Array = NDArray[Any]

ABSTAIN = "abstain"
_LAYOUTS = {"NHWC": -1, "NCHW": 1}


class Pipeline:
    """The pipeline of one loaded variant. Thread-safe when its session is.

    Raises:
        RefusedError: the contract asks for a step this agent does not have.
    """

    def __init__(self, manifest: Manifest, variant: Variant, session: Session) -> None:
        contract = Contract.from_dict(manifest.contract, where=f"{manifest.ref}: contract")
        specs = {item.name: item for item in contract.inputs}
        outputs = {item.name: item for item in contract.outputs}
        self._session = session
        self._inputs = {item.name: _Input(item, specs.get(item.name)) for item in variant.inputs}
        self._names = frozenset(self._inputs)
        self._outputs = [_Output(item, outputs.get(item.name), contract.serving) for item in variant.outputs]
        self._observer = Observer(manifest.reference)
        self.classes = {item.name: item.classes for item in self._outputs if item.classes}

    def run(self, inputs: Mapping[str, Array]) -> Result:
        """One batch.

        Args:
            inputs: one array per input, first axis = batch.

        Raises:
            RequestError: names, shapes, dtypes or values do not fit.
            ModelError: the model failed, or answered NaN or infinity.
        """
        began = perf_counter()
        ready = self._prepare(inputs)
        prepared = perf_counter()
        raw = self._session.run(ready)
        inferred = perf_counter()
        outputs, decisions = self._finish(raw)
        observed = self._observer.observe(ready, outputs, decisions)
        done = perf_counter()
        return Result(
            outputs=outputs,
            decisions=decisions,
            stages=(
                ("preprocess", (prepared - began) * 1e3),
                ("infer", (inferred - prepared) * 1e3),
                ("postprocess", (done - inferred) * 1e3),
                ("total", (done - began) * 1e3),
            ),
            observations=observed,
        )

    def arrays(self, values: Mapping[str, object] | object) -> dict[str, Array]:
        """`convert` for all inputs by name, or for the only one.

        Raises:
            RequestError: as `convert`; or several inputs and no names.
        """
        if not isinstance(values, Mapping):
            if len(self._inputs) != 1:
                raise RequestError(
                    "values by input name were expected",
                    remedy=f"the inputs are {', '.join(self._inputs)}",
                    code="bad_inputs",
                )
            values = {next(iter(self._inputs)): values}
        return {name: self.convert(name, value) for name, value in values.items()}

    def convert(self, name: str, value: object) -> Array:
        """Nested lists without a datatype (streams, files) as an array for input `name`, in the contract's
        dtype; a single sample gets its batch axis.

        Raises:
            RequestError: unknown input, ragged or not numeric.
        """
        if name not in self._inputs:
            raise self._wrong_names({name})
        return self._inputs[name].convert(value)

    def labels(self, output: str) -> tuple[str, ...]:
        """The contract's labels of an output, empty where it has none."""
        return next((item.labels for item in self._outputs if item.name == output), ())

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs' names in the variant's order."""
        return tuple(self._inputs)

    def _prepare(self, inputs: Mapping[str, Array]) -> Arrays:
        if inputs.keys() != self._names:
            raise self._wrong_names(set(inputs))
        ready = {name: step.prepare(inputs[name]) for name, step in self._inputs.items()}
        sizes = {array.shape[0] for name, array in ready.items() if self._inputs[name].batched}
        if len(sizes) > 1:
            raise RequestError(f"inputs have different batch sizes: {sorted(sizes)}", code="bad_shape")
        return ready

    def _wrong_names(self, given: set[str]) -> RequestError:
        missing, unknown = sorted(self._names - given), sorted(given - self._names)
        text = "; ".join(
            f"{what} input {', '.join(map(repr, names))}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        )
        return RequestError(
            text, remedy=f"the inputs are {', '.join(sorted(self._names))}", code="bad_inputs"
        )

    def _finish(self, raw: Arrays) -> tuple[dict[str, Array], dict[str, Decision]]:
        outputs: dict[str, Array] = {}
        decisions: dict[str, Decision] = {}
        for step in self._outputs:
            outputs[step.name], decision = step.finish(raw[step.name])
            if decision is not None:
                decisions[step.name] = decision
        return outputs, decisions


class _Input:
    """Validation and preprocessing of one input."""

    def __init__(self, tensor: Tensor, spec: InputSpec | None) -> None:
        self._name, self._dtype = tensor.name, np.dtype(tensor.dtype)
        self._shape = tensor.shape
        self.batched = bool(tensor.shape) and tensor.shape[0] == -1
        self._step = spec.preprocess if spec else None
        self._layout = spec.layout if spec else ""
        if self._step and self._step.tokenizer:
            raise RefusedError(
                f"input {tensor.name!r} needs tokenizer {self._step.tokenizer!r}, which this agent has not",
                remedy="tokenize in the client and leave preprocess.tokenizer out of the contract",
                code="unsupported_step",
            )
        step = self._step
        self._scale = np.float32(step.scale) if step and step.scale is not None else None
        self._mean = self._per_channel(step.mean) if step and step.mean else None
        self._std = self._per_channel(step.std) if step and step.std else None
        self._pictures = bool(step and (step.resize or step.crop or step.color))
        if self._pictures and self._layout not in _LAYOUTS:
            raise RefusedError(
                f"input {tensor.name!r}: resize, crop and color need layout NHWC or NCHW in the contract",
                code="unsupported_step",
            )

    def prepare(self, array: Array) -> Array:
        if self._step is None:
            if array.dtype != self._dtype:
                raise self._fail(f"dtype {self._dtype} was expected, not {array.dtype}", "bad_dtype")
            self._check_finite(array)
        else:
            if array.dtype.kind not in "biuf":
                raise self._fail(f"numbers were expected, not {array.dtype}", "bad_dtype")
            self._check_finite(array)
            array = self._preprocess(array)
        self._check_shape(array)
        return array

    def convert(self, value: object) -> Array:
        try:
            found = np.asarray(value)
        except (ValueError, OverflowError) as error:
            raise self._fail("rows of one length were expected", "bad_shape") from error
        if found.dtype.kind not in "biuf":
            raise self._fail("numbers were expected", "bad_dtype")
        whole = self._dtype.kind in "iu" and self._step is None
        if whole and (found.dtype.kind == "f" or (found.size and not self._fits(found))):
            raise self._fail(f"whole numbers that fit {self._dtype} were expected", "bad_dtype")
        with np.errstate(over="ignore"):
            array = found.astype(self._dtype) if self._step is None else found
        if self.batched and array.ndim == len(self._shape) - 1:
            return array[None]
        flat = int(np.prod([abs(size) for size in self._shape[1:]]))
        if self.batched and -1 not in self._shape[1:] and array.ndim == 1 and array.size == flat:
            return array.reshape(1, *self._shape[1:])
        return array

    def _fits(self, found: Array) -> bool:
        limits = np.iinfo(self._dtype)
        return bool(limits.min <= found.min() and found.max() <= limits.max)

    def _preprocess(self, array: Array) -> Array:
        if self._pictures:
            array = self._picture(array)
        value = array.astype(np.float32, copy=False)
        if self._scale is not None:
            value = value * self._scale
        if self._mean is not None:
            value = value - self._mean
        if self._std is not None:
            value = value / self._std
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            return np.clip(np.rint(value), limits.min, limits.max).astype(self._dtype)
        return value.astype(self._dtype, copy=False)

    def _picture(self, array: Array) -> Array:
        if array.ndim != 4:
            raise self._fail(f"a batch of pictures (4 axes) was expected, not {array.ndim} axes", "bad_shape")
        assert self._step is not None
        first = self._layout == "NCHW"
        pictures = np.moveaxis(array, 1, -1) if first else array
        if self._step.resize:
            pictures = resize(pictures, self._step.resize[0], self._step.resize[1])
        if self._step.crop:
            if pictures.shape[1] < self._step.crop[0] or pictures.shape[2] < self._step.crop[1]:
                raise self._fail(f"at least {self._step.crop} pixels were expected", "bad_shape")
            pictures = crop_center(pictures, self._step.crop[0], self._step.crop[1])
        if self._step.color:
            if pictures.shape[-1] not in (1, 3):
                raise self._fail("pictures of 1 or 3 channels (RGB) were expected", "bad_shape")
            pictures = color_as(pictures, self._step.color)
        return np.ascontiguousarray(np.moveaxis(pictures, -1, 1)) if first else pictures

    def _per_channel(self, values: tuple[float, ...]) -> NDArray[np.float32]:
        """`values` shaped to apply along the channel axis."""
        array = np.asarray(values, np.float32)
        if self._layout == "NCHW" and len(values) > 1:
            return array.reshape(-1, 1, 1)
        return array

    def _check_shape(self, array: Array) -> None:
        wanted, given = self._shape, array.shape
        fits = len(wanted) == len(given) and all(a in (-1, b) for a, b in zip(wanted, given, strict=True))
        if not fits:
            raise self._fail(f"shape {list(wanted)} was expected, not {list(given)}", "bad_shape")
        if 0 in given:
            raise self._fail(f"shape {list(given)} holds no values", "bad_shape")

    def _check_finite(self, array: Array) -> None:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise self._fail("NaN or infinity", "not_finite")

    def _fail(self, message: str, code: str) -> RequestError:
        return RequestError(message, where=f"input {self._name!r}", code=code)


class _Output:
    """Postprocessing of one output."""

    def __init__(self, tensor: Tensor, spec: OutputSpec | None, serving: Serving) -> None:
        self.name = tensor.name
        self.labels = spec.labels if spec else ()
        self._activation = spec.activation if spec else "none"
        self._classify = bool(spec and spec.has_argmax) and len(tensor.shape) >= 1
        units = tensor.shape[-1] if self._classify and len(tensor.shape) > 1 else 1
        self._single = units == 1
        self.classes = 0 if not self._classify or units < 1 else max(units, 2)
        self._threshold = serving.confidence_threshold
        self._fallback = serving.fallback or ABSTAIN

    def finish(self, array: Array) -> tuple[Array, Decision | None]:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError("the model answered NaN or infinity", where=self.name, code="not_finite")
        if not self._classify:
            return array, None
        if self._activation == "logits":
            array = sigmoid(array) if self._single else softmax(array)
        # Without a known activation the outputs stay as they are; the reference distributions of a
        # package take the confidence from a softmax then, and so it is here.
        unknown = self._activation == "none" and not self._single
        return array, self._decide(softmax(array) if unknown else array)

    def _decide(self, array: Array) -> Decision:
        if self._single:
            positive = array.reshape(-1)
            classes = (positive > 0.5).astype(np.int64)
            confidence = np.where(classes, positive, 1 - positive.astype(np.float64))
        else:
            rows = array.reshape(-1, array.shape[-1])
            classes = rows.argmax(axis=1)
            confidence = rows[np.arange(len(rows)), classes]
        numbers, shares = classes.tolist(), confidence.tolist()
        return Decision(
            classes=numbers,
            confidence=shares,
            labels=[self._label(number, share) for number, share in zip(numbers, shares, strict=True)],
        )

    def _label(self, number: int, share: float) -> str:
        if self._threshold is not None and share < self._threshold:
            return self._fallback
        return self.labels[number] if number < len(self.labels) else str(number)


def softmax(array: Array) -> Array:
    """Softmax over the last axis, in the array's own dtype."""
    wide = array.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=array.dtype)


def sigmoid(array: Array) -> Array:
    """Logistic function, in the array's own dtype."""
    return np.asarray(1 / (1 + np.exp(-np.clip(array.astype(np.float64), -500, 500))), dtype=array.dtype)


__all__ = ["ABSTAIN", "Pipeline", "sigmoid", "softmax"]
