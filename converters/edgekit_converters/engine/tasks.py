"""What workers can do: each task takes and gives JSON, big things by path. See `engine.worker`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.npz import load_arrays, save_arrays
from edgekit_converters.values import Built, Job, Source

Json = Mapping[str, Any]
_SPREAD = 64
"""Samples on which kernel sets, and thread counts of the default one, are compared."""
_FEW = 8
"""Samples on which thread counts of the other kernel sets are."""

_sources: dict[str, Any] = {}


def _load_source(source: Json) -> Any:
    """The source model, kept in memory for the next task."""
    from edgekit_converters import frontends

    found = Source(**source)
    if found.digest not in _sources:
        _sources.clear()
        _sources[found.digest] = frontends.load(found)
    return _sources[found.digest]


def describe(source: Json) -> Json:
    """Load a source; gives its signature."""
    signature: Json = _load_source(source).signature.to_dict()
    return signature


def export(source: Json, out: str) -> Json:
    """Write a source as ONNX to `out`; gives the versions of the tools."""
    from edgekit_converters import frontends

    model = _load_source(source)
    with frontends.helping(str(source["path"])):
        return dict(model.export(Path(out)))


def reference(source: Json, names: Mapping[str, str], data: str, out: str) -> Json:
    """Run the source itself on `data` (npz by contract name); outputs go to `out` by contract name.

    `names` maps the source's port names to the contract's.
    """
    model = _load_source(source)
    back = {new: old for old, new in names.items()}
    inputs = {back[name]: array for name, array in load_arrays(Path(data)).items()}
    outputs = model.run(inputs)
    save_arrays(Path(out), {names[name]: value for name, value in outputs.items()})
    return {}


def canonicalise(raw: str, out: str, renames: Mapping[str, str], shapes: Mapping[str, list[int]]) -> Json:
    """`hub.canonicalise`."""
    from edgekit_converters import hub

    return hub.canonicalise(Path(raw), Path(out), renames, shapes)


def run_hub(hub: str, data: str, out: str) -> Json:
    """Run the hub in onnxruntime; says which output mixes the samples of a batch."""
    from edgekit_converters.hub import mixes_batch, run_error
    from edgekit_converters.onnx_session import REFUSALS, OnnxSession

    inputs = load_arrays(Path(data))
    session = OnnxSession(Path(hub), threads=2)
    try:
        outputs = session.run(inputs)
    except REFUSALS as error:
        raise run_error(Path(hub), inputs, error) from error
    save_arrays(Path(out), outputs)
    return {"mixes_batch": mixes_batch(session, inputs)}


def calibrate(hub: str, samples: str, out: str) -> Json:
    """`quantize.calibration.calibrate`."""
    from edgekit_converters.quantize import calibration

    return calibration.calibrate(Path(hub), Path(samples), Path(out))


def warm(targets: Sequence[str]) -> Json:
    """Import what building for `targets` needs."""
    from edgekit_converters.targets import load_target

    for name in targets:
        for module in getattr(load_target(name), "imports", ()):
            import_module(module)
    return {}


def build(job: Json, folder: str) -> Json:
    """Build one artifact."""
    from edgekit_converters.targets import load_target

    found = Job.from_dict(job)
    return load_target(found.target).build(found, Path(folder)).to_dict()


def execute(target: str, folder: str, artifact: Json, data: str, out: str, runtime: str = "") -> Json | None:
    """Run a saved artifact on every kernel set and with one and two threads; None when nothing can.

    `out` gets the default run's outputs by name, and ``spread:<name>``, per sample the largest
    difference between the runs. Gives runtime, version, backend and the kernel sets that ran, or what the
    default run's session says of itself in `ran`. A target with `threads` is run with those counts.
    """
    from edgekit_converters.targets import load_target

    found, built = load_target(target, runtime), Built.from_dict(artifact)
    inputs = load_arrays(Path(data))
    if not found.kernel_sets:
        return None
    results: dict[str, Any] = {}
    backend = ""
    told: Json = {}
    executed = found.method == "executed"
    counts: tuple[int, ...] = getattr(found, "threads", (1, 2) if executed else (1,))
    for kernels in found.kernel_sets:
        for threads in counts:
            session = found.open(Path(folder), built, kernels=kernels, threads=threads)
            if session is None:
                return None
            if not results:
                results, backend = session.run(inputs), session.backend
                told = getattr(session, "ran", {})
                spreads = {name: np.zeros(len(value)) for name, value in results.items()}
                continue
            # LiteRT's own kernels wait for each other in a loop: two threads of them take seconds.
            n = _SPREAD if threads == 1 or kernels == found.kernel_sets[0] else _FEW
            for name, value in session.run({name: array[:n] for name, array in inputs.items()}).items():
                gap = np.abs(value.astype(np.float64) - results[name][:n].astype(np.float64))
                part = spreads[name][:n]
                np.maximum(part, gap.reshape(len(value), -1).max(axis=1), out=part)
    save_arrays(Path(out), {**results, **{f"spread:{name}": value for name, value in spreads.items()}})
    return {
        "method": found.method,
        "runtime": found.runtime if executed else "edgekit",
        "version": found.version() if executed else version("edgekit-converters"),
        "backend": backend,
        "kernel_sets": list(found.kernel_sets),
        **told,
    }


def compress(**arguments: Any) -> Json:
    """`engine.compress.searched`."""
    from edgekit_converters.engine.compress import searched

    return searched(**arguments)


TASKS: dict[str, Callable[..., Any]] = {
    "describe": describe,
    "export": export,
    "reference": reference,
    "canonicalise": canonicalise,
    "run_hub": run_hub,
    "calibrate": calibrate,
    "build": build,
    "execute": execute,
    "compress": compress,
    "warm": warm,
}
