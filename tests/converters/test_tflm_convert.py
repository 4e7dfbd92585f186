"""A microcontroller in `edgekit convert`: executed by TFLM, measured, and refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.package import Manifest, Requirements, load_package, parse_manifest
from edgekit.profile import Budgets, load_profile, profiles_folder
from edgekit_converters.engine.fits import over_budget
from edgekit_converters.engine.plan import Wanted
from tests.conftest import require_package
from tests.converters.conftest import edgekit, profile_options

require_package("tflite_micro", "tflm")

M4 = load_profile("cortex-m4")


@pytest.fixture(scope="module")
def converted(digits: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The digits for two shipped boards and one of 4 KiB of one's own; no Vela."""
    boards, out = tmp_path_factory.mktemp("boards"), tmp_path_factory.mktemp("micro") / "digits"
    text = (profiles_folder() / "cortex-m4.toml").read_text(encoding="utf-8")
    text = text.replace('name = "cortex-m4"', 'name = "tiny"').replace("arena_kb = 192", "arena_kb = 4")
    (boards / "tiny.toml").write_text(text, encoding="utf-8")
    names = profile_options("cortex-m7", "cortex-m55-ethos-u", "tiny")
    options = [*names, "--target", "tflm", "--profiles-dir", boards, "--out", out]
    edgekit("convert", digits / "model.keras", *options, cache=cache, check=(3,))
    return out, load_package(out)


def test_a_variant_for_a_microcontroller_was_executed_and_says_what_it_takes(
    converted: tuple[Path, Manifest],
) -> None:
    out, manifest = converted
    variant = manifest.variant("cortex-m7-tflm-int8")
    assert (variant.verification.method, variant.verification.verdict) == ("executed", "pass")
    assert (variant.verification.runtime, variant.verification.backend) == ("tflm", "reference")
    measured = json.loads((out / "measurements.json").read_text())["variants"][variant.id]
    model = out / variant.folder / "model.tflite"
    assert measured["size_bytes"] == model.stat().st_size
    assert variant.requires.flash_kb == -(-measured["size_bytes"] // 1024)
    assert variant.requires.arena_kb == -(-measured["arena_bytes"] // 1024)
    assert {item.path.rsplit("/", 1)[1] for item in variant.files} >= {"main.cc", "model_data.cc"}


def test_a_board_with_too_little_memory_is_told_what_would_do(converted: tuple[Path, Manifest]) -> None:
    _, manifest = converted
    (refused,) = [item for item in manifest.refused if item.id == "tiny-tflm-int8"]
    assert refused.reason_code == "over_budget"
    assert "KiB of working memory (arena), 4 KiB are there for it" in refused.detail
    assert "it fits cortex-m4" in refused.remedy


def test_without_vela_the_board_with_an_npu_gets_the_plain_file(converted: tuple[Path, Manifest]) -> None:
    out, manifest = converted
    variant = manifest.variant("cortex-m55-ethos-u-tflm-int8")
    assert variant.verification.method == "executed"
    report = json.loads((out / "report" / "report.json").read_text())
    facts = _find(report, "vela")
    assert facts["status"] in ("absent", "prepared")


def test_needs_survive_the_manifest_and_others_have_none(converted: tuple[Path, Manifest]) -> None:
    _, manifest = converted
    again = parse_manifest(manifest.to_bytes())
    assert again.variant("cortex-m7-tflm-int8").requires == manifest.variants[0].requires
    plain = replace(manifest.variants[0], requires=Requirements(runtime="litert"))
    body = replace(manifest, variants=(plain,)).to_dict()
    assert set(body["variants"][0]["requires"]) <= {"runtime", "machines", "cpu_features"}


@pytest.mark.parametrize(
    ("arena", "flash", "words"),
    [
        (193, 1, "needs 193 KiB of working memory (arena), 192 KiB are there"),
        (192, 769, "needs 769 KiB of program memory (flash), 768 KiB are there"),
        (4000, 4000, "(arena), 192 KiB are there for it; it needs 4000 KiB of program memory"),
    ],
)
def test_what_is_one_kib_too_much_is_refused(arena: int, flash: int, words: str) -> None:
    refused = over_budget(_wanted(), Requirements(runtime="tflm", arena_kb=arena, flash_kb=flash))
    assert refused is not None
    assert words in refused.detail
    assert refused.remedy


def test_what_just_fits_and_what_nobody_limits_is_built() -> None:
    exact = Requirements(runtime="tflm", arena_kb=192, flash_kb=768)
    assert over_budget(_wanted(), exact) is None
    assert over_budget(_wanted(), Requirements(runtime="litert")) is None
    free = replace(_wanted(), profile=replace(M4, budgets=Budgets()))
    assert over_budget(free, replace(exact, arena_kb=10**6)) is None


def test_a_finer_precision_is_told_that_int8_is_smaller() -> None:
    needs = Requirements(runtime="tflm", arena_kb=10**6)
    refused = over_budget(replace(_wanted(), precision="fp32"), needs)
    assert refused is not None
    assert refused.remedy.startswith("use int8, a smaller model or input; no shipped profile")


def _wanted() -> Wanted:
    return Wanted(profile=M4, target="tflm", precision="int8", rules="tflm-0")


def _find(value: Any, name: str) -> Any:
    """The first member of that name anywhere in a JSON document."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        value = list(value.values())
    found = (_find(item, name) for item in value) if isinstance(value, list) else ()
    return next((item for item in found if item is not None), None)
