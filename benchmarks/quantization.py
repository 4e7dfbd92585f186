"""Our int8 beside MLPerf Tiny's reference int8 files, and int8 beside float on the digits.

For each model, on the same inputs: bytes and LiteRT latency of both files, the signal to noise of both
against the float model, and our integer ops one by one against the emulation of the QDQ graph, in both
kernel sets. For the anomaly detector the rank correlation of its scores too: labelled data is not at
hand. For the digits the accuracy of both forms, labels and all. Needs the model zoo (EDGEKIT_SHARED) and
TensorFlow, which reads the sources in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert_times import zoo
from benchmarks.harness import ROOT, Run, Skipped
from benchmarks.quantization_inputs import MODELS, Samples

_ROUNDS = 400


def main(run: Run) -> None:
    """Measure the models that are there, then the digits."""
    if not (zoo() / "mobilenet").is_dir():
        raise Skipped("the model zoo is not beside the checkout (EDGEKIT_SHARED)")
    with tempfile.TemporaryDirectory() as folder:
        for name in list(MODELS)[-1:] if run.short else list(MODELS):
            _model(run, name, Path(folder))
        if not run.short:
            _digits(run, Path(folder))


def _model(run: Run, name: str, folder: Path) -> None:
    source, reference, inputs = MODELS[name]
    calibration, test = inputs(zoo())
    made = int8(zoo() / source, calibration, folder / name)
    theirs = (zoo() / reference).read_bytes()
    expected = made["expected"](test)
    run.add(f"{name}-bytes", f"{name}: our file", "B", [len(made["file"])])
    run.add(f"{name}-bytes-reference", f"{name}: the reference file", "B", [len(theirs)])
    for label, data in (("", made["file"]), ("-reference", theirs)):
        found = litert(data, "xnnpack")(test)
        run.add(f"{name}-snr{label}", f"{name}{label}: signal to noise", "dB", [snr(expected, found)])
        agree = np.mean(_flat(expected).argmax(1) == _flat(found).argmax(1))
        run.add(f"{name}-agreement{label}", f"{name}{label}: same largest output", "", [float(agree)])
        if name == "ad01":
            rank = _rank_correlation(_scores(test, expected), _scores(test, found))
            run.add(f"{name}-rank{label}", f"{name}{label}: rank correlation of scores", "", [rank])
    ours, others = _latencies(made["file"], theirs, test[:1], run.repeats(_ROUNDS, 50))
    run.add(f"{name}-latency", f"{name}: our file, one thread", "us", ours)
    run.add(f"{name}-latency-reference", f"{name}: the reference file, one thread", "us", others)
    for kernels in ("xnnpack", "builtin"):
        steps, share = per_op(made["qdq"], made["inputs"](test[:32]), kernels)
        run.add(f"{name}-steps-{kernels}", f"{name}: largest error of an op, {kernels}", "steps", [steps])
        run.add(f"{name}-differ-{kernels}", f"{name}: values off by one, {kernels}", "%", [100 * share])
    moved = made["facts"].get("rescue", {}).get("layers", [])
    run.add(f"{name}-rescued", f"{name}: rescued layers", "", [len(moved)])


def int8(source: Path, calibration: Samples, folder: Path) -> dict[str, Any]:
    """The source's hub, QDQ graph and TFLite file."""
    import onnx
    import onnx_ir as ir

    from edgekit.rules import load_rules
    from edgekit_converters import hub
    from edgekit_converters.npz import save_arrays
    from edgekit_converters.onnx_session import OnnxSession
    from edgekit_converters.quantize.calibration import calibrate
    from edgekit_converters.quantize.pipeline import for_target
    from edgekit_converters.targets.tflite.lower import SUPPORTED, Options, lower

    folder.mkdir()
    raw, graph = folder / "raw.onnx", folder / "hub.onnx"
    process = multiprocessing.get_context("spawn").Process(target=_export, args=(source, raw))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise Skipped(f"{source.name} cannot be read here (TensorFlow is needed)")
    model = hub.canonical(onnx.load(raw), where=source.name).model
    ir.save(model, graph)
    (port,) = (str(item.name) for item in model.graph.inputs)
    save_arrays(folder / "samples.npz", {port: calibration})
    calibrate(graph, folder / "samples.npz", folder / "ranges.npz")
    qdq, facts = for_target(
        model,
        folder / "ranges.npz",
        load_rules("tflite-2.3"),
        "int8",
        supported=SUPPORTED,
        samples=folder / "samples.npz",
    )
    session = OnnxSession(graph, threads=1)
    return {
        "file": lower(qdq, options=Options()).data,
        "qdq": qdq,
        "facts": facts,
        "inputs": lambda values: {port: values},
        "expected": lambda values: next(iter(session.run({port: values}).values())),
    }


