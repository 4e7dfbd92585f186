"""The node tests of the `onnx` wheel on TFLite and Core ML; `node_coverage_peers` has other converters.

Besides the shares, every test's outcome is written to ``benchmarks/results/coverage/<route>.json``; from
these docs/coverage.md is made. The short form takes 20 seeded tests a target.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.coverage.pool import run_all
from benchmarks.coverage.suite import NodeTest, suite
from benchmarks.harness import RESULTS, Run, commit

OURS = {"tflite": "TFLite by edgekit", "coreml": "Core ML by edgekit (float32, reference evaluator)"}


def main(run: Run) -> None:
    """Judge every test on both targets of ours."""
    judge_routes(run, OURS, 20)


def judge_routes(run: Run, routes: Mapping[str, str], short: int) -> None:
    """Judge every test on `routes`, which are titled; `short` tests in the short form."""
    tests = suite()
    if run.short:
        tests = random.Random(1).sample(tests, short)
    for route, title in routes.items():
        found = run_all(route, [test.name for test in tests], workers=2)
        ceiling = {name: item["ceiling"] for name, item in found.items()}
        _figures(run, route, title, tests, found, ceiling)
        if not run.short:
            _publish(route, tests, found, ceiling)


def _figures(
    run: Run,
    route: str,
    title: str,
    tests: list[NodeTest],
    found: dict[str, dict[str, Any]],
    ceiling: dict[str, bool],
) -> None:
    plain = [test for test in tests if test.plain]
    reached = [test for test in plain if ceiling[test.name]]
    right = sum(found[test.name]["outcome"] == "right" for test in reached)
    everything = Counter(item["outcome"] for item in found.values())
    of_ceiling = 100 * right / max(1, len(reached))
    of_all = 100 * everything["right"] / max(1, len(tests))
    run.add(f"nodes-{route}-plain", f"{title}: plain tests right, of {len(reached)}", "%", [of_ceiling])
    run.add(f"nodes-{route}-all", f"{title}: all tests right, of {len(tests)}", "%", [of_all])
    run.add(f"nodes-{route}-wrong", f"{title}: shipped wrong", "tests", [everything["wrong"]])


def _publish(
    route: str, tests: list[NodeTest], found: dict[str, dict[str, Any]], ceiling: dict[str, bool]
) -> None:
    rows = {
        test.name: {
            "ops": test.ops,
            "plain": test.plain,
            "onnxruntime": ceiling[test.name],
            "outcome": found[test.name]["outcome"],
            "code": found[test.name]["code"],
            "own_values": found[test.name].get("own_values", False),
        }
        for test in tests
    }
    folder = RESULTS / "coverage"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    head = f'"route": "{route}", "commit": "{commit()}"'
    (folder / f"{route}.json").write_text(f'{{{head}, "tests": {{\n{lines}\n}}}}\n', encoding="utf-8")
