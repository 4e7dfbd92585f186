"""Branches done one after the other instead of side by side: less memory at once, the same answers."""

from __future__ import annotations

import numpy as np

from edgekit_converters import hub
from edgekit_converters.targets.tflite.lower import Options, build
from edgekit_converters.targets.tflm import arena
from tests.conftest import require_package
from tests.converters.tflite_ops import floats, parsed
from tests.converters.tflm_files import in_tflm

require_package("tflite_micro", "tflm")

SIDE_BY_SIDE = """g (float[1, 1, 64] x) => (float[1, 1, 64] y)
<int64[3] many = {1, 64, 64}, int64[1] axes = {1}> {
    a1 = Expand(x, many)
    b1 = Expand(x, many)
    c1 = Expand(x, many)
    a2 = Exp(a1)
    b2 = Sin(b1)
    c2 = Cos(c1)
    a3 = ReduceSum(a2, axes)
    b3 = ReduceSum(b2, axes)
    c3 = ReduceSum(c2, axes)
    d = Add(a3, b3)
    y = Add(d, c3)
}"""
CHAIN = """g (float[1, 8] x) => (float[1, 8] y)
{
    a = Relu(x)
    b = Exp(a)
    y = Sin(b)
}"""


def test_branches_side_by_side_are_done_one_after_the_other() -> None:
    model = hub.canonical(parsed(SIDE_BY_SIDE)).model
    plain, frugal = (build(model, options=Options(least_memory=wanted)) for wanted in (False, True))
    before, after = frugal.facts["peak_bytes"]
    assert after < 0.6 * before
    assert arena.measure(frugal.data).head < 0.7 * arena.measure(plain.data).head
    sample = floats(1, 1, 64)
    np.testing.assert_array_equal(in_tflm(plain.data, [sample]), in_tflm(frugal.data, [sample]))


def test_a_chain_stays_as_it_is() -> None:
    model = hub.canonical(parsed(CHAIN)).model
    plain, frugal = (build(model, options=Options(least_memory=wanted)) for wanted in (False, True))
    assert plain.data == frugal.data
    assert frugal.facts["peak_bytes"] == (64, 64)
