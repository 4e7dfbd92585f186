"""A TFLite source for a TFLite target: the user's own file, with names for its ports if it has none.

Nothing is computed anew, so the file is offered for the precision that it holds and for no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from edgekit.package import Requirements, Tensor
from edgekit_converters.errors import Refusal
from edgekit_converters.frontends.tflite_model.reader import File, read
from edgekit_converters.frontends.tflite_model.signature import with_signature
from edgekit_converters.values import Built, Job


def build(job: Job, path: Path) -> Built:
    """Write the source of `job` to `path`.

    Raises:
        Refusal: another precision was asked for.
    """
    data = Path(job.source.path).read_bytes()
    file = read(data, job.source.path)
    native = "int8" if file.quantized else "fp32"
    if job.precision != native:
        raise Refusal(
            f"the file is {native} already",
            remedy=f"ask for --precision {native} to ship it as it is",
            code="unsupported_precision",
        )
    inputs, outputs = _bound(file, job.inputs, file.inputs), _bound(file, job.outputs, file.outputs)
    names = dict(zip((*file.inputs, *file.outputs), (*job.inputs, *job.outputs), strict=True))
    made = with_signature(data, {old: item.name for old, item in names.items()}, job.source.path)
    path.write_bytes(made)
    kinds: dict[str, int] = {}
    for op in file.ops:
        kinds[op.kind] = kinds.get(op.kind, 0) + 1
    return Built(
        main=path.name,
        inputs=inputs,
        outputs=outputs,
        requires=Requirements(runtime="litert"),
        route="tflite as it is" + ("" if file.signed else ", with a signature"),
        facts={"ops": kinds, "unchanged": made is data},
        tools={"ai-edge-litert": version("ai-edge-litert")},
    )


def _bound(file: File, wanted: Sequence[Tensor], ports: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The contract's tensors with the names that the file has for them."""
    return tuple(
        replace(item, artifact_name=file.tensors[index].name)
        for item, index in zip(wanted, ports.values(), strict=True)
    )
