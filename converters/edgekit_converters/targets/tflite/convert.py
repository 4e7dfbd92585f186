"""The second route: TensorFlow's converter, for Keras and SavedModel. Imported in TensorFlow workers only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.package import Requirements
from edgekit_converters import frontends
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays
from edgekit_converters.targets.tflite import flatbuffer
from edgekit_converters.targets.tflite.effect import require_effect
from edgekit_converters.values import Built, Job

MINIMUM = "1.2.0"
"""Lowest LiteRT that the profiles name; files with ops newer than that are caught by `executed` only."""

_loaded: dict[str, Any] = {}


def build(job: Job, path: Path) -> Built:
    """Convert `job`'s source to `path`. See `TfliteTarget.build`."""
    import tensorflow as tf

    function, route = _function(job)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    _configure(converter, job)
    with _quiet():
        data = _converted(converter)
    data = flatbuffer.finish(data, [item.name for item in job.inputs], [item.name for item in job.outputs])
    found = flatbuffer.inspect(data)
    require_effect(job.precision, found.facts)
    path.write_bytes(data)
    return Built(
        main=path.name,
        inputs=tuple(flatbuffer.bind(item, found.inputs[item.name]) for item in job.inputs),
        outputs=tuple(flatbuffer.bind(item, found.outputs[item.name]) for item in job.outputs),
        requires=Requirements(runtime="litert", min_runtime=MINIMUM),
        route=route,
        facts=found.facts,
        tools={"tensorflow": tf.__version__},
    )


def _function(job: Job) -> tuple[Any, str]:
    """The source as a concrete function with a free batch, kept for the next precision."""
    key = job.source.digest
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = frontends.load(job.source)
    return _loaded[key].concrete(
        [item.shape for item in job.inputs]
    ), f"{job.source.kind} > tensorflow > TFLiteConverter"


def _configure(converter: Any, job: Job) -> None:
    import tensorflow as tf

    if job.precision == "fp32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if job.precision == "int8":
        if job.calibration is None:
            raise Refusal(
                "static int8 needs calibration data",
                remedy="give --calibration FILE.npz with 100 or more real samples",
                code="needs_calibration",
            )
        converter.representative_dataset = lambda: _samples(job)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8


def _samples(job: Job) -> Iterator[list[Any]]:
    assert job.calibration is not None
    arrays = load_arrays(Path(job.calibration))
    columns = [arrays[item.name] for item in job.inputs]
    for index in range(len(columns[0])):
        yield [column[index : index + 1] for column in columns]


def _converted(converter: Any) -> bytes:
    """Run the converter; what it cannot do is a refusal with its own words."""
    from tensorflow.lite.python.convert import ConverterError

    try:
        data: bytes = converter.convert()
    except (ConverterError, ValueError, RuntimeError) as error:
        raise refused_by_converter(str(error)) from error
    return data


def refused_by_converter(said: str) -> Refusal:
    """The converter's reason without the stack of source lines around it."""
    text = " ".join(said.split())
    found = re.search(r"error: (.+?)(?= pass\b| [\w./-]+\.py:\d+| Error code:|$)", text)
    remedy = "see the named op; another precision or target may do"
    if "TensorList" in text:
        remedy = "a recurrent layer loops: build it with unroll=True, or take an onnx target"
    return Refusal(
        f"TFLiteConverter: {(found.group(1) if found else text)[:400]}",
        remedy=remedy,
        code="conversion_failed",
    )


class _quiet:  # noqa: N801  # a context manager used like a function
    """Sends what native code prints on descriptor 1 to descriptor 2."""

    def __enter__(self) -> None:
        self._saved = os.dup(1)
        os.dup2(2, 1)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 1)
        os.close(self._saved)
