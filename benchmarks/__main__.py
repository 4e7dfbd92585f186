"""``python -m benchmarks [NAME…] [--short]``: run benchmarks, write their results."""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import sys
import time

from benchmarks.harness import ROOT, Run, Skipped

NAMES = (
    "cli_start",
    "convert_times",
    "convert_cnn",
    "convert_eight",
    "light_models",
    "node_coverage",
    "node_coverage_peers",
    "quantization",
    "armnn",
    "agent_memory",
    "serving_overhead",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks named, or all; 0 when none of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure and write the results."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all when none")
    parser.add_argument("--short", action="store_true", help="a look in about 30 seconds; writes nothing")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)} (there are {', '.join(NAMES)})")
    _with_bytecode()
    for name in options.names or NAMES:
        print(f"{name}", flush=True)
        started = time.perf_counter()
        run = Run(benchmark=name, short=options.short)
        try:
            importlib.import_module(f"benchmarks.{name}").main(run)
        except Skipped as reason:
            print(f"  skipped{' the rest' if run.figures else ''}: {reason}")
        where = "" if options.short or not run.figures else f", written to {run.write().relative_to(ROOT)}"
        print(f"  took {time.perf_counter() - started:.0f} s{where}")
    return 0


def _with_bytecode() -> None:
    """Our own modules as an installation has them: compiled, whatever this shell says of writing bytecode."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    for part in ("edgekit", "converters", "agent", "fleet"):
        compileall.compile_dir(ROOT / part, quiet=2)


if __name__ == "__main__":
    sys.exit(main())
