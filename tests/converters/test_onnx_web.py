"""onnxruntime-web in headless Chromium: it computes what onnxruntime does, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.errors import Refusal, ToolFailed
from edgekit_converters.onnx_session import OnnxSession
from edgekit_converters.review.verify import verify_package
from edgekit_converters.sidecars import WEB
from edgekit_converters.targets import load_target
from edgekit_converters.targets.onnx.web import session as web
from edgekit_converters.targets.onnx.web.server import Server
from edgekit_converters.targets.onnx.web.session import Page, WebSession
from edgekit_converters.targets.onnx.web.tool import tools
from tests.conftest import missing, require_service
from tests.converters.graphs import GraphBuilder, save, small_cnn

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """The page of this process."""
    require_service("chromium")
    if WEB.ready() is None:
        missing("onnxruntime-web is not installed (edgekit tools install web)")
    found = tools()
    assert found is not None
    yield web.the_page(*found)
    web.close_pages()


def fresh() -> Page:
    found = tools()
    assert found is not None
    return web.the_page(*found)


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    return save(small_cnn(), tmp_path / "cnn.onnx")


def processes(word: str) -> list[int]:
    """Processes whose command line holds `word`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def gone(word: str, folder: Path, seconds: float = 15.0) -> bool:
    """Whether all processes with `word` end in time, and their folder with them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not processes(word) and not folder.exists():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("kernels", ["optimized", "as-written"])
def test_the_browser_computes_what_onnxruntime_does(page: Page, cnn: Path, kernels: str) -> None:
    x = np.random.default_rng(0).random((70, 3, 8, 8), np.float32)  # more than one step
    expected = OnnxSession(cnn).run({"x": x})
    session = WebSession(fresh(), cnn, kernels=kernels, threads=2)
    assert "2 threads" in session.backend
    found = session.run({"x": x})
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_every_type_of_number_comes_back_as_it_went(page: Page, tmp_path: Path, kind: str) -> None:
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ports = [helper.make_tensor_value_info(name, number, [2, "N"]) for name in ("a", "b")]
    extra = helper.make_tensor_value_info("c", TensorProto.INT64, [2])
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Shape", ["a"], ["c"])]
    graph = helper.make_graph(nodes, "g", [ports[0]], [ports[1], extra])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    found = WebSession(fresh(), save(model, tmp_path / "m.onnx"), kernels="optimized", threads=1).run(
        {"a": values}
    )
    assert found["b"].dtype == values.dtype
    np.testing.assert_array_equal(found["b"], values)
    assert found["c"].tolist() == [2, 3]


def test_a_file_that_the_runtime_refuses_is_a_refusal_and_the_browser_goes_on(
    page: Page, tmp_path: Path, cnn: Path
) -> None:
    unknown = onnx.load(cnn)
    unknown.graph.node[0].op_type = "Convolve"
    with pytest.raises(Refusal) as caught:
        WebSession(fresh(), save(unknown, tmp_path / "u.onnx"), kernels="optimized", threads=1)
    assert caught.value.code == "runtime_refused"
    assert "Convolve" in caught.value.message
    assert "http" not in caught.value.message  # the port and the word are others each time
    browser = fresh().browser
    assert WebSession(fresh(), cnn, kernels="optimized", threads=1).inputs == ["x"]
    assert fresh().browser is browser


def test_a_page_that_hangs_is_ended_in_time_with_all_its_processes(
    page: Page, cnn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = WebSession(fresh(), cnn, kernels="optimized", threads=1)
    hung = fresh()
    folder = hung.browser._folder
    hung.browser.value("edgekit.run = () => { for (;;); }, 0")
    monkeypatch.setattr(web, "_RUN", 1.0)
    started = time.monotonic()
    with pytest.raises(ToolFailed) as caught:
        session.run({"x": np.zeros((1, 3, 8, 8), np.float32)})
    assert caught.value.code == "tool_timeout"
    assert time.monotonic() - started < 10
    assert gone(folder.name, folder)
    assert fresh().browser.alive


def test_a_browser_that_crashes_is_reported_and_replaced(page: Page, cnn: Path) -> None:
    session = WebSession(fresh(), cnn, kernels="optimized", threads=1)
    crashed = fresh()
    folder = crashed.browser._folder
    renderers = [pid for pid in processes(folder.name) if b"--type=" not in _command(pid)]
    for pid in renderers[1:]:  # the first is the keeper
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ToolFailed, match="ended"):
        session.run({"x": np.zeros((1, 3, 8, 8), np.float32)})
    assert gone(folder.name, folder)
    assert WebSession(fresh(), cnn, kernels="optimized", threads=1).inputs == ["x"]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"--type=gone"


def test_a_killed_worker_leaves_no_browser_and_no_folder(page: Page) -> None:
    script = (
        "from edgekit_converters.targets.onnx.web.tool import tools\n"
        "from edgekit_converters.targets.onnx.web.session import the_page\n"
        "print(the_page(*tools()).browser._folder, flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        folder = Path(worker.stdout.readline().strip())
        assert processes(folder.name)
        worker.kill()
    assert gone(folder.name, folder)


def test_the_server_gives_nothing_without_its_word_nor_outside_its_folder(tmp_path: Path) -> None:
    scripts = tmp_path / "dist"
    scripts.mkdir()
    (tmp_path / "secret.js").write_text("secret")
    server = Server(scripts)
    server.blobs["model"] = b"bytes"
    try:
        base = server.url.removesuffix("page.html")
        with urllib.request.urlopen(f"{base}model", timeout=5) as answer:
            assert answer.read() == b"bytes"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        host = base.split("/", 3)[2]
        for url in (
            f"http://{host}/model",
            f"http://{host}/x/model",
            f"{base}ort/../secret.js",
            f"{base}ort/no.js",
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url, timeout=5)
            caught.value.close()
            assert caught.value.code == 404
    finally:
        server.close()


def test_without_its_tools_a_variant_for_pages_is_prepared_and_says_so(
    cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_TOOLS", str(tmp_path / "none"))  # workers of its own: they inherit it
    out = tmp_path / "out"
    request = Request(
        source=cnn, profiles=("web-wasm",), precisions=("fp32",), out=out, cache=tmp_path / "cache"
    )
    (found,) = convert(request).manifest.variants
    assert (found.verification.method, found.verification.verdict) == ("prepared", "unverified")
    assert found.requires.runtime == "ort-web"
    assert found.probe is None
    assert "edgekit tools install web" in found.verification.metrics["why"]


def test_the_usual_runtime_of_onnx_files_is_unchanged() -> None:
    assert load_target("onnx").runtime == load_target("onnx", "onnxruntime").runtime == "onnxruntime"
    assert load_target("onnx", "ort-web").runtime == "ort-web"


CONTRACT = """
[model]
name = "digits"
version = "1"
[[outputs]]
name = "probabilities"
task = "classification"
activation = "softmax"
[data]
calibration = "calibration.npz"
validation = "validation.npz"
[[metrics]]
name = "top1"
tolerance = 0.02
"""


def trained_digits(folder: Path) -> Path:
    """A small network of scikit-learn on its digits, as an ONNX file, with contract and data beside it."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    data = load_digits()
    images = (data.data / 16).astype(np.float32)
    learnt = MLPClassifier((32,), max_iter=300, random_state=0, tol=0.01).fit(
        images[:1200], data.target[:1200]
    )
    g = GraphBuilder((64,))
    y = "x"
    for weight, bias in zip(learnt.coefs_, learnt.intercepts_, strict=True):
        y = g.op("Relu", y) if y != "x" else y
        y = g.op("Gemm", y, g.constant(weight.astype(np.float32)), g.constant(bias.astype(np.float32)))
    g.nodes.append(helper.make_node("Softmax", [y], ["probabilities"], axis=-1))
    (folder / "model.toml").write_text(CONTRACT)
    np.savez(folder / "calibration.npz", x=images[:200])
    np.savez(folder / "validation.npz", x=images[1200:], labels=data.target[1200:])
    return save(g.model("probabilities", (10,)), folder / "model.onnx")


