"""``python -m benchmarks.coverage --target tflite``: compile, run and judge the node tests, and count."""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.coverage.peers import PEERS
from benchmarks.coverage.pool import run_all
from benchmarks.coverage.routes import ROUTES
from benchmarks.coverage.suite import NodeTest, suite


def main() -> int:
    """1 when something was shipped wrong."""
    options = _options()
    tests = _chosen(options)
    found = run_all(options.target, [test.name for test in tests], options.workers)
    for test in tests:
        answer = found[test.name]
        if options.verbose or options.only or answer["outcome"] == "wrong":
            print(f"{answer['outcome']:8} {test.name}  {answer['code']} {answer['detail']}")
    _summary(tests, found, options.causes)
    if options.json:
        rows = {
            test.name: {"ops": test.ops, "types": test.types, "plain": test.plain, **found[test.name]}
            for test in tests
        }
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return int(any(item["outcome"] == "wrong" for item in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--target", choices=[*ROUTES, *PEERS], required=True)
    parser.add_argument("--only", help="a regular expression on the test's name")
    parser.add_argument("--plain", action="store_true", help="plain tests only")
    parser.add_argument("--sample", type=int, help="this many, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--causes", type=int, default=25, help="how many causes to list")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", help="write every test's outcome here")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[NodeTest]:
    tests = [test for test in suite() if not options.plain or test.plain]
    if options.only:
        tests = [test for test in tests if re.search(options.only, test.name)]
    if options.sample:
        tests = sorted(random.Random(options.seed).sample(tests, options.sample), key=lambda t: t.name)
    return tests


def _summary(tests: list[NodeTest], found: dict[str, dict[str, Any]], causes: int) -> None:
    for title, part in (("plain", [t for t in tests if t.plain]), ("all", tests)):
        counts = Counter(found[test.name]["outcome"] for test in part)
        ceiling = [test for test in part if found[test.name]["ceiling"]]
        right = sum(found[test.name]["outcome"] == "right" for test in ceiling)
        share = f"{100 * right / len(ceiling):.1f} %" if ceiling else "-"
        print(
            f"{title}: {len(part)} tests, onnxruntime {len(ceiling)} right, edgekit {counts['right']} right "
            f"= {share} of onnxruntime's, {100 * counts['right'] / max(1, len(part)):.1f} % of all; "
            f"{counts['refused']} refused, {counts['failed']} failed, {counts['crashed']} crashed, "
            f"{counts['wrong']} shipped wrong"
        )
    why: Counter[str] = Counter()
    for test in tests:
        answer = found[test.name]
        if test.plain and answer["ceiling"] and answer["outcome"] != "right":
            why[f"{answer['outcome']} {answer['code']} {'/'.join(test.ops)[:50]}"] += 1
    for cause, n in why.most_common(causes):
        print(f"  {n:4} {cause}")


if __name__ == "__main__":
    sys.exit(main())
