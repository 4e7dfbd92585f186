"""A pytest plugin: coremltools' own tests of MIL ops, with our evaluator in the place of Core ML.

The coremltools wheel ships them. Apple runs them against Core ML itself, so they say what the runtime
computes where the reference says little. On Linux they only build packages; here each package is saved,
loaded back and executed. Used by `test_coreml_evaluate_apple` in a process of its own:
``python -m pytest -p tests.converters.apple_op_tests --pyargs coremltools.converters.mil.mil.ops.tests.…``
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import types
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_converters.errors import Refusal
from tests.converters.mil_packages import coremltools

os.environ.update(PYMIL_TEST_TARGETS="mlprogram", INCLUDE_MIL_FP32_UNIT_TESTS="1")
_LEFT_OPEN = ("undefined_behaviour",)
_EXECUTED: Counter[str] = Counter()


def pytest_configure() -> None:
    """Import coremltools without frameworks; its test helpers want a PIL that no op test uses."""
    pillow, image = types.ModuleType("PIL"), types.ModuleType("PIL.Image")
    pillow.Image = image  # type: ignore[attr-defined]  # a stand-in
    image.Image = object  # type: ignore[attr-defined]  # a stand-in
    sys.modules.setdefault("PIL", pillow)
    sys.modules.setdefault("PIL.Image", image)
    coremltools()
    from coremltools.converters.mil import testing_utils
    from coremltools.converters.mil.mil.ops.tests import testing_utils as op_testing_utils

    for module in (testing_utils, op_testing_utils):
        vars(module)["compare_backend"] = compare


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a few seeded cases of each test function."""
    groups: dict[Any, list[pytest.Item]] = defaultdict(list)
    for item in items:
        groups[item.nodeid.partition("[")[0]].append(item)
        module = sys.modules[getattr(item, "module").__name__]  # noqa: B009  # not every item has one
        if hasattr(module, "compare_backend"):
            vars(module)["compare_backend"] = compare
    kept: list[pytest.Item] = []
    for group in groups.values():
        random.Random(int(os.environ.get("SEED", "0"))).shuffle(group)
        kept += group[: int(os.environ.get("CASES", "1"))]
    items[:] = kept


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many programs were executed, and of how many kinds of ops."""
    terminalreporter.write_line(
        f"executed {_EXECUTED['programs']} programs, {len(_EXECUTED) - 1} kinds of ops"
    )


def compare(
    mlmodel: Any,
    input_key_values: dict[str, Any],
    expected_outputs: dict[str, Any] | None,
    dtype: str = "fp32",
    atol: float = 1e-4,
    rtol: float = 1e-5,
    **_others: Any,
) -> dict[str, Any] | None:
    """In the place of `coremltools.converters.mil.testing_utils.compare_backend`: the evaluator predicts."""
    if not mlmodel.is_package or expected_outputs is None:
        return None
    from edgekit_converters.targets.coreml.evaluate import Evaluator

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        mlmodel.save(str(path))
        try:
            evaluator = Evaluator(path, "float16" if dtype == "fp16" else "float32", strict=False)
            found = evaluator.run(_fitting(evaluator, input_key_values))
        except Refusal as refusal:
            if refusal.code in _LEFT_OPEN:
                pytest.skip(str(refusal))
            raise
    _EXECUTED.update(["programs", *(op.type for op in _operations(mlmodel))])
    halves = dtype == "fp16" or any(value.dtype == "fp16" for value in evaluator.program.values.values())
    if halves:
        atol, rtol = max(atol, 2e-2), max(rtol, 2e-2)
    for name, wanted in expected_outputs.items():
        if not isinstance(wanted, str | dict):
            np.testing.assert_allclose(found[name], wanted, atol=atol, rtol=rtol)
    return found


def _operations(mlmodel: Any) -> Any:
    return next(
        iter(mlmodel.get_spec().mlProgram.functions["main"].block_specializations.values())
    ).operations


def _fitting(evaluator: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """These tests hand floats to inputs of whole numbers, and scalars to vectors of one."""
    made = {}
    for name, value in evaluator.inputs.items():
        array = np.asarray(arrays[name])
        array = array.astype(np.int32) if value.dtype == "int32" else array
        made[name] = array.reshape((1,)) if array.ndim == 0 and len(value.shape) == 1 else array
    return made
