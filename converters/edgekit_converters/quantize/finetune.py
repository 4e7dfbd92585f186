"""A user's function that trains on what pruning left: ``--finetune file.py:function``.

    def function(model, masks, samples):
        ...
        return {"name of a weight": new_values, ...}

`model` is the path of an ONNX file (float32, canonical, opset 21), `masks` has by name of each pruned weight
(an initializer of that file) a boolean array, True where a weight stays; `samples` has the calibration inputs
by name (first axis the samples) and, where the calibration data have them, ``labels``. It gives new values
for any of the file's float32 initializers; zeros that were pruned stay zeros whatever it gives. The graph
cannot change. The function runs in a worker process of its own, with every package of the installation at
hand, under ``--time-limit`` and ``--memory-limit``; naming it is the user's word that its code may run.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.errors import UsageError
from edgekit_converters.errors import Refusal
from edgekit_converters.quantize.graphs import clone
from edgekit_converters.quantize.running import serialize

Function = Callable[[str, dict[str, Any], dict[str, Any]], Mapping[str, Any]]


def split(text: str) -> tuple[Path, str]:
    """File and function of ``file.py:function``.

    Raises:
        UsageError: it is not written so, or there is no such file.
    """
    name, colon, function = text.rpartition(":")
    file = Path(name)
    if not colon or file.suffix != ".py" or not function.isidentifier():
        raise UsageError(
            f"{text!r} names no function", where="--finetune", remedy="write --finetune file.py:function"
        )
    if not file.is_file():
        raise UsageError("no such file", where=str(file), remedy="check the path given to --finetune")
    return file, function


def load(text: str) -> Function:
    """The function, its file having run.

    Raises:
        UsageError: not there.
    """
    file, name = split(text)
    spec = importlib.util.spec_from_file_location(f"edgekit_finetune_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise UsageError(
            f"{file.name} has no function {name!r}", where="--finetune", remedy="name one that is there"
        )
    function: Function = found
    return function


def tuned(
    model: ir.Model, masks: Mapping[str, Any], samples: Mapping[str, Any], function: Function
) -> ir.Model:
    """A copy of `model` with the weights that `function` gives; where `masks` are False they are zero.

    Raises:
        Refusal: it gave something else than finite arrays for weights of the model, of their shapes.
    """
    copy = clone(model)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        path.write_bytes(serialize(copy))
        given = function(str(path), {name: mask.copy() for name, mask in masks.items()}, dict(samples))
    if not isinstance(given, Mapping):
        raise _wrong(f"it gave {type(given).__name__}, a dict of arrays by the weight's name was expected")
    for name, values in given.items():
        array = _checked(copy.graph, str(name), values)
        if name in masks:
            array = np.where(masks[name], array, np.float32(0))
        copy.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    return copy


def _checked(graph: ir.Graph, name: str, values: Any) -> Any:
    known = graph.initializers.get(name)
    if known is None or known.const_value is None:
        raise _wrong(f"{name!r} is no weight of the model")
    old = known.const_value.numpy()
    if old.dtype != np.float32:
        raise _wrong(f"{name!r} is {old.dtype} and no trained weight")
    array = np.asarray(values)
    if array.shape != old.shape or array.dtype.kind != "f":
        raise _wrong(f"{name!r} came back as {array.dtype} {array.shape}, float32 {old.shape} was expected")
    if not np.isfinite(array).all():
        raise _wrong(f"{name!r} came back with NaN or infinity")
    return array.astype(np.float32)


def _wrong(what: str) -> Refusal:
    return Refusal(
        f"the finetuning function failed: {what}",
        remedy="it takes (model, masks, samples) and gives new float32 values by the weight's name",
        code="finetune_failed",
    )


__all__ = ["Function", "load", "split", "tuned"]
