"""The nine classic networks to TFLite and Core ML: right or not, seconds and peak memory, beside onnx2tf.

As the wheel has them (``raw``: weights made by the graph) and with real weights. A whole process is timed
each time: start, import, read, convert, write. In the short form one network goes one way.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.harness import ROOT, Run, Skipped
from benchmarks.light.models import light_models, with_real_weights
from benchmarks.peers import Finished, measured, peer_environment

TARGETS = ("tflite", "coreml")


def ours(what: str, model: Path, target: str, artifact: Path) -> Finished:
    """One process of ours."""
    words = [sys.executable, "-m", "benchmarks.light.work", what, str(model), target, str(artifact)]
    return measured(words, cwd=ROOT)


def peer(model: Path, folder: Path) -> tuple[Finished, str]:
    """onnx2tf on the same file, and whether its float file is right."""
    words = [sys.executable, "-m", "onnx2tf", "-i", str(model), "-o", str(folder), "-n", "-b", "1"]
    done = measured(words, env=peer_environment("onnx2tf"), cwd=folder.parent)
    found = sorted(folder.glob("*float32.tflite"))
    return done, ours("check", model, "tflite", found[0]).said.splitlines()[-1] if found else "no file"


def main(run: Run) -> None:
    """Every network, both forms, both targets."""
    models = light_models()
    if run.short:
        models = {"squeezenet": models["squeezenet"]}
    right: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, source in models.items():
            real = Path(place) / f"{name}.onnx"
            with_real_weights(source, real)
            for form, model in (("raw", source), ("real", real)):
                for target in TARGETS[:1] if run.short else TARGETS:
                    said = _ours(run, name, form, model, target, Path(place))
                    right.setdefault(f"{target}-{form}", []).append(float(said == "right"))
            if not run.short:
                said = _peer(run, name, real, Path(place) / f"{name}-peer")
                right.setdefault("onnx2tf-real", []).append(float(said == "right"))
            real.unlink()
    for key, values in right.items():
        title = f"share of {len(values)} networks that are right, {key.replace('-', ', ')} weights"
        run.add(f"light-right-{key}", title, "of 1", [sum(values) / len(values)])


def _ours(run: Run, name: str, form: str, model: Path, target: str, place: Path) -> str:
    artifact = place / f"{name}-{form}.{'tflite' if target == 'tflite' else 'mlpackage'}"
    done = ours("compile", model, target, artifact)
    if done.code != 0:
        print(f"  {name} {form} {target}: {done.said}")
        return "refused"
    said = (ours("check", model, target, artifact).said.splitlines() or [""])[-1]
    if said != "right":
        print(f"  {name} {form} {target}: {said}")
    if form == "real":
        run.add(f"light-{name}-{target}-s", f"{name} to {target}", "s", [done.seconds])
        run.add(f"light-{name}-{target}-mb", f"{name} to {target}, peak memory", "MiB", [done.peak_mb])
    return said


def _peer(run: Run, name: str, model: Path, folder: Path) -> str:
    try:
        done, said = peer(model, folder)
    except Skipped as reason:
        print(f"  peer skipped: {reason}")
        return "skipped"
    if said != "right":
        print(f"  {name} onnx2tf: {said}")
    run.add(f"light-{name}-onnx2tf-s", f"{name} to tflite by onnx2tf 2.6.9", "s", [done.seconds])
    run.add(f"light-{name}-onnx2tf-mb", f"{name} by onnx2tf 2.6.9, peak memory", "MiB", [done.peak_mb])
    return said
