"""The folders of a Triton variant.

::

    model_repository/<name>/config.pbtxt     production, ready for --model-repository
                            labels.txt       classes of the first output, if the contract names them
                            warmup/<input>   one real sample of each input, raw, if there are samples
                            1/model.onnx     or model.tflite, for Arm NN's backend
    twin/<name>/…                            the same with the Python backend, reading the file above

With TensorRT also ``build_engine.sh`` and ``plan_repository/<name>/config.pbtxt``, which become complete
on the server.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.rules import Rules
from edgekit_converters.errors import Refusal
from edgekit_converters.npz import load_arrays
from edgekit_converters.targets.tensorrt import script
from edgekit_converters.targets.tflite.runner import quantize
from edgekit_converters.targets.triton import config
from edgekit_converters.targets.triton.check import parsed, require_sound
from edgekit_converters.targets.triton.model import Payload, as_served
from edgekit_converters.targets.triton.pbtxt import text
from edgekit_converters.values import Job

PRODUCTION, TWIN, PLANS = "model_repository", "twin", "plan_repository"
LABELS = "labels.txt"
_MODEL = Path(__file__).parent / "side" / "model.py"


def write(job: Job, payload: Payload, rules: Rules, folder: Path) -> config.Serving:
    """Write both repositories below `folder`, each checked; gives what they serve.

    Raises:
        Refusal: a type that Triton does not have, an option out of range, an unsound configuration.
    """
    name = model_name(str(job.contract.get("name") or Path(job.source.path).stem))
    place = folder / PRODUCTION / name
    file = place / "1" / payload.file
    file.parent.mkdir(parents=True)
    file.write_bytes(payload.data)
    serving = _serving(job, name, payload, _beside(job, payload, place))
    _store(_production(job, serving), place, file)
    _store(_twin(serving, payload.file, folder), folder / TWIN / name, file)
    if job.options.get("accelerator"):
        _store(config.plans(serving, {}), folder / PLANS / name, file, beside=place)
        script.write(
            folder,
            ref=serving.ref,
            model=f"{PRODUCTION}/{name}/1/{payload.file}",
            inputs=job.inputs,
            rules=rules,
            precision=job.precision,
            batch=serving.batch,
            plans=f"{PLANS}/{name}",
        )
    return serving


def _production(job: Job, serving: config.Serving) -> Mapping[str, Any]:
    threads = whole(job.options, "threads", 0)
    accelerator = str(job.options.get("accelerator", ""))
    if job.options.get("backend") == "armnn_tflite":
        return config.armnn(serving, accelerator="cpu", threads=threads or 1)
    return config.production(
        serving,
        accelerator=accelerator,
        precision=job.precision,
        threads=threads,
        engines=str(job.options.get("engine_cache", config.ENGINES)),
    )


def protobuf_read(folder: Path) -> bool:
    """Whether Triton's protobuf read every configuration below `folder`; False without the sidecar."""
    return parsed(sorted(folder.glob("*/*/config.pbtxt"))) is not None


def model_name(name: str) -> str:
    """A name as a folder and an address can have it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-") or "model"


def whole(options: Mapping[str, Any], key: str, default: int) -> int:
    """An option that is a whole number, 0 or more.

    Raises:
        Refusal: it is something else.
    """
    value = options.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refusal(
            f"the option {key} is {value!r}",
            remedy="give a whole number, 0 or more, in the profile",
            code="bad_option",
        )
    return value


def _serving(job: Job, name: str, payload: Payload, beside: Mapping[str, str]) -> config.Serving:
    version = str(job.contract.get("version") or f"0.0.0+{job.source.digest[:8]}")
    return config.Serving(
        name=name,
        ref=f"{job.contract.get('name') or name}@{version}",
        inputs=tuple(map(as_served, payload.inputs)),
        outputs=tuple(map(as_served, payload.outputs)),
        batch=whole(job.options, "max_batch", config.BATCH) if payload.free_batch else 0,
        delay_us=whole(job.options, "queue_delay_us", config.DELAY_US),
        versions=tuple(job.options.get("versions", ())),
        labels=LABELS if LABELS in beside.values() else "",
        warm={key: value for key, value in beside.items() if value != LABELS},
    )


def _beside(job: Job, payload: Payload, place: Path) -> Mapping[str, str]:
    """Write labels and warm-up samples; gives the warm-up file of each input, and the labels' name."""
    found: dict[str, str] = {}
    labels = next((tuple(item.get("labels") or ()) for item in job.contract.get("outputs", ())), ())
    if labels:
        (place / LABELS).write_text("".join(f"{item}\n" for item in labels), encoding="utf-8")
        found[" labels"] = LABELS
    if job.calibration is None:
        return found
    samples = load_arrays(Path(job.calibration))
    (place / "warmup").mkdir()
    for index, tensor in enumerate(payload.inputs):
        served = as_served(tensor)
        sample = np.ascontiguousarray(quantize(samples[tensor.name][0], tensor), dtype=served.dtype)
        found[served.name] = f"input{index}"
        (place / "warmup" / found[served.name]).write_bytes(sample.tobytes())
    return found


def _twin(serving: config.Serving, file: str, folder: Path) -> Mapping[str, Any]:
    """The twin's folder, and its configuration."""
    place = folder / TWIN / serving.name
    (place / "1").mkdir(parents=True)
    shutil.copyfile(_MODEL, place / "1" / "model.py")
    _share(folder / PRODUCTION / serving.name, place)
    return config.twin(serving, file=f"../../{PRODUCTION}/{serving.name}/1/{file}", threads=1)


def _share(production: Path, place: Path) -> None:
    """Labels and warm-up samples, which each model folder must have itself."""
    if (production / LABELS).is_file():
        shutil.copyfile(production / LABELS, place / LABELS)
    if (production / "warmup").is_dir():
        shutil.copytree(production / "warmup", place / "warmup")


def _store(made: Mapping[str, Any], place: Path, model: Path, beside: Path | None = None) -> None:
    place.mkdir(parents=True, exist_ok=True)
    if beside is not None:
        _share(beside, place)
    require_sound(made, place, model)
    (place / "config.pbtxt").write_text(text(made), encoding="utf-8")
