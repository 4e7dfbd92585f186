"""`edgekit bench`: measure a package's variants on enrolled devices, through the fleet or by a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgekit_fleet.cli.options import (
    actor,
    home_option,
    json_option,
    local_fleet,
    moment,
    print_json,
    print_table,
    seconds_of,
    url_option,
)

Json = dict[str, Any]
_RUN = "run"


class _Bench(click.Group):
    """A group whose first word may be a package: ``bench PACKAGE`` is ``bench run PACKAGE``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What the first word is not a command of is for ``run``."""
        return super().resolve_command(ctx, args if args[0] in self.commands else [_RUN, *args])


@click.group(cls=_Bench, short_help="Measure a package's variants on enrolled devices.")
def bench() -> None:
    """Measure a package's variants on enrolled devices: edgekit bench PACKAGE --device NAME.

    PACKAGE is NAME@VERSION or a package folder whose release is signed in this fleet. Each variant that
    fits the device is loaded there beside what it serves, in a process of lowest priority, and run alone.
    Exit codes: 0 measured, 1 failed, 2 usage, 3 refused by a device, 4 not in time.
    """


@bench.command(_RUN)
@click.argument("package", metavar="PACKAGE")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Which device; may be repeated.")
@click.option("--where", default="", metavar="QUERY", help="Devices like a ring's query: hardware=rpi4 …")
@click.option("--variant", "variants", multiple=True, metavar="ID", help="Only these; default: all that fit.")
@click.option("--runs", default=2000, show_default=True, help="Most inferences a variant.")
@click.option("--seconds", default=10.0, show_default=True, help="Longest time of them.")
@click.option("--threads", default=1, show_default=True, help="Threads the runtime gets.")
@click.option("--wait", default="10m", show_default=True, help="How long to wait for a device that is away.")
@click.option("--no-wait", is_flag=True, help="Order only; look later with `edgekit bench list`.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures for edgekit convert.")
@click.option(
    "--offline-request",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the order into a file for a device without a network; good for --wait (default then 7d).",
)
@home_option
@url_option
@json_option
@click.pass_context
def run(
    context: click.Context,
    package: str,
    devices: tuple[str, ...],
    where: str,
    variants: tuple[str, ...],
    runs: int,
    seconds: float,
    threads: int,
    wait: str,
    no_wait: bool,
    out: Path | None,
    offline_request: Path | None,
    home: Path,
    url: str | None,
    as_json: bool,
) -> None:
    """Measure PACKAGE on devices and show the figures."""
    if out is not None and (no_wait or offline_request):
        raise click.UsageError("--out needs the figures: leave --no-wait and --offline-request away")
    given = context.get_parameter_source("wait") is not click.core.ParameterSource.DEFAULT
    length = seconds_of(wait if given or not offline_request else "7d", where="--wait")
    body: Json = {
        **_package(package),
        "devices": list(devices),
        "where": where,
        "variants": list(variants),
        "runs": runs,
        "seconds": seconds,
        "threads": threads,
        "wait": length,
    }
    if offline_request is not None:
        from edgekit_fleet.bench_orders import write_request

        with local_fleet(home) as fleet:
            document = write_request(fleet, body, offline_request, actor=actor())
        _written(document, offline_request, as_json)
        return
    from edgekit_fleet.cli.bench_calls import followed, opened

    with opened(home, url) as calls:
        document = calls.ask(body)
        if not no_wait:
            document["benches"] = followed(calls, document["benches"], quiet=as_json)
    _shown(document, out, as_json)
    context.exit(0 if no_wait else exit_code(document["benches"]))


def _package(package: str) -> Json:
    """NAME@VERSION, or the digest of a folder's package."""
    folder = Path(package)
    if not (folder / "package.json").is_file():
        return {"release": package}
    from edgekit_fleet.bench_orders import digest_of_folder

    ref, digest = digest_of_folder(folder)
    return {"release": ref, "package": digest}


def exit_code(benches: Sequence[Mapping[str, Any]]) -> int:
    """0 all measured, else the worst: 1 failed, 3 refused, 4 not in time."""
    states = {item["state"] for item in benches}
    for state, code in (("failed", 1), ("refused", 3), ("expired", 4), ("waiting", 4), ("sent", 4)):
        if state in states:
            return code
    return 0


@bench.command("list")
@click.option("--device", metavar="NAME", help="Only of this device.")
@click.option("--release", metavar="NAME@VERSION", help="Only of this release.")
@click.option("--limit", default=200, show_default=True, help="At most so many, the newest.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures for edgekit convert.")
@home_option
@url_option
@json_option
def listed(
    device: str | None,
    release: str | None,
    limit: int,
    out: Path | None,
    home: Path,
    url: str | None,
    as_json: bool,
) -> None:
    """List measurements, the newest first."""
    from edgekit_fleet.cli.bench_calls import opened

    with opened(home, url) as calls:
        document = calls.listed(device, release, limit)
    _shown(document, out, as_json)


