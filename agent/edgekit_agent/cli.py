"""The command line `edgekit-agent`: enrol, run, status, bench, serial. Plain argparse, heavy imports
inside the commands.

Exit codes are the core's: 0 done, 1 failed, 2 wrong call or configuration, 3 refused, 4 timed out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError, UsageError
from edgekit_agent import lean
from edgekit_agent.errors import ConfigError

if TYPE_CHECKING:
    from edgekit_agent.serving.serial_client import SerialModel

_EPILOG = "exit codes: 0 done, 1 failed, 2 wrong call or configuration, 3 refused, 4 timed out"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except EdgekitError as error:
        _complain(error, as_json=bool(getattr(arguments, "json", False)))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return code


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, also what the reference in docs is generated from."""
    parser = argparse.ArgumentParser(
        prog="edgekit-agent", description="The device side of edgekit.", epilog=_EPILOG
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    enrol = commands.add_parser("enrol", help="make this machine a device of a fleet", epilog=_EPILOG)
    enrol.add_argument("--url", required=True, help="address of the fleet service, http(s)://HOST:PORT")
    enrol.add_argument("--token", required=True, help="one-time token from `edgekit device token`")
    enrol.add_argument("--name", default="", help="name for people; the service makes the id from it")
    enrol.add_argument(
        "--label", action="append", default=[], metavar="K=V", help="label for choosing rings; repeatable"
    )
    enrol.add_argument("--runtime", action="append", default=[], help="allow only these runtimes; repeatable")
    enrol.add_argument("--precision", action="append", default=[], help="precisions in order; repeatable")
    enrol.add_argument("--json", action="store_true", help="answer as JSON")
    enrol.set_defaults(command=_enrol)
    run = commands.add_parser("run", help="run the agent in the modes agent.toml names", epilog=_EPILOG)
    run.add_argument("--verbose", action="store_true", help="log what it does")
    run.set_defaults(command=_run)
    status = commands.add_parser("status", help="what the agent of a home does and runs", epilog=_EPILOG)
    status.add_argument("--json", action="store_true", help="answer as JSON")
    status.set_defaults(command=_status)
    bench = commands.add_parser("bench", help="measure what a request file orders", epilog=_EPILOG)
    bench.add_argument("request", metavar="FILE", help="made by `edgekit bench … --offline-request FILE`")
    bench.add_argument("--out", required=True, metavar="RESULT", help="where the signed results go")
    bench.add_argument("--json", action="store_true", help="answer as JSON")
    bench.set_defaults(command=_bench)
    _add_serial(commands)
    for command in (enrol, run, status, bench):
        command.add_argument(
            "--home", help="the agent's folder (default $EDGEKIT_AGENT_HOME or ~/.edgekit-agent)"
        )
    return parser


def _positive(number: type[int] | type[float]) -> Callable[[str], float]:
    """A number above zero, for argparse, which says the rest."""

    def read(text: str) -> float:
        value = number(text)
        if not 0 < value < 1e9:
            raise argparse.ArgumentTypeError(f"{text}: a number above 0 was expected")
        return value

    read.__name__ = number.__name__
    return read


def _add_serial(commands: Any) -> None:
    serial = commands.add_parser(
        "serial", help="ask the model on a serial line: a microcontroller, or another agent", epilog=_EPILOG
    )
    serial.add_argument("port", help="such as /dev/ttyUSB0")
    serial.add_argument("--baud", type=_positive(int), default=115_200, help="speed of the line (115200)")
    serial.add_argument(
        "--timeout", type=_positive(float), default=2.0, help="seconds one answer may take (2)"
    )
    serial.add_argument("--package", help="folder of the package it runs: its probes are run on the device")
    serial.add_argument("--input", help="npz with one array for each input, first axis = samples")
    serial.add_argument("--out", help="with --input: npz to write; default: JSON on standard output")
    serial.add_argument("--json", action="store_true", help="answer as JSON")
    serial.set_defaults(command=_serial)


def _enrol(arguments: argparse.Namespace) -> int:
    from edgekit_agent.config import home_folder
    from edgekit_agent.enrol import enrol

    answer = enrol(
        home_folder(arguments.home),
        url=arguments.url,
        token=arguments.token,
        name=arguments.name,
        labels=_labels(arguments.label),
        runtimes=_words(arguments.runtime),
        precisions=_words(arguments.precision),
    )
    facts = {"device": answer.device, "tenant": answer.tenant, "hardware": answer.hardware, "url": answer.url}
    if arguments.json:
        print(json.dumps(facts))
    else:
        print(f"enrolled as {answer.device} ({answer.hardware}) with {answer.url}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    lean.without_tls()
    from edgekit_agent.config import home_folder, load_config, load_identity

    home = home_folder(arguments.home)
    config, identity = load_config(home.config), load_identity(home)
    if "batch" in config.modes:
        from edgekit_agent.modes import run_batches

        for result in run_batches(home, config):
            print(json.dumps({"slot": result.slot, **result.facts}, sort_keys=True))
        return 0
    if not identity.url.startswith("http:") or config.mqtt_ca or config.mqtt_cert or identity.mqtt_ca:
        lean.with_tls()
    from edgekit_agent.supervisor import serve

    return serve(home, config, identity, verbose=arguments.verbose)


def _status(arguments: argparse.Namespace) -> int:
    from edgekit_agent.config import home_folder
    from edgekit_agent.state import status

    facts = status(home_folder(arguments.home))
    if arguments.json:
        print(json.dumps(facts, sort_keys=True))
    else:
        _print_status(facts)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from edgekit_agent.bench_file import run_file, summary
    from edgekit_agent.config import home_folder

    found = run_file(home_folder(arguments.home), Path(arguments.request), Path(arguments.out))
    if arguments.json:
        print(json.dumps(found.to_dict(), sort_keys=True))
    else:
        for result in found.results:
            print(summary(result))
        print(f"wrote {arguments.out}; give it to the fleet: edgekit bench import {arguments.out}")
    states = {result.state for result in found.results}
    return 1 if "failed" in states else 3 if "refused" in states else 0


def _serial(arguments: argparse.Namespace) -> int:
    from edgekit_agent.serving.serial_client import SerialModel, open_serial

    _check_serial(arguments)
    line = open_serial(arguments.port, arguments.baud)
    try:
        return _asked(arguments, SerialModel(line, timeout=arguments.timeout))
    finally:
        line.close()


def _check_serial(arguments: argparse.Namespace) -> None:
    """What is named is there before the device is asked, and nothing that is said is passed over."""
    if arguments.package and arguments.input:
        raise UsageError("--package and --input: one of them", remedy="the package brings its own samples")
    if arguments.out and not arguments.input:
        raise UsageError("there is nothing to write", where="--out", remedy="give --input with it")
    for option, path in (("--package", arguments.package), ("--input", arguments.input)):
        file = path and (Path(path) / "package.json" if option == "--package" else Path(path))
        if file and not file.is_file():
            raise UsageError("no such file", where=str(file), remedy=f"check the path given to {option}")


def _asked(arguments: argparse.Namespace, device: SerialModel) -> int:
    from edgekit_agent import serial_ask

    if arguments.package:
        outcome = serial_ask.prove(device, Path(arguments.package))
        right = f"{outcome.right.count('1')} of {outcome.n} probes are right"
        _say(arguments.json, {**asdict(outcome)}, right)
        return 0 if outcome.passed else 3
    if arguments.input:
        _put(arguments.out, serial_ask.compute(device, Path(arguments.input)))
        return 0
    about = device.description
    ports = [f"{port.name} {port.dtype}{list(port.shape)}" for port in (*about.inputs, *about.outputs)]
    _say(arguments.json, serial_ask.facts(device), f"{about.model} {about.variant}: {', '.join(ports)}")
    return 0


def _put(out: str | None, outputs: dict[str, Any]) -> None:
    if out:
        import numpy as np

        np.savez(out, **outputs)
    else:
        print(json.dumps({name: array.tolist() for name, array in outputs.items()}))


def _say(as_json: bool, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts, sort_keys=True) if as_json else text)


def _print_status(facts: dict[str, Any]) -> None:
    state = (
        "connected" if facts.get("connected") else "running, not connected" if facts["running"] else "stopped"
    )
    print(f"{facts['device']} ({facts['hardware']}) · {state} · gen {facts['gen']} · {facts['step']}")
    if facts["http"]:
        print(f"  serves {facts['http']}")
    for name, slot in facts["slots"].items():
        previous = f", before it {slot['previous']}" if slot["previous"] else ""
        print(f"  {name}: {slot['release']} as {slot['variant']}{previous}")
    if facts["reason"]:
        print(f"  {facts['reason']['code']}: {facts['reason']['text']}")
    if facts.get("last_error"):
        print(f"  last error: {facts['last_error']}")
    counters = {name: facts.get(name, 0) for name in ("outbox", "dropped", "foreign", "malformed")}
    print("  " + ", ".join(f"{name} {value}" for name, value in counters.items()))


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"{pair!r} is not KEY=VALUE", where="--label", remedy="for example site=lab")
        labels[key] = value
    return labels


def _words(given: Sequence[str]) -> tuple[str, ...]:
    """Repeated options, each of which may also be a list with commas."""
    return tuple(word for item in given for word in item.split(",") if word)


def _complain(error: EdgekitError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": dict(error.as_dict())}), file=sys.stderr)
    else:
        print(f"edgekit-agent: {error}", file=sys.stderr)


__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
