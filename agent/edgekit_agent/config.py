"""`agent.toml` and the folders of an agent's home; reads and checks, decides nothing.

Layout of a home::

    agent.toml          what the owner wishes (this module)
    identity.json       who the device is: ids, service, broker credential (0600)
    device.key          Ed25519 private key made on the device, PEM (0600)
    root.json           the TUF root the enrolment token vouched for
    store/              blobs and packages (`edgekit_agent.store`)
    state/              databases, TUF metadata, live status
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.documents import EnrolAnswer
from edgekit.errors import DocumentError
from edgekit.files import atomic_write, read_bytes
from edgekit.tomlfile import Table, read_toml
from edgekit_agent.errors import ConfigError, NotEnrolledError

MODES = ("service", "embedded", "stream", "batch")
SYSTEM = "system"
STREAMS = ("mqtt", "serial")
ENVIRONMENT = "EDGEKIT_AGENT_HOME"
TEMPLATE = """# Configuration of this edgekit agent, read by `edgekit-agent run`. Everything is optional.

[agent]
# service: HTTP (Open Inference Protocol) · stream: the [[stream]] tables below · embedded: neither
# batch: compute the [[batch]] tables with what the slots run, and end
modes = ["service"]
threads = 1

[device]
# Runtimes and precisions this device may use; empty means all that are found.
runtimes = {runtimes}
precisions = {precisions}

[device.labels]
{labels}[http]
address = "127.0.0.1"
port = 0        # 0: a free one, written to state/http.json

[telemetry]
seconds = 10.0

# [mqtt]
# ca = "ca.pem"          # who the broker must be; "system": whoever the system trusts (empty: as enrolled)
# cert = "device.pem"    # this device's own certificate and key, where the broker asks for them
# key = "device.key"

# [limits]
# hang_seconds = 30.0    # an inference that takes longer hangs: a model on trial is reverted, and the
#                        # agent starts itself anew
# bench_seconds = 60     # longest measurement (`edgekit bench`) this device takes part in; 0: in none
# bench_memory_mb = 2048 # most memory of one

# [[stream]]
# kind = "mqtt"          # samples from in/<slot>, predictions to out/<slot>
# slot = "digits"
# [[stream]]
# kind = "serial"
# slot = "digits"
# port = "/dev/ttyUSB0"
# baud = 115200
# format = "lines"        # CSV or JSON lines; or "frames" (docs/serial.md), as a microcontroller answers

