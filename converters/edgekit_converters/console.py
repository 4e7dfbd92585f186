"""What the commands print: progress on standard error, the table or JSON on standard output."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgekit.package import Refusal, Variant, Verification
from edgekit_converters.console_search import print_search
from edgekit_converters.engine.cache import default_root
from edgekit_converters.engine.pool import Limits
from edgekit_converters.engine.request import Request, Result, Silent
from edgekit_converters.report.rows import memory, model_bytes
from edgekit_converters.report.words import in_short
from edgekit_converters.report.write import decisive

_COLOURS = {"pass": "green", "unverified": "yellow", "breach": "red"}


class Bars:
    """One line a stage or variant, on standard error."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.fields[label]}"),
            BarColumn(bar_width=18),
            TextColumn("[dim]{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, name: str, state: str) -> None:
        """See `Progress.step`."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task("", total=None, label=name, state=state)
            done = state == "done"
            extra = {"total": 1, "completed": 1} if done else {"total": None}
            self._progress.update(self._tasks[name], state="" if done else state, **extra)


def run_convert(*, as_json: bool, **options: Any) -> int:
    """`edgekit convert`; gives the exit code."""
    from edgekit_converters.engine.convert import convert

    request = _request(options)
    errors = Console(stderr=True)
    with _cleaning_up():
        if as_json or not errors.is_terminal:
            result = convert(request, Silent())
        else:
            with Bars(errors) as bars:
                result = convert(request, bars)
    if as_json:
        click.echo(json.dumps(_json(result), indent=2, sort_keys=True))
    else:
        _print(result, request.out)
    return 3 if result.manifest.refused else 0


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: no folder and no process is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_init(source: Path, out: Path | None, force: bool, trust: bool) -> None:
    """`edgekit init`."""
    from edgekit_converters.scaffold import scaffold

    path = scaffold(source, out or source.parent / "model.toml", force=force, trust=trust)
    click.echo(f"wrote {path}; everything in it is optional, correct what is wrong")


def _request(options: Mapping[str, Any]) -> Request:
    return Request(
        source=options["source"],
        profiles=options["profiles"],
        out=options["out"],
        cache=options["cache"] or default_root(),
        targets=options["targets"],
        precisions=options["precisions"],
        deployment_target=options["deployment_target"],
        contract=options["contract"],
        calibration=options["calibration"],
        validation=options["validation"],
        prune=options["prune"],
        cluster=options["cluster"],
        finetune=options["finetune"],
        budget=options["budget"],
        measurements=options["measurements"],
        allow_breach=options["allow_breach"],
        trust=options["trust"],
        seed=options["seed"],
        limits=Limits(seconds=options["time_limit"], memory_mb=options["memory_limit"]),
        command="edgekit " + shlex.join(sys.argv[1:]),
    )


def _json(result: Result) -> dict[str, Any]:
    manifest = result.manifest.to_dict()
    return {
        "package": result.manifest.digest,
        "ref": result.manifest.ref,
        "out": str(result.place),
        "variants": manifest["variants"],
        "refused": manifest.get("refused", []),
        "warnings": result.report["warnings"],
        "measurements": result.measurements,
        **({"search": result.report["search"]} if result.report["search"] else {}),
    }


def _print(result: Result, out: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    manifest = result.manifest
    console.print(f"[bold]{manifest.ref}[/]  {manifest.digest[:19]}…  {result.measurements['seconds']} s")
    table = Table(box=None, pad_edge=False)
    for name in ("variant", "verdict", "how", "accuracy", "error", "size", "latency", "peak"):
        table.add_column(name, justify="right" if name in ("size", "latency", "peak") else "left")
    for variant in manifest.variants:
        table.add_row(*_row(variant, result.measurements["variants"].get(variant.id, {})))
    console.print(table)
    if manifest.variants:
        console.print(f"[dim]{in_short(manifest.variants)}[/]", soft_wrap=True)
    if result.report["search"]:
        print_search(console, result.report["search"])
    for note in result.report["notes"]:
        console.print(f"[yellow]{note}[/]")
    _print_refused(console, manifest.refused)
    if result.place != out:
        console.print(f"nothing passed: the package in {out} stays as it was", soft_wrap=True)
    report = result.place / "report" / "index.html"
    console.print(f"package {result.place}, report {report}", soft_wrap=True)


def _print_refused(console: Console, refused: Sequence[Refusal]) -> None:
    """Each reason once, with all the variants that it is for."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for item in refused:
        groups.setdefault((item.reason_code, item.detail, item.remedy), []).append(item.id)
    for (code, detail, remedy), names in groups.items():
        console.print(f"[red]refused[/] {', '.join(names)}: {code}: {detail}", soft_wrap=True)
        console.print(f"        {remedy}", soft_wrap=True)


def _row(variant: Variant, figures: Mapping[str, Any]) -> list[str]:
    check = variant.verification
    judged = decisive(variant)
    errors = check.metrics.get("outputs", {}).values()
    worst = max((item["max_relative"] or 0.0 for item in errors), default=None)
    latency = figures.get("latency_us")
    return [
        variant.id,
        f"[{_COLOURS[check.verdict]}]{check.verdict}[/]"
        + (f" ({', '.join(check.reasons)})" if check.reasons else ""),
        _how(check),
        _quality(*judged) if judged else "–",
        f"{worst:.2g}" if worst is not None else "–",
        f"{model_bytes(figures, variant) / 1000:.1f} kB",
        f"{latency['median']:.0f} µs" if latency else "–",
        memory(figures),
    ]


def _how(check: Verification) -> str:
    """What ran it. What still awaits a compiler says so."""
    if check.runtime is None:
        return check.method
    if (check.backend or "").endswith(", not compiled"):
        return f"{check.method}, not compiled"
    return f"{check.method}, {check.runtime} {check.runtime_version}"


def _quality(name: str, item: Mapping[str, Any]) -> str:
    return f"{name} {item['variant']:.4f} (source {item['source']:.4f}, n={item['n']})"
