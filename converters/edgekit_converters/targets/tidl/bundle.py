"""The files of a bundle, beside the emulation: model, calibration frames, options, import file, reports.

``model/`` what TI's tools read · ``calibration/`` frames as npz and raw float32 · ``compile/`` options,
script, import file, quantization parameters · ``report/`` the partition for people and for programs ·
``param.yaml`` what TI's device applications read. Formats are restated from TI's documents.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_converters.npz import save_arrays
from edgekit_converters.source import caffe_pair
from edgekit_converters.targets.tidl import graphs, imports, prototxt, reporting
from edgekit_converters.targets.tidl.made import Made
from edgekit_converters.targets.tidl.soc import FRAMES, MOST_NODES, MOST_SUBGRAPHS, Soc
from edgekit_converters.values import Job

_BYTES = 32 * 2**20
_MOST_FRAMES = 50
_TEMPLATE = Path(__file__).with_name("templates") / "compile.py.txt"


def write(folder: Path, job: Job, made: Made) -> None:
    """Write everything but the emulation into `folder`."""
    for name in ("model", "calibration", "compile", "report"):
        (folder / name).mkdir()
    (folder / "model" / "model.onnx").write_bytes(made.onnx)
    frames = _frames(made.samples)
    _calibration(folder / "calibration", frames)
    _text(folder / "report" / "partition.json", _json(reporting.document(made)))
    _text(folder / "report" / "partition.md", reporting.page(made))
    _text(folder / "param.yaml", imports.param_yaml(job, made))
    _text(folder / "compile" / "quant_params.prototxt", prototxt.quant_params(made))
    if made.soc.legacy:
        _legacy(folder, job, made, frames)
        return
    _text(folder / "compile" / "options.json", _json(options(made, frame_count(made.samples))))
    _text(folder / "compile" / "import.txt", imports.today(job, made, frame_count(made.samples)))
    shutil.copyfile(_TEMPLATE, folder / "compile" / "compile.py")


def options(made: Made, frames: int) -> dict[str, Any]:
    """Compile options of TI's runtime; paths are filled in by the compile script."""
    advanced = "advanced_options:"
    found: dict[str, Any] = {
        "tensor_bits": 8,
        "accuracy_level": 1,
        "max_num_subgraphs": MOST_SUBGRAPHS,
        f"{advanced}max_num_subgraph_nodes": MOST_NODES,
        f"{advanced}calibration_frames": frames,
        f"{advanced}calibration_iterations": made.soc.iterations,
        f"{advanced}quantization_scale_type": made.soc.scale_type,
    }
    if made.cut.refused:
        found["deny_list:layer_name"] = ", ".join(_denied(made))
    if prototxt.usable(made):
        found[f"{advanced}quant_params_proto_path"] = "quant_params.prototxt"
    if made.wide:
        found[f"{advanced}output_feature_16bit_names_list"] = ", ".join(made.wide)
    return found


def _denied(made: Made) -> list[str]:
    """Refused nodes by name; a refused GELU is several nodes of the file."""
    found: list[str] = []
    for name in made.cut.refused:
        parts = [item for item in made.names if item.startswith(f"{name}.")]
        found += [*(parts if made.cut.ops[name] == "Gelu" else []), name]
    return found


def doubts(samples: Mapping[str, Any], soc: Soc) -> list[str]:
    """What a user should know of the calibration."""
    count = frame_count(samples)
    few = [f"{count} calibration frames: TI's tools expect {FRAMES} or more"] if count < FRAMES else []
    return few if not soc.legacy else []


def frame_count(samples: Mapping[str, Any]) -> int:
    """Frames in the bundle: up to fifty, fewer where they are large, but twenty where there are so many."""
    total = len(next(iter(samples.values())))
    size = sum(item[0].nbytes for item in samples.values())
    return int(min(total, max(FRAMES, min(_MOST_FRAMES, _BYTES // max(1, size)))))


def _frames(samples: Mapping[str, Any]) -> dict[str, Any]:
    """Frames spread evenly over the calibration samples."""
    total, count = len(next(iter(samples.values()))), frame_count(samples)
    chosen = np.linspace(0, total - 1, count).round().astype(np.int64)
    return {name: item[chosen] for name, item in samples.items()}


def _calibration(folder: Path, frames: Mapping[str, Any]) -> None:
    """The frames once for the runtimes and once as the import tool reads them, one file a frame."""
    save_arrays(folder / "frames.npz", frames)
    lines = []
    for index in range(len(next(iter(frames.values())))):
        path = folder / f"frame_{index:03d}.bin"
        path.write_bytes(b"".join(np.ascontiguousarray(item[index]).tobytes() for item in frames.values()))
        lines.append(f"calibration/{path.name}")
    _text(folder / "frames.txt", "\n".join(lines))


def _legacy(folder: Path, job: Job, made: Made, frames: Mapping[str, Any]) -> None:
    """The import file of Processor SDK 5 and 6, its one sample, and the Caffe files of a Caffe source."""
    if job.source.kind == "caffe":
        net, weights = caffe_pair(Path(job.source.path))
        shutil.copyfile(net, folder / "model" / "deploy.prototxt")
        shutil.copyfile(weights, folder / "model" / "net.caffemodel")
    else:
        network = graphs.delivered(graphs.planar(made.work))
        (folder / "model" / "import.onnx").write_bytes(network.SerializeToString(deterministic=True))
    sample, scale = imports.raw_sample(made, frames)
    (folder / "calibration" / "sample.bin").write_bytes(sample)
    _text(folder / "compile" / "import.txt", imports.legacy(job, made, scale))


def _text(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
