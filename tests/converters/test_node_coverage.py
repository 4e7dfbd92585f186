"""Two hundred node tests of the `onnx` wheel a target, drawn by a seed: right or refused, none shipped wrong.

The whole suite is `make bench ARGS=node_coverage`; the floors here lie a little below its shares, so that
the draw does not decide.
"""

from __future__ import annotations

import random

import pytest

from benchmarks.coverage.pool import run_all
from benchmarks.coverage.suite import matches, suite

SAMPLE, SEED = 200, 20261121


@pytest.mark.parametrize(("target", "plain", "everything"), [("tflite", 0.80, 0.48), ("coreml", 0.75, 0.45)])
def test_node_tests_arrive_right_or_are_refused(target: str, plain: float, everything: float) -> None:
    tests = random.Random(SEED).sample(suite(), SAMPLE)
    found = run_all(target, [test.name for test in tests], workers=1)
    bad = {name: row for name, row in found.items() if row["outcome"] in ("wrong", "crashed")}
    assert bad == {}
    reached = [test.name for test in tests if test.plain and found[test.name]["ceiling"]]
    right = sum(found[name]["outcome"] == "right" for name in reached)
    assert right / len(reached) >= plain
    assert sum(row["outcome"] == "right" for row in found.values()) / SAMPLE >= everything


def test_the_judge_knows_a_wrong_answer_from_a_right_one() -> None:
    test = next(item for item in suite() if item.name == "add")
    _, expected = test.data()
    wanted = expected["sum"]
    assert matches(wanted, wanted + 1e-6)
    assert not matches(wanted, wanted + 1e-2)
    assert not matches(wanted, wanted.reshape(-1))


def test_the_suite_is_whole_and_plain_is_a_rule() -> None:
    tests = suite()
    assert len(tests) == 1765
    assert sum(test.plain for test in tests) == 956
