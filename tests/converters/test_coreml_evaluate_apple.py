"""The Core ML evaluator passes the op tests of coremltools, which Apple runs against Core ML itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_SUITE = "coremltools.converters.mil.mil.ops.tests"
_MODULES = {
    "iOS14": (
        *(
            "activation",
            "control_flow",
            "elementwise_binary",
            "elementwise_unary",
            "image_resizing",
            "linear",
        ),
        *("pool", "reduction", "scatter_gather", "tensor_operation", "tensor_transformation"),
    ),
    "iOS15": ("image_resizing",),
    "iOS16": ("constexpr_ops", "image_resizing", "scatter_gather", "tensor_operation"),
    "iOS17": ("image_resizing", "reduction", "scatter_gather", "tensor_operation"),
    "iOS18": ("compression", "tensor_transformation", "transformers"),
}
_NOT_ABOUT_VALUES = (
    # Number of casts in a program, and a call of predict itself.
    "not test_builder_to_backend_corner_case and not (TestResample and iOS15)"
    # A grid over a crop that nothing defines but this one expected value.
    " and not (TestCropResize and iOS15)"
    # Expected values with three digits, a free number of axes that coremltools cannot load, 4 GB of memory.
    " and not test_builder_to_backend_ios16 and not test_builder_to_backend_ios17"
    " and not (TestFill and symbolic) and not test_large_array"
    # A matrix product of whole and float numbers, which gives whole ones.
    " and not test_ios17_mixed_precision"
    # Tests that execute no program.
    " and not eval and not invalid and not inference and not symbolic and not default"
)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_evaluator_computes_what_core_ml_computed_on_apples_machines(tmp_path: Path) -> None:
    modules = [f"{_SUITE}.{version}.test_{name}" for version, names in _MODULES.items() for name in names]
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-W", "ignore", "-c", os.devnull),
        *("-p", "tests.converters.apple_op_tests", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
        *("-k", _NOT_ABOUT_VALUES, "--pyargs", *modules),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    found = re.search(r"executed (\d+) programs, (\d+) kinds of ops", done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert found is not None
    assert int(found[1]) >= 100
    assert int(found[2]) >= 90
