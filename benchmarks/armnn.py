"""Arm NN beside LiteRT on the MLPerf Tiny int8 models, on the same files and real inputs.

The reference files are read and written again within the allow-list of Arm NN 20.08. For each: on how many
inputs all outputs are equal, and by how many steps they are apart at most. Needs the model zoo
(EDGEKIT_SHARED) and Debian's pyarmnn.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert_times import zoo
from benchmarks.harness import Run, Skipped
from benchmarks.quantization_inputs import MODELS

_INPUTS = {"resnet": 60, "vww": 40, "kws": 100, "ad01": 98}


def main(run: Run) -> None:
    """Measure the models that are there."""
    from edgekit import armnn

    if not (zoo() / "mobilenet").is_dir():
        raise Skipped("the model zoo is not beside the checkout (EDGEKIT_SHARED)")
    if armnn.version() is None:
        raise Skipped(f"no pyarmnn: apt-get install {armnn.PACKAGES}")
    for name in list(_INPUTS)[-1:] if run.short else list(_INPUTS):
        _, reference, inputs = MODELS[name]
        samples = inputs(zoo())[1][: run.repeats(_INPUTS[name], 10)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(rewritten(zoo() / reference))
            steps = _differences(path, samples)
        run.add(
            f"{name}-exact", f"{name}: inputs with equal outputs", "%", [100 * float((steps == 0).mean())]
        )
        run.add(f"{name}-steps", f"{name}: largest difference", "steps", [float(steps.max())])


def rewritten(path: Path) -> bytes:
    """An int8 file, read and written within the list of 20.08."""
    from edgekit.rules import load_rules
    from edgekit_converters import hub
    from edgekit_converters.frontends.tflite_model import convert, reader
    from edgekit_converters.targets.tflite.build import batch_of_one
    from edgekit_converters.targets.tflite.lower import Options, build
    from edgekit_converters.targets.tflite.lower.restrict import Restriction

    model = hub.canonical(convert.to_onnx(reader.read(path.read_bytes(), str(path)), str(path))).model
    return build(batch_of_one(model), options=Options(grammar=Restriction(load_rules("armnn-20.08")))).data


def _differences(path: Path, samples: Any) -> Any:
    """Per input the largest difference in steps."""
    from ai_edge_litert.interpreter import Interpreter

    from edgekit.armnn import ArmnnChild

    lite = Interpreter(model_path=str(path), num_threads=1)
    lite.allocate_tensors()
    (inner,), (outer,) = lite.get_input_details(), lite.get_output_details()
    scale, zero = inner["quantization"]
    child, steps = ArmnnChild(path, backends=("CpuRef",)), []
    for sample in samples:
        feed = np.clip(np.rint(sample / scale) + zero, -128, 127).astype(np.int8).reshape(inner["shape"])
        lite.set_tensor(inner["index"], feed)
        lite.invoke()
        (answer,) = child.run([feed.tobytes()])
        expected = lite.get_tensor(outer["index"]).astype(int).reshape(-1)
        steps.append(np.abs(np.frombuffer(answer, np.int8).astype(int) - expected).max())
    child.close()
    return np.array(steps)
