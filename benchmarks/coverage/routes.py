"""The ways a node test takes: onnxruntime on the untouched model (the ceiling), and edgekit's targets.

A target's way is the product's own: canonical graph, legal for the lowering, lowered, saved, loaded again
and run; its outputs are compared with onnxruntime's on *other* values than those the test judges (its
verdict), and only what passes counts as shipped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.coverage.suite import Arrays, Runner


def original(model: onnx.ModelProto) -> Runner:
    """onnxruntime on the model as it is.

    Raises:
        Whatever onnxruntime raises when it does not take the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def tflite(model: onnx.ModelProto) -> Runner:
    """Compiled to TFLite, run by LiteRT with its default kernels."""
    from ai_edge_litert.interpreter import Interpreter

    from edgekit_converters import hub
    from edgekit_converters.frontends.ml_ops import rewrite_ml
    from edgekit_converters.targets.tflite.lower import build

    lowered = build(hub.canonical(rewrite_ml(model), where="model").model)
    interpreter = Interpreter(model_content=lowered.data, num_threads=1)
    signature = interpreter.get_signature_runner()

    def run(inputs: Arrays) -> Arrays:
        fed = {name: inputs[name] for name in signature.get_input_details()}
        return dict(signature(**fed))

    return run


def coreml(model: onnx.ModelProto) -> Runner:
    """Compiled to Core ML in float32, saved, loaded and run by the reference evaluator."""
    from edgekit_converters import hub
    from edgekit_converters.frontends.ml_ops import rewrite_ml
    from edgekit_converters.targets.coreml.evaluate import Evaluator
    from edgekit_converters.targets.coreml.lower import lower, save

    lowered: Any = lower(hub.canonical(rewrite_ml(model), where="model").model, precision="fp32")
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.mlpackage"
    save(lowered, path)
    evaluator = Evaluator(path, precision="float32")

    def run(inputs: Arrays, _keep: Any = folder) -> Arrays:
        found: Arrays = lowered.from_artifact(evaluator.run(lowered.to_artifact(inputs)))
        return found

    return run


ROUTES: dict[str, Callable[[onnx.ModelProto], Runner]] = {"tflite": tflite, "coreml": coreml}


def redrawn(inputs: Arrays, seed: int) -> Arrays:
    """Other values of the same kind: floats shuffled and stretched a little, whole numbers kept.

    Whole numbers and booleans often say shapes, axes and places, where other values have no meaning; a
    shuffle keeps floats in the range that the op is made for.
    """
    rng = np.random.default_rng(seed)
    found: Arrays = {}
    for name, value in inputs.items():
        if value.dtype.kind != "f" or value.ndim == 0 or value.size == 0:
            found[name] = value
            continue
        mixed = rng.permutation(value.ravel()).reshape(value.shape)
        found[name] = (mixed * rng.uniform(0.97, 1.0, value.shape)).astype(value.dtype)
    return found