# [[batch]]
# slot = "digits"
# input = "samples"      # a file (npz, json, csv) or a folder of them
# output = "answers"
# format = "npz"         # or json
"""


@dataclass(frozen=True, kw_only=True)
class Home:
    """The paths below one agent's home folder."""

    path: Path

    @property
    def config(self) -> Path:
        """``agent.toml``."""
        return self.path / "agent.toml"

    @property
    def identity(self) -> Path:
        """``identity.json``."""
        return self.path / "identity.json"

    @property
    def key(self) -> Path:
        """The device's private key."""
        return self.path / "device.key"

    @property
    def root(self) -> Path:
        """The trusted TUF root."""
        return self.path / "root.json"

    @property
    def state(self) -> Path:
        """Folder of databases and live status."""
        return self.path / "state"

    @property
    def store(self) -> Path:
        """Folder of blobs and packages."""
        return self.path / "store"

    @property
    def http(self) -> Path:
        """Where the inference server listens: ``{"address", "port", "url"}``."""
        return self.state / "http.json"

    @property
    def live(self) -> Path:
        """The running agent's own account of itself."""
        return self.state / "live.json"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One ``[[stream]]``: samples in, predictions out. `port`, `baud` and `form` are the serial line's."""

    kind: str
    slot: str
    port: str = ""
    baud: int = 115_200
    form: str = "lines"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One ``[[batch]]``: a file or folder to compute, a folder for the answers, their format."""

    slot: str
    input: str
    output: str
    form: str = "npz"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that keep a small device alive. Sizes in MB, times in seconds."""

    outbox_records: int = 20_000
    outbox_mb: int = 64
    download_mb: int = 2_048
    free_mb: int = 32
    child_seconds: float = 120.0
    stall_seconds: float = 30.0
    hang_seconds: float = 30.0
    bench_seconds: int = 60
    bench_memory_mb: int = 2_048


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``agent.toml`` says, with defaults filled in."""

    modes: tuple[str, ...] = ("service",)
    threads: int = 1
    runtimes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    port: int = 0
    telemetry_seconds: float = 10.0
    resend_seconds: float = 15.0
    poll_seconds: float = 4 * 3600.0
    first_poll_seconds: float = 15.0
    keepalive: int = 30
    mqtt_ca: str = ""
    mqtt_cert: str = ""
    mqtt_key: str = ""
    streams: tuple[Stream, ...] = ()
    batches: tuple[Batch, ...] = ()
    limits: Limits = Limits()


def home_folder(given: str | None) -> Home:
    """The home: as given, else ``$EDGEKIT_AGENT_HOME``, else ``~/.edgekit-agent``."""
    chosen = given or os.environ.get(ENVIRONMENT)
    return Home(path=Path(chosen).expanduser() if chosen else Path.home() / ".edgekit-agent")


def load_config(path: Path) -> Config:
    """Read ``agent.toml``; a missing file means all defaults.

    Raises:
        ConfigError: not TOML, an unknown key, a wrong type or value: file, key and remedy are named.
    """
    if not path.exists():
        return Config()
    table = read_toml(path, ConfigError)
    agent, device, http = table.table("agent"), table.table("device"), table.table("http")
    telemetry, mqtt, limits = table.table("telemetry"), table.table("mqtt"), table.table("limits")
    labels = device.mapping("labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise device.fail("labels", 'texts were expected, as in site = "lab"')
    config = Config(
        modes=agent.texts("modes", allowed=MODES) or ("service",),
        threads=agent.integer("threads", 1, low=1),
        runtimes=device.texts("runtimes"),
        precisions=device.texts("precisions"),
        labels=labels,
        address=http.text("address", "127.0.0.1"),
        port=_port(http),
        telemetry_seconds=_positive(telemetry, "seconds", 10.0),
        resend_seconds=_positive(telemetry, "resend_seconds", 15.0),
        poll_seconds=_positive(mqtt, "poll_seconds", 4 * 3600.0),
        first_poll_seconds=_positive(mqtt, "first_poll_seconds", 15.0),
        keepalive=mqtt.integer("keepalive", 30, low=5),
        mqtt_ca=_beside(path, mqtt.text("ca", "")),
        mqtt_cert=_beside(path, mqtt.text("cert", "")),
        mqtt_key=_beside(path, mqtt.text("key", "")),
        streams=table.tables("stream", _stream),
        batches=table.tables("batch", _batch),
        limits=_limits(limits),
    )
    for part in (agent, device, http, telemetry, mqtt, limits, table):
        part.finish()
    if "batch" in config.modes and len(config.modes) > 1:
        raise agent.fail("modes", "batch runs and ends: it cannot be combined with other modes")
    if bool(config.mqtt_cert) != bool(config.mqtt_key):
        raise mqtt.fail("cert", "a certificate and its key belong together", "give both cert and key")
    return config


def load_identity(home: Home) -> EnrolAnswer:
    """Who this device is.

    Raises:
        NotEnrolledError: there is no identity here.
        ConfigError: the file is damaged.
    """
    if not home.identity.exists():
        raise NotEnrolledError(
            "this device is not enrolled",
            where=str(home.identity),
            remedy="edgekit-agent enrol --url URL --token TOKEN",
        )
    try:
        return EnrolAnswer.parse(read_bytes(home.identity, limit=4 << 20))
    except DocumentError as error:
        raise ConfigError(
            f"damaged: {error}", where=str(home.identity), remedy="enrol the device again"
        ) from error


def write_template(
    path: Path, *, labels: Mapping[str, str], runtimes: tuple[str, ...], precisions: tuple[str, ...]
) -> None:
    """Write a commented ``agent.toml`` with the given wishes."""
    lines = "".join(f"{_quoted(name)} = {_quoted(value)}\n" for name, value in labels.items()) + "\n"
    text = TEMPLATE.format(runtimes=_listed(runtimes), precisions=_listed(precisions), labels=lines)
    atomic_write(path, text.encode())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _listed(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(_quoted(word) for word in words) + "]"


def _positive(table: Table, key: str, default: float) -> float:
    value = table.number(key, default)
    if value <= 0:
        raise table.fail(key, f"seconds above 0 were expected, not {value}")
    return value


def _beside(config: Path, given: str) -> str:
    """A path in the configuration, relative to the configuration's folder."""
    return given if given in ("", SYSTEM) else str(config.parent / given)


def _port(table: Table) -> int:
    port = table.integer("port", 0)
    if port > 65_535:
        raise table.fail("port", f"a port from 0 to 65535 was expected, not {port}")
    return port


def _stream(table: Table) -> Stream:
    stream = Stream(
        kind=table.text("kind", allowed=STREAMS),
        slot=table.text("slot"),
        port=table.text("port", ""),
        baud=table.integer("baud", 115_200, low=1),
        form=table.text("format", "lines", allowed=("lines", "frames")),
    )
    if stream.kind == "serial" and not stream.port:
        raise table.fail("port", "a serial stream needs its port", 'for example port = "/dev/ttyUSB0"')
    return stream


def _batch(table: Table) -> Batch:
    return Batch(
        slot=table.text("slot"),
        input=table.text("input"),
        output=table.text("output"),
        form=table.text("format", "npz", allowed=("npz", "json")),
    )


def _limits(table: Table) -> Limits:
    default = Limits()
    return Limits(
        outbox_records=table.integer("outbox_records", default.outbox_records, low=10),
        outbox_mb=table.integer("outbox_mb", default.outbox_mb, low=1),
        download_mb=table.integer("download_mb", default.download_mb, low=1),
        free_mb=table.integer("free_mb", default.free_mb),
        child_seconds=_positive(table, "child_seconds", default.child_seconds),
        stall_seconds=_positive(table, "stall_seconds", default.stall_seconds),
        hang_seconds=_positive(table, "hang_seconds", default.hang_seconds),
        bench_seconds=table.integer("bench_seconds", default.bench_seconds),
        bench_memory_mb=table.integer("bench_memory_mb", default.bench_memory_mb, low=16),
    )