def test_digits_run_in_the_browser_and_keep_their_accuracy(
    page: Page, workers: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(
        source=trained_digits(tmp_path),
        profiles=("web-wasm", "x86-64-onnx"),
        precisions=("fp32", "int8"),
        out=tmp_path / "web",
        cache=tmp_path / "cache",
    )
    found = {item.id: item for item in convert(request, pool=workers).manifest.variants}
    for precision in ("fp32", "int8"):
        variant = found[f"web-wasm-onnx-{precision}"]
        check = variant.verification
        assert (check.method, check.verdict, check.runtime) == ("executed", "pass", "ort-web")
        assert check.runtime_version == WEB.version
        assert "wasm" in str(check.backend)
        other = found[f"x86-64-onnx-onnx-{precision}"]
        assert variant.files[0].sha256 == other.files[0].sha256
        assert check.metrics["top1"]["source"] > 0.88
        assert check.metrics["top1"]["variant"] == other.verification.metrics["top1"]["variant"]
        assert variant.requires.min_runtime == "1.20.0"
    probed = [item for item in verify_package(tmp_path / "web").checks if item.check == "probes"]
    assert [item.result for item in probed] == ["ok"] * 4
    monkeypatch.setenv("EDGEKIT_TOOLS", str(tmp_path / "none"))
    probed = [item for item in verify_package(tmp_path / "web").checks if item.check == "probes"]
    assert [item.result for item in probed] == ["skipped", "skipped", "ok", "ok"]
