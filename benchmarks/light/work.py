"""``python -m benchmarks.light.work compile|check MODEL TARGET ARTIFACT``, each in a process of its own.

`compile` is what is measured: import, read, lower, write. `check` runs the artifact and onnxruntime on the
same seeded picture and says ``right`` or what differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.engine.worker import prepare


def compile_model(model: Path, target: str, artifact: Path) -> None:
    """Lower `model` and write it."""
    import onnx

    from edgekit_converters import hub

    canonical = hub.canonical(onnx.load(model), where=model.name).model
    if target == "tflite":
        from edgekit_converters.targets.tflite.lower import lower

        artifact.write_bytes(lower(canonical).data)
        return
    from edgekit_converters.targets.coreml import lower as coreml

    coreml.save(coreml.lower(canonical, precision="fp32"), artifact)


def check(model: Path, target: str, artifact: Path) -> str:
    """``right``, or the largest difference."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    picture = np.random.default_rng(3).random(port.shape, np.float32)
    wanted = session.run(None, {port.name: picture})[0]
    got = np.asarray(_run(target, artifact, picture))
    if wanted.shape != got.shape:
        return f"shape {got.shape}, not {wanted.shape}"
    if np.allclose(wanted, got, rtol=1e-3, atol=1e-5):
        return "right"
    return f"differs by {float(np.abs(wanted - got).max()):.2g} of {float(np.ptp(wanted)):.2g}"


def _run(target: str, artifact: Path, picture: Any) -> Any:
    if target == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(artifact), num_threads=2)
        interpreter.allocate_tensors()
        port = interpreter.get_input_details()[0]
        # A peer may change the layout; it is not held against it.
        fits = tuple(port["shape"]) == picture.shape
        interpreter.set_tensor(port["index"], picture if fits else picture.transpose(0, 2, 3, 1))
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    from edgekit_converters.targets.coreml.evaluate import Evaluator

    evaluator = Evaluator(artifact, precision="float32")
    (name,) = evaluator.inputs
    return next(iter(evaluator.run({name: picture}).values()))


if __name__ == "__main__":
    what, model, target, artifact = sys.argv[1:5]
    prepare("coremltools" if target == "coreml" else "plain")
    if what == "compile":
        compile_model(Path(model), target, Path(artifact))
    else:
        print(check(Path(model), target, Path(artifact)))
