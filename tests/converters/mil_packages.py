"""Small ML programs for tests, saved as packages; coremltools is imported without the frameworks it seeks."""

from __future__ import annotations

import importlib.abc
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.converters.graphs import Array

_FRAMEWORKS = ("tensorflow", "torch", "sklearn", "xgboost", "keras", "libsvm", "executorch")


class _Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] in _FRAMEWORKS:
            raise ModuleNotFoundError(f"{fullname} is kept out of coremltools", name=fullname)


def coremltools() -> Any:
    """The module coremltools; importing it takes 3 seconds like this, and 25 with the frameworks."""
    finder = _Hidden()
    sys.meta_path.insert(0, finder)
    try:
        with quiet():
            import coremltools as ct
    finally:
        sys.meta_path.remove(finder)
    return ct


@contextmanager
def quiet() -> Iterator[None]:
    """coremltools warns of much that no test is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def package(
    folder: Path,
    ports: Mapping[str, tuple[int, ...] | tuple[tuple[int, ...], str]],
    build: Callable[..., Any],
    *,
    opset: str = "iOS17",
    precision: str = "FLOAT32",
    passes: str = "DEFAULT",
    **options: Any,
) -> Path:
    """Save what `build` makes of the builder and its ports; a port is a shape, or a shape and a type."""
    ct = coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as its examples have it
    from coremltools.converters.mil.mil import Function, Program, types

    target = getattr(ct.target, opset)
    specs = {}
    for name, item in ports.items():
        shape, kind = (item[0], item[-1]) if isinstance(item[-1], str) else (item, "fp32")
        specs[name] = mb.placeholder(shape=shape, dtype=types.string_to_builtin(kind))
    program = Program()
    with quiet():
        with Function(specs, opset_version=target) as function:
            made = build(mb, **function.inputs)
            function.set_outputs(list(made) if isinstance(made, list | tuple) else [made])
            program.add_function("main", function)
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=getattr(ct.precision, precision),
            pass_pipeline=getattr(ct.PassPipeline, passes),
            skip_model_load=True,
            **options,
        )
        path = folder / f"{len(list(folder.glob('*.mlpackage')))}.mlpackage"
        model.save(str(path))
    return path


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """Seeded normal numbers as float32."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
