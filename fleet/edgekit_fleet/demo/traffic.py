"""The field: sends real labelled digits to every device all the time and keeps what came back.

One thread a device, one kept-alive HTTP connection, Open Inference Protocol v2. Nothing is sent twice:
a request that gets no 200 answer is a dropped one. The log knows for each request when it was sent, what
answered it (release and variant) and whether the answer was right.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from edgekit.errors import DataError


class Answer(NamedTuple):
    """One request and what became of it; `at` is seconds since the epoch, `status` 0 when none came."""

    at: float
    device: str
    status: int
    release: str
    right: bool
    label: int
    milliseconds: float
    error: str = ""

    @property
    def dropped(self) -> bool:
        """Whether it got no good answer."""
        return self.status != 200


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Labelled samples of one input, ready to be sent: JSON bodies and their labels."""

    bodies: tuple[bytes, ...]
    labels: tuple[int, ...]
    output: str

    @classmethod
    def load(cls, path: Path, *, input_name: str, output: str) -> Samples:
        """Read an npz with ``<input_name>`` and ``labels``.

        Raises:
            DataError: not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                images, labels = data[input_name], data["labels"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"not an npz with {input_name!r} and 'labels': {error}", where=str(path)
            ) from error
        bodies = tuple(_body(input_name, image[None], output) for image in images)
        return cls(bodies=bodies, labels=tuple(int(label) for label in labels), output=output)


def _body(name: str, batch: Any, output: str) -> bytes:
    tensor = {"name": name, "datatype": "FP32", "shape": list(batch.shape), "data": batch.ravel().tolist()}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": output}]}, separators=(",", ":")).encode()


class Traffic:
    """Traffic to any number of devices, until `stop`.

    Args:
        samples: what is sent, in an order that differs per device.
        slot: the slot that is asked.
        rate: requests a second to each device.
    """

    def __init__(self, samples: Samples, *, slot: str, rate: float, timeout: float = 10.0) -> None:
        self._samples, self._slot = samples, slot
        self._path = f"/v2/models/{slot}/infer"
        self._rate, self._timeout = rate, timeout
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._log: list[Answer] = []

    def add(self, device: str, url: str) -> None:
        """Begin to send to a device as soon as its slot says that it is ready."""
        name = f"traffic-{device}"
        thread = threading.Thread(
            target=self._send_all, args=(device, url, len(self._threads)), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """End all; requests on their way are waited for."""
        self._ended.set()
        for thread in self._threads:
            thread.join(self._timeout + 5)

    def answers(self, *, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """What was sent within a period, oldest first."""
        with self._lock:
            chosen = [answer for answer in self._log if since <= answer.at < until]
        return sorted(chosen, key=lambda answer: answer.at)

    def _send_all(self, device: str, url: str, number: int) -> None:
        where = urlsplit(url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=self._timeout)
        order = np.random.default_rng(number).permutation(len(self._samples.bodies)).tolist()
        while not self._ended.is_set() and not self._ready(connection):
            self._ended.wait(0.2)
        pause, due, sent = 1.0 / self._rate, time.monotonic(), 0
        while not self._ended.is_set():
            answer = self._send(connection, device, order[sent % len(order)])
            with self._lock:
                self._log.append(answer)
            sent += 1
            due = max(due + pause, time.monotonic() - 1.0)
            self._ended.wait(max(0.0, due - time.monotonic()))
        connection.close()

    def _ready(self, connection: http.client.HTTPConnection) -> bool:
        try:
            connection.request("GET", f"/v2/models/{self._slot}/ready")
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return response.status == 200

    def _send(self, connection: http.client.HTTPConnection, device: str, item: int) -> Answer:
        at, began = time.time(), time.perf_counter()
        label = self._samples.labels[item]
        headers = {"Content-Type": "application/json"}

        def answered(status: int, release: str, right: bool, error: str = "") -> Answer:
            took = (time.perf_counter() - began) * 1e3
            return Answer(at, device, status, release, right, label, took, error)

        try:
            connection.request("POST", self._path, self._samples.bodies[item], headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                return answered(response.status, "", False, content[:200].decode("utf-8", "replace"))
            body = json.loads(content)
            release = f"{body['model_name']}@{body['model_version']}"
            predicted = int(np.argmax(_data(body["outputs"], self._samples.output)))
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            connection.close()
            return answered(0, "", False, f"{type(error).__name__}: {error}")
        return answered(200, release, predicted == label)


def _data(outputs: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    return next(list(item["data"]) for item in outputs if item["name"] == name)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a stretch of traffic amounts to; `per_release` counts good answers, `right` those that were
    right, by release; `served_by` the devices each release answered on."""

    sent: int
    dropped: int
    per_release: Mapping[str, int]
    right: Mapping[str, int]
    served_by: Mapping[str, tuple[str, ...]]
    p50: float
    p99: float
    worst: float
    first_error: str = ""

    def accuracy(self, release: str) -> float | None:
        """Share of right answers of a release, None when it answered nothing."""
        return self.right[release] / self.per_release[release] if self.per_release.get(release) else None


def tally(answers: Iterable[Answer]) -> Tally:
    """Count a stretch of traffic."""
    chosen = list(answers)
    good = [answer for answer in chosen if not answer.dropped]
    per_release = Counter(answer.release for answer in good)
    times = np.array([answer.milliseconds for answer in good] or [0.0])
    return Tally(
        sent=len(chosen),
        dropped=len(chosen) - len(good),
        per_release=dict(per_release),
        right=_right(good, per_release),
        served_by={
            release: tuple(sorted({answer.device for answer in good if answer.release == release}))
            for release in per_release
        },
        p50=round(float(np.quantile(times, 0.5)), 3),
        p99=round(float(np.quantile(times, 0.99)), 3),
        worst=round(float(times.max()), 3),
        first_error=next((f"{a.device}: {a.status} {a.error}" for a in chosen if a.dropped), ""),
    )


def _right(answers: Iterable[Answer], releases: Iterable[str]) -> dict[str, int]:
    found = Counter(answer.release for answer in answers if answer.right)
    return {release: found[release] for release in releases}
