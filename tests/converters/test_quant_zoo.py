"""MLPerf Tiny: our int8 against the reference int8 files, on the same inputs and op by op."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quantization import int8, litert, per_op, snr
from benchmarks.quantization_inputs import MODELS
from tests.conftest import require_package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_our_int8_is_not_larger_not_noisier_and_exact_op_by_op(name: str, zoo: Path, tmp_path: Path) -> None:
    require_package("tensorflow", "tf")
    source, reference, inputs = MODELS[name]
    calibration, test = inputs(zoo)
    made = int8(zoo / source, calibration, tmp_path / name)
    theirs = (zoo / reference).read_bytes()
    assert len(made["file"]) <= len(theirs)
    expected = made["expected"](test)
    ours, reached = (snr(expected, litert(data, "xnnpack")(test)) for data in (made["file"], theirs))
    assert ours >= reached
    for kernels in ("xnnpack", "builtin"):
        steps, share = per_op(made["qdq"], made["inputs"](test[:16]), kernels)
        assert steps <= 1
        assert share < 0.02
    assert "rescue" not in made["facts"]