@bench.command("show")
@click.argument("cid", metavar="ID")
@home_option
@url_option
@json_option
def show(cid: str, home: Path, url: str | None, as_json: bool) -> None:
    """Show one measurement with all its circumstances."""
    from edgekit_fleet.cli.bench_calls import opened

    with opened(home, url) as calls:
        document = calls.shown(cid)
    if as_json:
        print_json(document)
        return
    click.echo(f"{document['id']}  {document['release']} {document['variant']}  {document['state']}")
    click.echo(f"  on {document['device']} ({document['hardware']}), asked {moment(document['created'])}")
    if reason := document["reason"]:
        click.echo(f"  {reason['code']}: {reason['text']}")
    if found := document["measurement"]:
        for line in _circumstances(found):
            click.echo(f"  {line}")


@bench.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures for edgekit convert.")
@home_option
@url_option
@json_option
@click.pass_context
def imported(
    context: click.Context, file: Path, out: Path | None, home: Path, url: str | None, as_json: bool
) -> None:
    """Import the results that `edgekit-agent bench` wrote on a device without a network."""
    from edgekit_fleet.cli.bench_calls import opened

    with opened(home, url) as calls:
        document = calls.imported(file)
    _shown(document, out, as_json)
    for cid in document["dropped"]:
        click.echo(f"{cid} was not waited for: imported before, expired, or for another device", err=True)
    context.exit(3 if document["dropped"] else exit_code(document["benches"]))


def _written(document: Json, path: Path, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    _left_out(document)
    click.echo(f"wrote {path}: {len(document['benches'])} variants; on the device:")
    click.echo(f"  edgekit-agent bench {path.name} --out results.json")
    click.echo("and here again: edgekit bench import results.json")


def _left_out(document: Json) -> None:
    for item in document.get("left_out", ()):
        click.echo(f"left out: {item['variant']} on {item['device']}: {item['why']}", err=True)


def _shown(document: Json, out: Path | None, as_json: bool) -> None:
    if out is not None:
        _write(document["benches"], out)
    if as_json:
        print_json(document)
        return
    _left_out(document)
    columns = ["ID", "DEVICE", "VARIANT", "MEDIAN", "P90", "P99", "N", "MEMORY", "ON TARGET", "RAN ON"]
    print_table(columns, [_row(item) for item in document["benches"]], empty="No measurements yet.")
    for item in document["benches"]:
        if reason := item["reason"]:
            click.echo(f"{item['id']}  {item['state']}: {reason['code']}: {reason['text']}")


def _row(item: Mapping[str, Any]) -> list[object]:
    found = item["measurement"]
    if found is None:
        return [item["id"], item["device"], item["variant"], item["state"], *["-"] * 6]
    figures = found["figures"]
    runtime = f"{figures['runtime']} {figures['runtime_version']} ({figures['backend']})"
    return [
        item["id"],
        item["device"],
        item["variant"],
        *(f"{figures[name]:.0f} µs" for name in ("median_us", "p90_us", "p99_us")),
        figures["n"],
        f"{figures['memory_mb']:.0f} MiB",
        "yes" if found["on_target"] else f"no, {found['hardware']}",
        runtime,
    ]


def _circumstances(found: Mapping[str, Any]) -> list[str]:
    """What a figure must be read with."""
    figures = found["figures"]
    text = {True: "the processor was throttled", False: "not throttled", None: "throttling unknown"}
    busy = figures.get("busy")
    latency = ", ".join(f"{name} {figures[f'{name}_us']:.0f} µs" for name in ("median", "p90", "p99"))
    others = f"{100 * busy:.0f} % of the cores" if busy is not None else "an unknown share"
    load = f"{_figure(figures, 'load')} before, {_figure(figures, 'load_after')} after"
    return [
        f"latency {latency} over {figures['n']} runs of {figures['inputs']}, threads {figures['threads']}",
        f"memory {figures['memory_mb']:.0f} MiB at its peak, {figures['base_mb']:.0f} before the model",
        f"{figures['runtime']} {figures['runtime_version']}, computed by {figures['backend']}",
        f"load {load}; other processes used {others}",
        f"temperature {_figure(figures, 'temperature_c', ' °C')}, {text[figures.get('throttled')]}",
        f"profile {found['profile']}, device {found['hardware']}: "
        + ("on target" if found["on_target"] else "not on target"),
        f"variant {found['digest']}",
    ]


def _figure(figures: Mapping[str, Any], name: str, unit: str = "") -> str:
    found = figures.get(name)
    return "unknown" if found is None else f"{found:g}{unit}"


def _write(benches: Sequence[Mapping[str, Any]], out: Path) -> None:
    from edgekit.documents import Measurement, Measurements
    from edgekit.files import atomic_write

    found = [item["measurement"] for item in benches if item["measurement"]]
    document = Measurements(measurements=tuple(Measurement.from_dict(item) for item in found))
    atomic_write(out, document.to_bytes())
