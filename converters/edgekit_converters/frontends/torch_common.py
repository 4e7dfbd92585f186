"""What the PyTorch frontends share: ports, example inputs, and running in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contract import load_contract
from edgekit.errors import SourceError
from edgekit.package import Tensor

_BATCH = 64


def versions() -> Mapping[str, str]:
    """Of PyTorch and its ONNX exporter."""
    from importlib.metadata import version

    return {"torch": version("torch"), "onnxscript": version("onnxscript")}


def port(name: str, value: Any, where: str) -> Tensor:
    """A Tensor from what stands for one in a graph; the first axis becomes the batch.

    Raises:
        SourceError: no tensor, no batch axis, or a type without a numpy form.
    """
    kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
    try:
        dtype = str(np.dtype(kind))
    except TypeError as error:
        raise SourceError(
            f"{name!r} is {kind or 'no tensor'}", where=where, code="unsupported_type"
        ) from error
    if not value.shape:
        raise SourceError(f"{name!r} is a scalar; a batch axis is needed", where=where)
    rest = tuple(size if isinstance(size, int) else -1 for size in value.shape[1:])
    return Tensor(name=name, dtype=dtype, shape=(-1, *rest))


def examples_of(given: Any, contract: Path, where: str) -> tuple[Any, ...]:
    """Example inputs: those given, else ones of the contract's inputs.

    Raises:
        SourceError: there are none.
    """
    import torch

    if given is not None:
        found = (given,) if isinstance(given, torch.Tensor) else tuple(given)
        if not found or not all(isinstance(item, torch.Tensor) and item.ndim for item in found):
            raise SourceError(
                "example inputs must be tensors with a batch axis", where=where, code="unsupported_type"
            )
        return found
    inputs = load_contract(contract).inputs if contract.is_file() else ()
    if not inputs or any(-1 in item.shape[1:] or not item.shape for item in inputs):
        raise SourceError(
            "the sizes of its inputs are not known",
            where=where,
            remedy=f"write [[inputs]] with name, dtype and shape into {contract.name} beside it, "
            "or let the factory give (module, example_inputs)",
            code="needs_inputs",
        )
    made = (np.zeros((2, *item.shape[1:]), np.dtype(item.dtype)) for item in inputs)
    return tuple(torch.from_numpy(item) for item in made)


def batched(
    call: Callable[[Sequence[Any]], Sequence[Any]], columns: Sequence[Any], step: int | None
) -> list[Any]:
    """`call` over all rows, in steps of the batch that the program was made for (else of 64)."""
    import torch

    size, n, parts = step or _BATCH, len(columns[0]), []
    with torch.no_grad():
        for start in range(0, n, size):
            rows = [column[start : start + size] for column in columns]
            short = size - len(rows[0]) if step else 0
            if short:
                rows = [np.concatenate([row, np.repeat(row[-1:], short, 0)]) for row in rows]
            answer = call([torch.from_numpy(np.ascontiguousarray(row)) for row in rows])
            parts.append([item.numpy()[: size - short] for item in answer])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
