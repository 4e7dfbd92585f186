"""The inference server: the protocol, and everything a client may do to it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import StorageError
from edgekit_agent.runtimes.onnxruntime import OnnxRuntime
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.http import Bounds, InferenceServer
from tests.agent.models import LABELS, WEIGHTS, classes_of, installed, samples
from tests.agent.serving_http import INFER, SLOT, body_of, call, raw, read_all, serving
from tests.agent.test_serving_host import SlowRuntime
from tests.conftest import FrozenClock


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHost]:
    made = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=FrozenClock())
    made.switch(SLOT, made.prepare(installed(tmp_path_factory.mktemp("package"))))
    made.commit(SLOT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(host: ModelHost) -> Iterator[InferenceServer]:
    with serving(host) as running:
        yield running


def test_infer_names_what_ran_and_answers_row_major(server: InferenceServer) -> None:
    status, answer, headers = call(server, "POST", INFER, body_of(2, id="r-1"))
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("animals", "1", "r-1")
    assert answer["parameters"]["variant"] == "host-onnx"
    assert answer["parameters"]["digest"].startswith("sha256:")
    outputs = {item["name"]: item for item in answer["outputs"]}
    assert outputs["y"]["shape"] == [2, 3]
    assert outputs["y"]["datatype"] == "FP32"
    logits = samples(2) @ WEIGHTS
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.reshape(outputs["y"]["data"], (2, 3)), expected, atol=1e-6)
    assert outputs["y:label"]["data"] == [LABELS[c] for c in classes_of(samples(2))]
    np.testing.assert_allclose(outputs["y:confidence"]["data"], expected.max(axis=1), atol=1e-6)


def test_nested_data_answer_the_same_as_flat(server: InferenceServer) -> None:
    nested = body_of(2, tensor={"data": samples(2).tolist()})
    assert call(server, "POST", INFER, nested)[1] == call(server, "POST", INFER, body_of(2))[1]


def test_only_the_outputs_asked_for_come_back(server: InferenceServer) -> None:
    body = body_of(outputs=[{"name": "y:label"}])
    assert [item["name"] for item in call(server, "POST", INFER, body)[1]["outputs"]] == ["y:label"]


def test_the_version_that_serves_may_be_asked_for_by_name(server: InferenceServer) -> None:
    assert call(server, "POST", f"/v2/models/{SLOT}/versions/1/infer", body_of())[0] == 200
    status, answer, _ = call(server, "POST", f"/v2/models/{SLOT}/versions/9/infer", body_of())
    assert status == 404
    assert "serves version 1" in answer["error"]


def test_metadata_and_health_have_the_protocols_members(server: InferenceServer) -> None:
    assert call(server, "GET", "/v2")[1]["name"] == "edgekit-agent"
    assert call(server, "GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert call(server, "GET", "/v2/health/ready")[:2] == (
        200,
        {"ready": True, "slots": {SLOT: "animals@1"}},
    )
    assert call(server, "GET", f"/v2/models/{SLOT}/ready")[1]["ready"] is True
    status, model, _ = call(server, "GET", f"/v2/models/{SLOT}")
    assert status == 200
    assert (model["name"], model["versions"], model["platform"]) == (SLOT, ["1"], "onnxruntime_onnx")
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert [item["name"] for item in model["outputs"]] == ["y", "y:label", "y:confidence"]
    assert call(server, "GET", f"/v2/models/{SLOT}/versions/1")[0] == 200
    assert call(server, "HEAD", "/v2/health/live")[:2] == (200, "")


def test_without_a_model_it_is_live_but_not_ready(clock: FrozenClock, tmp_path: Path) -> None:
    empty = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    with serving(empty) as server:
        assert call(server, "GET", "/v2/health/live")[0] == 200
        assert call(server, "GET", "/v2/health/ready")[0] == 400
        empty.switch(SLOT, empty.prepare(installed(tmp_path)))
        assert call(server, "GET", "/v2/health/ready")[0] == 200
        empty.remove(SLOT)
        assert call(server, "GET", f"/v2/models/{SLOT}/ready")[0] == 400
        status, answer, headers = call(server, "POST", INFER, body_of())
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "serves nothing yet" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("POST", f"/v2/models/{SLOT}", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/v2/models/plants", 404),
        ("GET", "/v2/models/plants/ready", 404),
        ("GET", f"/v2/models/{SLOT}/versions/7", 404),
        ("POST", "/v2/models/plants/infer", 404),
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/../../etc/passwd", 404),
        ("GET", f"/v2/models/{SLOT}/config/more", 404),
    ],
)
def test_wrong_verb_or_place(server: InferenceServer, method: str, path: str, status: int) -> None:
    got, answer, headers = call(server, method, path, body_of() if method == "POST" else None)
    assert got == status
    assert isinstance(answer["error"], str)
    assert ("Allow" in headers) == (status == 405)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[1]", "object"),
        (b"\xff\xfe", "JSON"),
        (b"{}", "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": [3]}', "inputs"),
        (b'{"inputs": {"x": 1}}', "inputs"),
        (b"[" * 100_000, "JSON"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', "NaN"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [' + b"9" * 5000, "JSON"),
        (body_of(tensor={"datatype": "FP99"}), "datatype"),
        (body_of(tensor={"datatype": "BYTES"}), "datatype"),
        (body_of(tensor={"datatype": 7}), "datatype"),
        (body_of(tensor={"name": None}), "name"),
        (body_of(tensor={"name": "z"}), "'z'"),
        (body_of(tensor={"shape": [1, 5]}), "fit shape"),
        (body_of(tensor={"shape": [2, 2]}), "shape"),
        (body_of(tensor={"shape": [-1, 4]}), "shape"),
        (body_of(tensor={"shape": [True, 4]}), "shape"),
        (body_of(tensor={"shape": [2**31, 2**31]}), "shape"),
        (body_of(tensor={"shape": "14"}), "shape"),
        (body_of(tensor={"shape": [0, 4], "data": []}), "no values"),
        (body_of(tensor={"data": [1, 2, "3", 4]}), "data"),
        (body_of(tensor={"data": [1, None, 3, 4]}), "data"),
        (body_of(tensor={"data": [[1, 2], [3]]}), "data"),
        (body_of(tensor={"data": [1e999, 0, 0, 0]}), "JSON"),
        (body_of(tensor={"data": [1e300, 0, 0, 0]}), "infinity"),
        (body_of(tensor={"data": "AAAA"}), "data"),
        (body_of(tensor={"data": {}}), "data"),
        (body_of(tensor={"datatype": "INT8", "data": [1, 2, 3, 400]}), "-128"),
        (body_of(tensor={"datatype": "INT32", "data": [1.5, 2, 3, 4]}), "INT32"),
        (body_of(tensor={"datatype": "INT32", "data": [1, 2, 3, 4]}), "dtype"),
        (body_of(tensor={"datatype": "FP64"}), "dtype"),
        (body_of(outputs=[{"name": "ghost"}]), "ghost"),
        (body_of(id=7), "id"),
        (body_of(inputs=[json.loads(body_of())["inputs"][0]] * 2), "twice"),
    ],
    ids=map(str, count()),
)
def test_malformed_requests_get_400_that_names_the_fault(
    server: InferenceServer, host: ModelHost, body: bytes, word: str
) -> None:
    host.collect()
    status, answer, _ = call(server, "POST", INFER, body)
    assert status == 400, answer
    assert list(answer) == ["error"]
    assert word in answer["error"]
    [window] = host.collect()
    assert all(kind.startswith("client:") for kind in window.errors)


@pytest.mark.parametrize("place", ["/v2/models/plants/infer", f"/v2/models/{SLOT}/versions/7/infer"])
def test_what_is_not_here_is_404_whatever_the_body_is(server: InferenceServer, place: str) -> None:
    for body, headers in ((b"{", {}), (b"", {}), (b"x", {"Content-Encoding": "gzip"})):
        status, answer, _ = call(server, "POST", place, body, headers)
        assert status == 404, answer
        assert list(answer) == ["error"]


def test_forms_that_are_not_offered_are_told_so(server: InferenceServer) -> None:
    assert call(server, "POST", INFER, b"x", {"Content-Encoding": "gzip"})[0] == 415
    assert call(server, "POST", INFER, b"x", {"Inference-Header-Content-Length": "9"})[0] == 415


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["inputs", "outputs", "name", "shape", "datatype", "data", "id"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_answered_with_json_never_with_500(server: InferenceServer, value: Any) -> None:
    status, answer, _ = call(server, "POST", INFER, json.dumps(value).encode())
    assert status == 400
    assert isinstance(answer["error"], str)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["x", "y", ""]),
            "shape": st.lists(st.integers(-2, 6), max_size=3),
            "datatype": st.sampled_from(["FP32", "FP64", "INT8", "UINT64", "BOOL", "FP16", "BYTES"]),
            "data": st.lists(
                st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans(), max_size=8
            ),
        }
    )
)
def test_any_tensor_is_answered_or_refused(server: InferenceServer, tensor: dict[str, Any]) -> None:
    status, answer, _ = call(server, "POST", INFER, json.dumps({"inputs": [tensor]}).encode())
    assert status in (200, 400), answer


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
def test_garbage_on_the_wire_is_refused_and_the_next_client_served(
    server: InferenceServer, data: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    assert answer == b"" or re.match(rb"HTTP/1\.1 [45]\d\d ", answer)
    assert b"Traceback" not in answer
    assert call(server, "GET", "/v2/health/live")[0] == 200


def message(body: bytes, *, path: str = INFER, extra: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def test_pipelined_requests_are_answered_in_order(server: InferenceServer) -> None:
    bodies = [body_of(id=str(i)) for i in range(40)]
    data = b"".join(message(body) for body in bodies[:-1]) + message(
        bodies[-1], extra="Connection: close\r\n"
    )
    answer = raw(server, data)
    assert [int(i) for i in re.findall(rb'"id":"(\d+)"', answer)] == list(range(40))
    assert answer.count(b"HTTP/1.1 200 OK") == 40


def test_a_slow_answer_does_not_overtake_or_block_other_connections(
    clock: FrozenClock, tmp_path: Path
) -> None:
    host = ModelHost({"onnxruntime": SlowRuntime()}, threads=1, clock=clock)
    host.switch(SLOT, host.prepare(installed(tmp_path)))
    candidate = host.active(SLOT)
    assert candidate is not None
    session: Any = candidate.session
    session.go.clear()
    with serving(host) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(message(body_of(id="slow")))
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert call(server, "GET", "/v2/health/live")[0] == 200
        session.go.set()
        answer = read_all(client)
    assert answer.index(b'"id":"slow"') < answer.index(b'"live"')


def test_a_full_queue_is_503_at_once(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": SlowRuntime()}, threads=1, clock=clock)
    host.switch(SLOT, host.prepare(installed(tmp_path)))
    candidate = host.active(SLOT)
    assert candidate is not None
    session: Any = candidate.session
    session.go.clear()
    results: list[int] = []
    with serving(host, workers=1, queue=2) as server:
        threads = [
            threading.Thread(target=lambda: results.append(call(server, "POST", INFER, body_of())[0]))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(results) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert results == [503] * 5
        session.go.set()
        for thread in threads:
            thread.join(10)
    assert sorted(results) == [200] * 3 + [503] * 5


def test_a_body_over_the_cap_is_413_whether_announced_or_not(host: ModelHost) -> None:
    with serving(host, bounds=Bounds(body_bytes=1000)) as server:
        assert b" 413 " in raw(server, message(b" " * 1001))
        chunks = b"".join(b"64\r\n" + b" " * 100 + b"\r\n" for _ in range(11)) + b"0\r\n\r\n"
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        assert b" 413 " in raw(server, head + chunks)
        huge = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n".encode()
        assert b" 413 " in raw(server, huge)


def test_a_chunked_body_is_understood(server: InferenceServer) -> None:
    body = body_of()
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 200 OK" in raw(server, head.encode() + chunked)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b" 400 "),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b" 400 "),
        (b"NONSENSE\r\n\r\n", b" 400 "),
    ],
    ids=map(str, count()),
)
def test_oversized_or_ambiguous_heads_are_refused(
    server: InferenceServer, head: bytes, status: bytes
) -> None:
    assert status in raw(server, head).split(b"\r\n")[0]


def test_an_upgrade_is_not_taken_and_what_follows_is_not_read(server: InferenceServer) -> None:
    upgrade = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = raw(server, upgrade + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_slow_and_idle_clients_are_shown_the_door(host: ModelHost) -> None:
    with serving(host, bounds=Bounds(request_seconds=0.3, idle_seconds=0.3)) as server:
        slow = message(body_of())[:-5]
        began = time.monotonic()
        assert b" 408 " in raw(server, slow)
        assert raw(server, b"") == b""
        assert time.monotonic() - began < 8


def test_a_client_that_never_reads_is_cut_off(host: ModelHost) -> None:
    with serving(host, bounds=Bounds(write_seconds=0.5)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200
            client.settimeout(0.5)
            deadline = time.monotonic() + 15
            cut = False
            while not cut and time.monotonic() < deadline:
                try:
                    client.sendall(request)
                except TimeoutError:
                    continue
                except (ConnectionResetError, BrokenPipeError):
                    cut = True
        assert cut
        assert call(server, "GET", "/v2/health/live")[0] == 200


def test_too_many_connections_are_refused_not_queued(host: ModelHost) -> None:
    with serving(host, bounds=Bounds(connections=2)) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(2)]
        try:
            time.sleep(0.1)
            assert b" 503 " in raw(server, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        finally:
            for client in held:
                client.close()


def test_keep_alive_and_http_1_0_are_respected(server: InferenceServer) -> None:
    assert b"Connection: close" in raw(server, b"GET /v2 HTTP/1.0\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(message(body_of()))
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_waits_for_100_continue_gets_it(server: InferenceServer) -> None:
    body = body_of()
    data = message(body, extra="Expect: 100-continue\r\nConnection: close\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data[: -len(body)])
        assert client.recv(100).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(body)
        assert b" 200 OK" in read_all(client)


def test_a_client_that_leaves_in_the_middle_harms_nobody(server: InferenceServer) -> None:
    for cut in (10, 80, 200):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(message(body_of())[:cut])
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(message(body_of()))
    assert call(server, "POST", INFER, body_of())[0] == 200


def test_half_closing_clients_get_their_answer(server: InferenceServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(message(body_of()))
        client.shutdown(socket.SHUT_WR)
        assert b" 200 OK" in read_all(client)


def test_stopping_lets_requests_under_way_finish(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": SlowRuntime()}, threads=1, clock=clock)
    host.switch(SLOT, host.prepare(installed(tmp_path)))
    candidate = host.active(SLOT)
    assert candidate is not None
    session: Any = candidate.session
    session.go.clear()
    session.inside.clear()
    results: list[int] = []
    with serving(host) as server:
        thread = threading.Thread(target=lambda: results.append(call(server, "POST", INFER, body_of())[0]))
        thread.start()
        assert session.inside.wait(10)
        threading.Timer(0.2, session.go.set).start()
    thread.join(10)
    assert results == [200]


async def test_a_taken_port_is_an_error_with_a_remedy(server: InferenceServer, host: ModelHost) -> None:
    with pytest.raises(StorageError, match=r"agent\.toml"):
        await InferenceServer(host, port=server.port).start()


def test_metrics_are_histograms_that_agree_with_the_counts(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    host.switch(SLOT, host.prepare(installed(tmp_path)))
    with serving(host) as server:
        for _ in range(4):
            assert call(server, "POST", INFER, body_of())[0] == 200
        assert call(server, "POST", INFER, b"{")[0] == 400
        host.collect()
        status, text, headers = call(server, "GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert re.search(r'edgekit_inference_requests_total\{slot="animals",.*version="1".*\} 5\n', text)
    assert re.search(r'errors_total\{.*origin="client",kind="bad_json"\} 1\n', text)
    for stage in ("queue", "preprocess", "infer", "postprocess", "total"):
        counts = [int(n) for n in re.findall(rf'_bucket{{.*stage="{stage}",le=".*"}} (\d+)', text)]
        assert counts == sorted(counts)
        assert counts[-1] == 4
    assert 'edgekit_http_answers_total{code="200"} 4' in text
    assert 'edgekit_slot_ready{slot="animals"} 1' in text


def test_no_request_fails_over_http_while_models_are_swapped(clock: FrozenClock, tmp_path: Path) -> None:
    host = ModelHost({"onnxruntime": OnnxRuntime()}, threads=1, clock=clock)
    things = [installed(tmp_path / v, version=v) for v in ("1", "2")]
    host.switch(SLOT, host.prepare(things[0]))
    statuses: list[int] = []
    versions: set[str] = set()
    stop = threading.Event()

    def client(server: InferenceServer) -> None:
        while not stop.is_set():
            status, answer, _ = call(server, "POST", INFER, body_of())
            statuses.append(status)
            versions.add(answer.get("model_version", "?"))

    with serving(host) as server:
        threads = [threading.Thread(target=client, args=(server,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(30):
            host.switch(SLOT, host.prepare(things[(turn + 1) % 2]))
            host.commit(SLOT)
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > 100
    assert set(statuses) == {200}
    assert versions == {"1", "2"}


def test_importing_the_server_does_not_import_numpy() -> None:
    program = "import sys, edgekit_agent.serving.http\nassert 'numpy' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_health_and_metrics_need_no_numpy() -> None:
    program = """
import asyncio, sys
from edgekit_agent.serving.host import ModelHost
from edgekit_agent.serving.http import InferenceServer
from tests.conftest import FrozenClock

async def main():
    server = InferenceServer(ModelHost({}, threads=1, clock=FrozenClock()))
    await server.start()
    for path in ("/v2", "/v2/health/live", "/metrics", "/v2/models/x"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
    await server.stop()

asyncio.run(main())
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