def _export(source: Path, out: Path) -> None:
    from edgekit_converters import frontends
    from edgekit_converters.source import recognise

    frontends.load(recognise(source)).export(out)


def _interpreter(data: bytes, kernels: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO if kernels == "xnnpack" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)


def litert(data: bytes, kernels: str) -> Callable[[Samples], Any]:
    """Runs a one-input file sample by sample, converting to and from its integers."""
    interpreter = _interpreter(data, kernels)
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(values: Samples) -> Any:
        outputs = []
        for value in values:
            interpreter.set_tensor(entry["index"], _integers(value, entry))
            interpreter.invoke()
            found = interpreter.get_tensor(end["index"])
            scale, zero = end["quantization"]
            outputs.append((found.astype(np.float32) - zero) * scale)
        return np.concatenate(outputs)

    return run


def _integers(value: Any, entry: Any) -> Any:
    scale, zero = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    whole = np.clip(np.rint(value / scale) + zero, limits.min, limits.max)
    return whole.astype(entry["dtype"]).reshape(entry["shape"])


def _latencies(ours: bytes, theirs: bytes, sample: Samples, rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds of one inference, the two files in turn."""
    runners = []
    for data in (ours, theirs):
        interpreter = _interpreter(data, "xnnpack")
        interpreter.allocate_tensors()
        entry = interpreter.get_input_details()[0]
        interpreter.set_tensor(entry["index"], _integers(sample[0], entry))
        runners.append(interpreter)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for interpreter, found in zip(runners, times, strict=True):
            started = time.perf_counter()
            interpreter.invoke()
            found.append(1e6 * (time.perf_counter() - started))
    return times


def per_op(qdq: Any, inputs: Any, kernels: str) -> tuple[int, float]:
    """The largest error of any integer op fed with the emulation's integers; share of values off."""
    from edgekit_converters.quantize.emulate import emulate
    from edgekit_converters.quantize.pieces import pieces
    from edgekit_converters.targets.tflite.lower import Options, lower

    found = list(pieces(qdq))
    names = sorted({name for item in found for name in (*item.inputs, *item.outputs)})
    tensors = emulate(qdq, inputs, names)
    largest, off, total = 0, 0, 0
    for piece in found:
        interpreter = _interpreter(lower(piece.model, options=Options()).data, kernels)
        details = interpreter.get_input_details()
        for detail, name in zip(details, piece.inputs, strict=True):
            interpreter.resize_tensor_input(detail["index"], tensors[name].shape)
        interpreter.allocate_tensors()
        for detail, name in zip(details, piece.inputs, strict=True):
            interpreter.set_tensor(detail["index"], tensors[name])
        interpreter.invoke()
        for detail, name in zip(interpreter.get_output_details(), piece.outputs, strict=True):
            error = np.abs(interpreter.get_tensor(detail["index"]).astype(np.int64) - tensors[name])
            largest, off, total = (
                max(largest, int(error.max())),
                off + int((error > 0).sum()),
                total + error.size,
            )
    return largest, off / total


def _digits(run: Run, folder: Path) -> None:
    out = folder / "digits"
    train: list[str | Path] = [sys.executable, ROOT / "examples" / "digits" / "train.py", "--out", out]
    subprocess.run(train, check=True, capture_output=True)
    with np.load(out / "calibration.npz") as data, np.load(out / "validation.npz") as known:
        calibration = next(data[name] for name in data.files if data[name].ndim > 2)
        images, labels = known["image"], known["labels"]
    made = int8(out / "model.keras", calibration, folder / "digits-int8")
    results = {"fp32": made["expected"](images), "int8": litert(made["file"], "xnnpack")(images)}
    for precision, found in results.items():
        accuracy = 100 * float(np.mean(_flat(found).argmax(1) == labels))
        run.add(f"digits-{precision}", f"digits: {precision} on {len(labels)} images", "%", [accuracy])
    changed = int(np.sum(results["fp32"].argmax(1) != results["int8"].argmax(1)))
    run.add("digits-changed", "digits: images whose class changes", "", [changed])


def _flat(values: Any) -> Any:
    return values.reshape(len(values), -1)


def snr(expected: Any, found: Any) -> float:
    """Signal to noise in dB over all values."""
    a, b = _flat(expected).astype(np.float64), _flat(found).astype(np.float64)
    return float(10 * np.log10(np.square(a).sum() / max(float(np.square(a - b).sum()), 1e-30)))


def _scores(inputs: Samples, outputs: Any) -> Any:
    """The anomaly detector's score: mean squared error of the reconstruction."""
    return np.square(_flat(inputs) - _flat(outputs)).mean(axis=1)


def _rank_correlation(a: Any, b: Any) -> float:
    ranks = [np.argsort(np.argsort(item)).astype(np.float64) for item in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
