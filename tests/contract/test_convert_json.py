"""`edgekit convert --json`: standard output is one document, and its members stay what scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.contract import METRICS
from tests.converters.conftest import edgekit
from tests.converters.graphs import save, small_cnn

GOLDEN = Path(__file__).parent / "golden" / "cli" / "convert.json"
_MEASURED = (int, float)


def shape_of(value: Any) -> Any:
    """The document's form: names, words and order stay; figures and digests become their kind."""
    if isinstance(value, dict):
        return {key: shape_of(member) for key, member in sorted(value.items())}
    if isinstance(value, list):
        return [shape_of(member) for member in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, _MEASURED):
        return "<number>"
    return _word(str(value))


def _word(text: str) -> str:
    digest = text.removeprefix("sha256:")
    if len(digest) == 64 and set(digest) <= set("0123456789abcdef"):
        return "<digest>"
    return text


def _normal(document: dict[str, Any]) -> Any:
    """Without what hangs on the machine: place, clock, versions and the figures in a sentence."""
    document["out"] = "<folder>"
    measured = document["measurements"]
    measured["at"], measured["host"] = "<time>", {key: f"<{key}>" for key in measured["host"]}
    for figures in measured["variants"].values():
        if "version" in figures:
            figures["version"] = "<version>"
    for variant in document["variants"]:
        check = variant["verification"]
        check["runtime_version"], check["machine"] = "<version>", "<machine>"
        check["on_target"] = "<on_target>"
        check["metrics"]["why"] = "<sentence>"
        variant["requires"] = {key: f"<{key}>" for key in variant["requires"]}
    return shape_of(document)


def test_the_document_of_convert_keeps_its_members(tmp_path: Path) -> None:
    model = save(small_cnn(), tmp_path / "cnn.onnx")
    options = ("--profile", "x86-64-onnx", "--out", tmp_path / "out", "--json")
    done = edgekit("convert", model, *options, cache=tmp_path / "cache", check=(3,))
    document = json.loads(done.out)
    package = json.loads((tmp_path / "out" / "package.json").read_text())
    assert document["variants"] == package["variants"]
    assert document["refused"] == package["refused"]
    for file in document["variants"][0]["files"]:
        assert (tmp_path / "out" / file["path"]).stat().st_size == file["bytes"]
    found = _normal(document)
    found["ref"] = found["ref"].partition("+")[0]
    found["measurements"]["ref"] = found["ref"]
    assert found == json.loads(GOLDEN.read_text())


def test_the_metrics_of_contracts_are_the_ones_that_conversion_judges() -> None:
    from edgekit_converters.verify.tasks import FIGURES

    assert FIGURES == METRICS
