"""The report: one file that loads nothing, says what the manifest says, and escapes what users write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.package import Requirements, Variant, Verification
from edgekit_converters.engine.convert import convert
from edgekit_converters.engine.pool import Pool
from edgekit_converters.engine.request import Request
from edgekit_converters.report.choice import choice
from edgekit_converters.report.coverage import compiled, coverage, together
from edgekit_converters.report.panels import layers
from edgekit_converters.report.plot import Point, kinds_of, scatter
from edgekit_converters.report.words import in_short, sentences
from edgekit_converters.targets.onnx.web.browser import Browser
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
        profiles=("x86-64-onnx", "iphone-12", "iphone-17-pro"),
        precisions=("onnx:int8", "onnx:fp32", "coreml:int8"),
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
    assert links.found == ["link href", "link"]  # the icon, which holds no bytes
    assert '<link rel="icon" href="data:,">' in page
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
    assert "unsupported_precision" in page
    assert data["package"] in page


def test_layers_of_a_quantized_variant_are_drawn_and_escaped() -> None:
    drawn = layers([{"name": NASTY, "op": "Conv", "snr": 31.5}, {"name": "b", "op": "Gemm", "snr": -3.0}])
    assert drawn.count("<rect") == 2
    assert "<script" not in drawn
    assert "31.5 dB" in drawn


def test_the_plot_escapes_and_places_its_points() -> None:
    points = [
        Point(label=NASTY, precision="int8", x=10.0, quality=0.9),
        Point(label="b", precision="fp32", x=40.0, quality=0.9, ran="emulated"),
    ]
    svg = scatter(points, "top-1 accuracy", "size in kB")
    assert "<script" not in svg
    assert svg.count("<circle") == svg.count("<polygon") == 1
    centres = [float(x) for x in re.findall(r'c?x="([\d.]+)" cy', svg)]
    assert centres == sorted(centres)
    assert scatter([], "x", "y") == ""


def test_labels_of_a_plot_hide_neither_each_other_nor_a_dot() -> None:
    points = [
        Point(label=f"runtime int8 {i}", precision="int8", x=20.0 + i % 3, quality=0.9) for i in range(9)
    ]
    svg = scatter(points, "top1", "size in kB")
    marks = re.findall(r'class="mark (\w+)" x="([\d.]+)" y="([\d.]+)">([^<]+)', svg)
    assert 0 < len(marks) < len(points)  # what has no room is left to its dot's title
    assert len({(x, y) for _, x, y, _ in marks}) == len(marks)
    assert svg.count("<title>") == len(points)


def test_an_axis_has_numbers_also_where_everything_lies_close_together() -> None:
    points = [Point(label=str(x), precision="w8", x=x, quality=0.9) for x in (230.0, 260.0)]
    ticks = re.findall(r'class="tick middle"[^>]*>([^<]+)<', scatter(points, "top1", "latency"))
    assert 3 <= len(ticks) <= 6
    assert all(150 < float(tick) < 400 for tick in ticks)
    assert kinds_of(points) == ["other"]


def test_the_front_joins_only_what_nothing_beats() -> None:
    points = [
        Point(label="a", precision="int8", x=10.0, quality=0.90),
        Point(label="b", precision="fp16", x=20.0, quality=0.95),
        Point(label="worse", precision="w8", x=30.0, quality=0.93),
    ]
    (front,) = re.findall(r'class="front" points="([^"]+)"', scatter(points, "top1", "size in kB"))
    assert len(front.split()) == 2


def variant(**changes: Any) -> Variant:
    """A variant that something ran, changed."""
    check = Verification(
        method="executed",
        verdict="pass",
        runtime="litert",
        runtime_version="2.3.0",
        backend="xnnpack",
        machine="x86_64",
    )
    facts: dict[str, Any] = {
        "id": "rpi4-tflite-int8",
        "digest": "sha256:" + "0" * 64,
        "profile": "rpi4",
        "target": "tflite",
        "precision": "int8",
        "files": (),
        "requires": Requirements(runtime="litert"),
        "inputs": (),
        "outputs": (),
        "verification": check,
        "probe": None,
        "route": "",
    }
    return Variant(**{**facts, **changes})


def test_what_ran_and_what_did_not_is_said_in_words() -> None:
    prepared = Verification(method="prepared", verdict="unverified", metrics={"why": "prepared: no Chromium"})
    emulated = Verification(
        method="emulated", verdict="pass", runtime="edgekit", runtime_version="1", machine="x86_64"
    )
    found = sentences(
        [
            variant(),
            variant(id="rpi4-tflite-fp32", precision="fp32"),
            variant(id="a-coreml-fp16", profile="a", target="coreml", verification=emulated),
            variant(id="web-wasm-onnx-fp32", verification=prepared),
        ]
    )
    assert [method for method, _ in found] == ["executed", "emulated", "prepared", "where"]
    assert found[0][1].startswith("2 tflite variants for rpi4, int8 and fp32: run by litert 2.3.0 (xnnpack)")
    assert "own runtime did not run" in found[1][1]
    assert "web-wasm-onnx-fp32: built and checked as a file, not run (no Chromium)" in found[2][1]
    assert "no variant has run on the device" in found[3][1]
    assert in_short([variant(), variant(verification=prepared)]) == (
        "1 executed, 1 prepared; none has run on the device it is for"
    )


def test_operators_are_counted_where_they_run_and_the_left_out_ones_have_reasons() -> None:
    facts = {
        "ops": {"Conv": 3, "QuantizeLinear": 9},
        "quantization": {"float_ops": {"n": "Softmax: no_rule"}},
    }
    found = coverage(variant(), facts)
    assert found is not None
    assert found.places == (("litert (xnnpack)", 3),)
    assert [(item.op, item.reason_code) for item in found.kept] == [("Softmax stays in float", "no_rule")]


def test_a_target_that_partitions_says_itself_what_its_accelerator_takes() -> None:
    refused = {"op": "Resize", "reason_code": "mode", "detail": "linear only", "remedy": "use nearest"}
    facts = {"ops": {"Conv": 5}, "coverage": {"places": {"C7x": 4, "CPU": 1}, "refused": [refused]}}
    found = coverage(variant(), facts)
    assert found is not None
    assert (found.places, found.total) == ((("C7x", 4), ("CPU", 1)), 5)
    assert (found.kept[0].reason_code, found.kept[0].remedy) == ("mode", "use nearest")


def test_a_file_that_vela_made_is_shown_beside_the_one_that_ran() -> None:
    facts = {"ops": {"CONV_2D": 2}, "vela": {"npu_ops": 10, "cpu_ops": 1, "on_cpu": ["SOFTMAX"]}}
    own, other = coverage(variant(), facts), compiled(variant(), facts)
    assert own is not None
    assert other is not None
    assert (own.ran, own.places) == ("executed", (("litert (xnnpack)", 2),))
    assert (other.ran, other.places) == ("prepared", (("Ethos-U", 10), ("CPU", 1)))
    assert other.kept[0].op == "SOFTMAX"
    assert compiled(variant(), {"vela": {"status": "absent"}}) is None


def test_what_was_only_emulated_claims_no_processor() -> None:
    emulated = Verification(method="emulated", verdict="pass", runtime="edgekit")
    needs = Requirements(runtime="coreml")
    found = coverage(variant(verification=emulated, requires=needs), {"ops": {"conv": 2}})
    assert found is not None
    assert "CPU" not in found.places[0][0]
    assert "was not seen" in found.places[0][0]


def test_variants_that_run_alike_are_shown_together() -> None:
    alike = [coverage(variant(id=name), {"ops": {"Conv": 1}}) for name in ("a", "b")]
    other = coverage(variant(id="c"), {"ops": {"Conv": 2}})
    assert [item.ids for item in together(filter(None, [*alike, other]))] == [("a", "b"), ("c",)]


def test_a_bundle_for_tidl_shows_its_partition() -> None:
    arm = {"op": "Softmax", "node": "n", "reason_code": "no_lookup_activation", "detail": "d", "remedy": "r"}
    facts = {"accelerated_nodes": 13, "op_count": 14, "subgraphs": 1, "soc": "AM62A", "arm": [arm]}
    found = coverage(variant(), {**facts, "quantization": {"float_ops": {"n": "Softmax: kept_float"}}})
    assert found is not None
    assert found.places == (("the accelerator of AM62A", 13), ("Arm cores", 1))
    assert [(item.op, item.reason_code) for item in found.kept] == [("Softmax", "no_lookup_activation")]
    assert "not TI's" in found.note


def candidate(name: str, **changes: Any) -> dict[str, Any]:
    """A candidate as the search documents it."""
    figures = {
        "top1": {"value": 0.97, "from": "built", "text": "0.9700"},
        "size": {"value": 20_000.0, "from": "built", "text": "20.0 kB"},
        "latency": {"value": 1500.0, "from": "host", "text": "1.5 ms"},
    }
    found = {"id": name, "target": "tflite", "precision": "int8", "refusal": None, "decisive": "top1"}
    return {
        **found,
        "figures": figures,
        "bounds": {"size<50kB": "met"},
        "front": True,
        "picked": False,
        **changes,
    }


def test_a_search_under_a_budget_shows_its_front_and_its_choice() -> None:
    tried = [
        candidate("rpi4-tflite-int8", picked=True),
        candidate("rpi4-tflite-fp32", bounds={"size<50kB": "missed", "latency<2ms": "unknown"}, front=False),
        candidate("rpi4-tflite-fp16", figures={}, decisive=None, refusal=NASTY, front=False),
    ]
    said = [{"profile": "rpi4", "picked": "rpi4-tflite-int8", "why": "smallest", "would_fit": None}]
    found = choice({"budget": "size<50kB", "candidates": tried, "choices": said})
    assert found is not None
    assert [row["mark"] for row in found["rows"]] == ["picked", "", ""]
    assert found["rows"][0]["cells"] == ["top1 0.9700", "1.5 ms on this machine", "20.0 kB"]
    assert found["rows"][0]["said"] == "keeps all bounds"
    assert found["rows"][1]["said"] == "misses size<50kB, latency<2ms is unknown"
    assert found["rows"][2]["said"] == NASTY
    assert len(found["plots"]) == 2
    assert all("✔" in plot for plot in found["plots"])
    assert choice(None) is None


CONTRAST = """
(() => {
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255;
    return sum + weight * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (element) => {
    const below = element.parentElement ? ground(element.parentElement) : [255, 255, 255];
    return over(rgba(getComputedStyle(element).backgroundColor), below);
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || ["STYLE", "TITLE", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const under = ground(element.closest("svg") ? element.closest("svg").parentElement : element);
    const text = over(rgba(element.closest("svg") ? style.fill : style.color), under);
    const [high, low] = [light(text), light(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const key = `${element.tagName}.${element.className.baseVal ?? element.className}`;
    found[key] = Math.min(found[key] ?? 99, ratio);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser(require_service("chromium"))
    yield found
    found.close()


def show(browser: Browser, page: Path, *, width: int, scheme: str) -> None:
    """Open the page in a window of this width, all details open."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", features=media)
    browser.open(page.as_uri())
    browser.value("document.querySelectorAll('details').forEach(item => { item.open = true })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_colour_schemes(report: Path, browser: Browser, scheme: str) -> None:
    show(browser, report / "index.html", width=1200, scheme=scheme)
    ratios = browser.value(CONTRAST)
    assert len(ratios) > 20
    assert {kind: round(ratio, 2) for kind, ratio in ratios.items() if ratio < 4.5} == {}
    dark = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(14, 19, 26)") is (scheme == "dark")


@pytest.mark.parametrize("width", [320, 400, 800, 1600])
def test_the_page_never_scrolls_sideways(report: Path, browser: Browser, width: int) -> None:
    show(browser, report / "index.html", width=width, scheme="light")
    wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('svg, .scroll')"
    beyond = browser.value(
        f"{wide} && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"
    )
    assert beyond == []
    assert browser.value("document.documentElement.scrollWidth") == width


def test_a_browser_draws_the_page_and_asks_for_nothing_else(report: Path, browser: Browser) -> None:
    browser.requests.clear()
    page = report / "index.html"
    show(browser, page, width=1200, scheme="light")
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.errors == []
    drawn = browser.value(
        "[...document.querySelectorAll('.plots svg')]"
        ".map(e => [e.getBoundingClientRect().width, e.querySelectorAll('.dot').length])"
    )
    assert len(drawn) == 2
    assert all(width > 300 and dots >= 2 for width, dots in drawn)
