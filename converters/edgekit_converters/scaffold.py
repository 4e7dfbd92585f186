"""`edgekit init`: a contract (model.toml) from what the source says about itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from edgekit.contract import Contract, InputSpec, OutputSpec
from edgekit.errors import UsageError
from edgekit.files import atomic_write
from edgekit_converters.engine.pool import Limits, Pool
from edgekit_converters.resolve import resolve
from edgekit_converters.source import recognise
from edgekit_converters.values import Signature

_HEAD = """\
# The contract of {name}: what it is, takes, gives and promises. Everything is optional; what stands
# here was read from the model, lines with # are yours to fill in.

[model]
name = {name}
version = "1.0.0"
# owner = "you@example.org"
# origin = "bespoke"        # pretrained, generated or bespoke
# licence = "Apache-2.0"
# tags = []
"""

_TAIL = """
[data]
# calibration = "calibration.npz"   # 100 or more real samples, for int8
# validation = "validation.npz"     # with an array labels: the verdict compares accuracy

[serving]
# confidence_threshold = 0.5
# fallback = "unknown"
# latency_budget_ms = 20.0

[drift]
bins = 10
"""


def scaffold(source: Path, out: Path, *, force: bool, trust: bool = False) -> Path:
    """Write a contract for `source` to `out`.

    Raises:
        UsageError: `out` exists and `force` is not given.
        SourceError: the model cannot be read.
    """
    if out.exists() and not force:
        raise UsageError(
            "there is a contract already",
            where=str(out),
            remedy="give --force to overwrite it, or another --out",
        )
    found = recognise(source, trust=trust)
    with Pool(Limits()) as pool:
        signature = Signature.from_dict(pool.run(found.worker, "describe", {"source": asdict(found)}))
    # A free axis stands as one while the rest is resolved, and is written as it is: free.
    pinned = Contract(
        inputs=tuple(
            InputSpec(name=item.name, dtype=item.dtype, shape=(-1, *(abs(size) for size in item.shape[1:])))
            for item in signature.inputs
        )
    )
    contract = resolve(pinned, signature, found, where=str(source)).contract
    text = _HEAD.format(name=json.dumps(contract.name))
    ports = zip(contract.inputs, signature.inputs, strict=True)
    text += "".join(_input(replace(item, shape=port.shape)) for item, port in ports)
    text += "".join(_output(item) for item in contract.outputs)
    if any(item.has_argmax for item in contract.outputs):
        text += '\n[[metrics]]\nname = "top1"\ntolerance = 0.01\n'
    atomic_write(out, (text + _TAIL).encode())
    return out


def _input(item: InputSpec) -> str:
    image = len(item.shape) == 4 and item.dtype in ("float32", "uint8")
    lines = ["", "[[inputs]]", *_port(item.name, item.dtype, item.shape)]
    if -1 in item.shape[1:]:
        lines.append("# the model leaves sizes after the batch open: write the ones that your devices use")
    if image:
        last = item.shape[-1] in (1, 3, 4)
        lines += [f'layout = "{"NHWC" if last else "NCHW"}"', 'meaning = "image"']
    lines += ["# range = [0.0, 1.0]      # of valid values, as the model takes them"]
    return "\n".join(lines) + "\n"


def _output(item: OutputSpec) -> str:
    lines = ["", "[[outputs]]", *_port(item.name, item.dtype, item.shape)]
    if item.task:
        names = (
            f"labels = {json.dumps(list(item.labels))}"
            if item.labels
            else "# labels = []             # one name for each class"
        )
        lines += [f'task = "{item.task}"', names]
    else:
        lines += ['# task = "classification"   # or detection, segmentation, regression, embedding, anomaly']
    lines += [f'activation = "{item.activation}"']
    return "\n".join(lines) + "\n"


def _port(name: str, dtype: str, shape: Iterable[int]) -> list[str]:
    return [f"name = {json.dumps(name)}", f'dtype = "{dtype}"', f"shape = {list(shape)}"]
