"""The report: one file that loads nothing, says what the manifest says, and escapes what users write."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.report.panels import layers
from edgekit_converters.report.plot import Point, scatter
from tests.conftest import require_service
from tests.converters.graphs import save, small_cnn

NASTY = '<script>alert("x")</script>&'


@pytest.fixture(scope="module")
def report(workers: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "model.toml").write_text(f'[model]\nname = "cnn"\nversion = "1"\ndescription = \'{NASTY}\'\n')
    random = np.random.default_rng(0).random((64, 3, 8, 8), np.float32)
    np.savez(folder / "cal.npz", random)
    request = Request(
        source=save(small_cnn(), folder / "cnn.onnx"),
        profiles=("x86-64-onnx", "cortex-m4"),
        calibration=folder / "cal.npz",
        out=folder / "out",
        cache=folder / "cache",
        allow_breach=True,
        command=f"edgekit convert {NASTY}",
    )
    convert(request, pool=workers)
    return folder / "out" / "report"


class Links(HTMLParser):
    """Everything that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "data")]
        self.found += [tag] if tag in ("script", "iframe", "link", "object") else []


def test_the_page_loads_and_runs_nothing(report: Path) -> None:
    page = (report / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert links.found == []
    assert not re.search(r"url\(|@import|https?://", page)


def test_what_users_write_is_escaped(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page


def test_every_variant_and_refusal_is_shown_with_what_ran(report: Path) -> None:
    page = (report / "index.html").read_text()
    data = json.loads((report / "report.json").read_text())
    for item in (*data["manifest"]["variants"], *data["manifest"]["refused"]):
        assert item["id"] in page
    assert "onnxruntime 1." in page
    assert "target_not_installed" in page
    assert data["package"] in page


def test_layers_of_a_quantized_variant_are_drawn_and_escaped() -> None:
    drawn = layers([{"name": NASTY, "op": "Conv", "snr": 31.5}, {"name": "b", "op": "Gemm", "snr": -3.0}])
    assert drawn.count("<rect") == 2
    assert "<script" not in drawn
    assert "31.5 dB" in drawn


def test_the_plot_escapes_and_places_its_points() -> None:
    points = [
        Point(label=NASTY, precision="int8", size=10.0, quality=0.9, latency=20.0),
        Point(label="b", precision="fp32", size=40.0, quality=0.9, latency=None),
    ]
    svg = scatter(points, "top-1 accuracy")
    assert "<script" not in svg
    centres = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert centres == sorted(centres)
    assert scatter([], "x") == ""


def test_a_browser_draws_the_page(report: Path, tmp_path: Path) -> None:
    chromium = require_service("chromium")
    picture = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    page = (report / "index.html").as_uri()
    command = [str(chromium), *options, profile, "--window-size=1200,900", f"--screenshot={picture}", page]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert picture.stat().st_size > 20_000
