"""Measuring a variant on a device: the signed order, what came of it, and the file of many figures.

``d/<id>/cmd/<cid>`` carries an `Envelope` of a `BenchOrder`, ``d/<id>/res/<cid>`` the `BenchResult`; neither
is retained. An order is bound to one device, has an expiry of its own (MQTT 3.1.1 messages have none) and
is good once: a device remembers its `cid`. `Measurements` is what operators keep and
the compiler reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from edgekit.documents.base import Document
from edgekit.documents.device import Reason
from edgekit.wire import Fields

VERB = "bench"
STATES = ("done", "refused", "failed")
MAX_RUNS, MAX_SECONDS, MAX_THREADS = 10_000, 120, 256
MAX_VALID = 31 * 86_400.0
"""Longest time between issue and expiry, for orders that travel as a file."""
MAX_RESULT = 32 << 10
"""Most bytes of a result."""
_SHORT, _LONG = 256, 600
_CID = re.compile(r"[a-z0-9]{8,40}\Z")
_LARGE = 1e12


def _cid(source: Fields) -> str:
    cid = source.text("cid", limit=40)
    if not _CID.match(cid):
        raise source.fail("cid", "8 to 40 of a-z and 0-9 were expected")
    return cid


def _line(source: Fields, name: str, limit: int = _SHORT) -> str:
    """A text that may be shown to people: one line, nothing that steers a terminal."""
    text = source.text(name, limit=limit)
    if not text.isprintable():
        raise source.fail(name, "one line of printable characters was expected")
    return text


def _amount(source: Fields, name: str) -> float:
    value = source.number(name)
    if not 0 <= value <= _LARGE:
        raise source.fail(name, "a number that is not negative was expected")
    return value


def _maybe_amount(source: Fields, name: str) -> float | None:
    return _amount(source, name) if source.has(name) else source.maybe_number(name)


@dataclass(frozen=True, kw_only=True)
class BenchOrder(Document):
    """Measure one variant: at most `runs` inferences and `seconds` of them, on `threads` threads.

    `package` and `digest` are ``sha256:…`` of package and variant, as in a desired document; `expires` is
    when the order stops being good.
    """

    kind: ClassVar[str] = VERB
    verb: str = VERB
    cid: str
    device: str
    issued: float
    expires: float
    release: str
    package: str
    variant: str
    digest: str
    runs: int = 200
    seconds: float = 10.0
    threads: int = 1

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        verb = _line(source, "verb")
        if verb != VERB:
            raise source.fail("verb", f"{VERB} was expected, the one verb there is")
        issued, expires = source.number("issued"), source.number("expires")
        if not issued < expires <= issued + MAX_VALID:
            raise source.fail("expires", "a time after it was issued, by 31 days at most, was expected")
        seconds = _amount(source, "seconds")
        if not 0 < seconds <= MAX_SECONDS:
            raise source.fail("seconds", f"at most {MAX_SECONDS} seconds were expected")
        return {
            "verb": verb,
            "cid": _cid(source),
            "device": _line(source, "device"),
            "issued": issued,
            "expires": expires,
            "release": _line(source, "release"),
            "package": _line(source, "package"),
            "variant": _line(source, "variant"),
            "digest": _line(source, "digest"),
            "runs": source.integer("runs", low=1, high=MAX_RUNS),
            "seconds": seconds,
            "threads": source.integer("threads", low=1, high=MAX_THREADS),
        }


@dataclass(frozen=True, kw_only=True)
class BenchFigures(Document):
    """What was measured. Latencies in microseconds of single samples, memory in MiB.

    `memory_mb` is the measuring process at its peak, `base_mb` the same before the model was loaded;
    `load` is the machine's one-minute load average before and `load_after` behind it, `busy` the share of
    all cores other processes used meanwhile (0 to 1); `throttled` says whether the processor was slowed
    down meanwhile, None where the system does not tell. `backend` is what really computed.
    """

    kind: ClassVar[str] = "figures"
    median_us: float
    p90_us: float
    p99_us: float
    n: int
    threads: int
    memory_mb: float
    base_mb: float = 0.0
    runtime: str
    runtime_version: str
    backend: str
    load: float | None = None
    load_after: float | None = None
    busy: float | None = None
    temperature_c: float | None = None
    temperature_before_c: float | None = None
    throttled: bool | None = None
    inputs: str = "zeros"

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        median, p90, p99 = (_amount(source, name) for name in ("median_us", "p90_us", "p99_us"))
        if not 0 < median <= p90:
            raise source.fail("p90_us", "no less than the median, which is above 0, was expected")
        if p99 < p90:
            raise source.fail("p99_us", "no less than the 90th percentile was expected")
        return {
            "median_us": median,
            "p90_us": p90,
            "p99_us": p99,
            "n": source.integer("n", low=1, high=MAX_RUNS),
            "threads": source.integer("threads", low=1, high=MAX_THREADS),
            "memory_mb": _amount(source, "memory_mb"),
            "base_mb": _amount(source, "base_mb"),
            "runtime": _line(source, "runtime"),
            "runtime_version": _line(source, "runtime_version"),
            "backend": _line(source, "backend"),
            "load": _maybe_amount(source, "load"),
            "load_after": _maybe_amount(source, "load_after"),
            "busy": _maybe_amount(source, "busy"),
            "temperature_c": source.maybe_number("temperature_c"),
            "temperature_before_c": source.maybe_number("temperature_before_c"),
            "throttled": source.flag("throttled") if source.has("throttled") else None,
            "inputs": _line(source, "inputs"),
        }


@dataclass(frozen=True, kw_only=True)
class BenchResult(Document):
    """What came of one order: ``done`` with `figures`, or ``refused`` or ``failed`` with a `reason`.

    Believed by nobody before it was compared with the order that `cid` names.
    """

    kind: ClassVar[str] = "bench_result"
    cid: str
    device: str
    state: str
    at: float
    digest: str
    hardware: str = ""
    figures: BenchFigures | None = None
    reason: Reason | None = None

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        state = _line(source, "state")
        if state not in STATES:
            raise source.fail("state", f"one of {', '.join(STATES)} was expected")
        needed = "figures" if state == "done" else "reason"
        if not source.has(needed):
            raise source.fail(needed, f"a result that is {state} has them")
        return {
            "cid": _cid(source),
            "device": _line(source, "device"),
            "state": state,
            "at": source.number("at"),
            "digest": _line(source, "digest"),
            "hardware": _line(source, "hardware"),
            "figures": source.maybe("figures", BenchFigures.read),
            "reason": source.maybe("reason", _reason),
        }


def _reason(source: Fields) -> Reason:
    """A reason within bounds: it comes from a device and is shown to people."""
    _line(source, "code")
    _line(source, "text", _LONG)
    return Reason.read(source)


@dataclass(frozen=True, kw_only=True)
class BenchResults(Document):
    """Results that travel as a file, in an `Envelope` signed with the device's own key."""

    kind: ClassVar[str] = "bench_results"
    device: str
    results: tuple[BenchResult, ...]

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {
            "device": _line(source, "device"),
            "results": source.objects("results", BenchResult.read),
        }


@dataclass(frozen=True, kw_only=True)
class Measurement(Document):
    """One measured variant as the compiler reads it. `digest` names the variant's bytes, whatever package
    they are in; `on_target` is true only where the device's stratum is the variant's own profile."""

    kind: ClassVar[str] = "measurement"
    release: str
    variant: str
    digest: str
    profile: str
    target: str
    precision: str
    device: str
    hardware: str
    on_target: bool
    at: float
    figures: BenchFigures

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        words = ("release", "variant", "digest", "profile", "target", "precision", "device", "hardware")
        return {
            **{name: _line(source, name) for name in words},
            "on_target": source.flag("on_target"),
            "at": source.number("at"),
            "figures": BenchFigures.read(source.child("figures")),
        }


@dataclass(frozen=True, kw_only=True)
class Measurements(Document):
    """The file that ``edgekit bench … --out FILE`` writes and ``edgekit convert --measurements`` reads."""

    kind: ClassVar[str] = "measurements"
    measurements: tuple[Measurement, ...]

    @classmethod
    def _members(cls, source: Fields) -> dict[str, Any]:
        return {"measurements": source.objects("measurements", Measurement.read)}
