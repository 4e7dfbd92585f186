"""PyTorch programs: ``torch.export`` archives (``.pt2``) and modules made by ``file.py:factory``.

A factory takes nothing and gives a module, or a module and a tuple of example inputs; naming the file is
the user's word that its code may run. An archive is read as data: PyTorch's loader would unpickle objects
in it, which is prevented. Imported in torch workers only. Specification: PyTorch's torch.export and
torch.onnx.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import pickle  # noqa: TID251  # for the name of its error
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit_converters.frontends.torch_common import batched, examples_of, port, versions
from edgekit_converters.values import Signature

OPSET = 20
_BROKEN = (
    *(RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, IndexError, OSError),
    *(ImportError, EOFError, SyntaxError, ArithmeticError, struct.error, zipfile.BadZipFile),
    pickle.UnpicklingError,
)


class ExportedModel:
    """An exported program and its ONNX form; inputs are flat, in the program's order."""

    def __init__(self, program: Any, where: str) -> None:
        from torch.utils import _pytree

        self._program, self._where = program, where
        nodes = {node.name: node for node in program.graph.nodes}
        names = list(program.graph_signature.user_inputs)
        ends = [nodes.get(str(name)) for name in program.graph_signature.user_outputs]
        if any(name not in nodes for name in names) or None in ends:
            raise SourceError("an input or output is no tensor", where=where, code="unsupported_type")
        kept = [nodes[name].meta.get("val") for name in names]
        outputs = [node.meta.get("val") for node in ends if node is not None]
        labels = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
        self.signature = Signature(
            inputs=tuple(port(name, item, where) for name, item in zip(names, kept, strict=True)),
            outputs=tuple(port(name, item, where) for name, item in zip(labels, outputs, strict=True)),
            framework=f"torch {versions()['torch']}",
            activation=_activation(ends[0]),
        )
        sizes = [item.shape[0] for item in kept if isinstance(item.shape[0], int)]
        self._step = int(sizes[0]) if sizes else None
        self._module = program.module()
        self._flatten: Callable[[Any], list[Any]] = _pytree.tree_leaves
        self._build: Callable[[Sequence[Any]], Any] = lambda flat: _pytree.tree_unflatten(
            list(flat), program.call_spec.in_spec
        )

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        import torch

        with _quiet():
            made = torch.onnx.export(self._program, dynamo=True, opset_version=OPSET, verbose=False)
        assert made is not None
        proto = made.model_proto
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return versions()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        names = [item.name for item in self.signature.inputs]

        def call(rows: Sequence[Any]) -> list[Any]:
            args, kwargs = self._build(rows)
            return self._flatten(self._module(*args, **kwargs))

        columns = batched(call, [inputs[name] for name in names], self._step)
        return {item.name: column for item, column in zip(self.signature.outputs, columns, strict=True)}


def load(path: Path) -> ExportedModel:
    """Load an archive, or run a factory and export its module.

    Raises:
        SourceError: damaged, not exportable, or without example inputs.
    """
    if path.suffix != ".pt2" and ":" in path.name:
        return ExportedModel(_from_factory(path), str(path))
    import torch
    from torch._export.serde.serialize import SerializeError

    try:
        with _quiet(), _no_pickles():
            program = torch.export.load(str(path))
    except (*_BROKEN, SerializeError) as error:
        raise SourceError(
            f"PyTorch cannot load it: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy="the file is damaged, or of another PyTorch version: export the module again",
            code="corrupt_source",
        ) from error
    return ExportedModel(program, str(path))


def _from_factory(path: Path) -> Any:
    """The exported program of what ``file.py:factory`` makes, with a free batch where that works."""
    import torch

    name, _, function = path.name.rpartition(":")
    where = str(path)
    made = _called(path.with_name(name), function, where)
    module, given = made if isinstance(made, tuple) else (made, getattr(made, "example_input_array", None))
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"{function} gave {type(module).__name__}, a torch.nn.Module was expected", where=where
        )
    examples = examples_of(given, path.with_name("model.toml"), where)
    module.eval()
    free = tuple({0: torch.export.Dim("batch")} for _ in examples)
    several = tuple(torch.cat([item[:1], item[:1]]) for item in examples)
    problem: Exception | None = None
    for inputs, shapes in ((several, free), (examples, None)):
        try:
            with _quiet():
                return torch.export.export(module, inputs, dynamic_shapes=shapes)
        except _BROKEN as error:
            problem = error
    raise SourceError(
        f"torch.export cannot follow it: {' '.join(str(problem).split())[:300]}",
        where=where,
        remedy="see torch.export's notes on control flow that depends on data",
        code="unsupported_source",
    ) from problem


def _called(file: Path, function: str, where: str) -> Any:
    import sys

    spec = importlib.util.spec_from_file_location(f"edgekit_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise SourceError("not a Python file", where=where)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        factory = getattr(module, function, None)
        if not callable(factory):
            raise SourceError(f"{file.name} has no function {function!r}", where=where)
        return factory()
    except _BROKEN as error:
        raise SourceError(
            f"{function} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            where=where,
            remedy="it is called without arguments and gives a module, or a module and example inputs",
            code="factory_failed",
        ) from error
    finally:
        sys.path.remove(str(file.parent))


@contextlib.contextmanager
def _no_pickles() -> Iterator[None]:
    """Whatever PyTorch loads here is loaded as weights only; a pickled object is an error."""
    import torch

    _package: Any = importlib.import_module("torch.export.pt2_archive._package")
    load, module = torch.load, _package.pickle

    def only_weights(*args: Any, **options: Any) -> Any:
        return load(*args, **{**options, "weights_only": True})

    torch.load, _package.pickle = only_weights, _Refused()
    try:
        yield
    finally:
        torch.load, _package.pickle = load, module


class _Refused:
    """Stands for the pickle module."""

    @staticmethod
    def loads(*_: Any, **__: Any) -> Any:
        """Never."""
        raise ValueError("it holds a pickled object, which runs code when it is loaded")


def _activation(node: Any) -> str:
    kind = str(getattr(node, "target", ""))
    return next((word for word in ("softmax", "sigmoid") if word in kind and "log" not in kind), "none")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter speaks on standard output and warns of its own future."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
