from __future__ import annotations

import pytest

from edgekit.errors import DataError, UsageError
from edgekit.profile import load_profile
from edgekit_converters.engine.deployment import deployed, left_out
from edgekit_converters.engine.plan import Plan, make_plan

INSTALLED = ("coreml", "onnx", "tensorrt", "tflite")


def plan(
    *profiles: str, targets: tuple[str, ...] = (), precisions: tuple[str, ...] = (), data: bool = True
) -> Plan:
    return make_plan(
        [load_profile(name) for name in profiles],
        targets=targets,
        precisions=precisions,
        installed=INSTALLED,
        has_calibration=data,
    )


def ids(found: Plan) -> list[str]:
    return [item.id for item in found.wanted]


def test_defaults_are_the_profiles_in_its_order_of_preference() -> None:
    assert ids(plan("rpi4", "iphone-15")) == [
        "rpi4-tflite-int8",
        "rpi4-tflite-fp16",
        "rpi4-tflite-fp32",
        "iphone-15-coreml-fp16",
    ]


def test_int8_named_without_calibration_is_a_usage_error() -> None:
    with pytest.raises(DataError) as caught:
        plan("rpi4", precisions=("int8",), data=False)
    assert caught.value.code == "needs_calibration"
    assert caught.value.exit_code == 2


def test_default_int8_without_calibration_is_refused_and_the_rest_is_built() -> None:
    found = plan("rpi4", data=False)
    assert ids(found) == ["rpi4-tflite-fp16", "rpi4-tflite-fp32"]
    assert [(item.id, item.reason_code) for item in found.refused] == [
        ("rpi4-tflite-int8", "needs_calibration")
    ]
    assert "--calibration" in found.refused[0].remedy


def test_all_means_every_precision_of_the_target() -> None:
    assert ids(plan("x86-64-onnx", precisions=("all",))) == ["x86-64-onnx-onnx-int8", "x86-64-onnx-onnx-fp32"]


def test_a_named_precision_goes_to_the_profiles_that_take_it() -> None:
    found = plan("rpi4", "jetson-orin-nano", precisions=("fp32", "fp16"))
    tensorrt = [f"jetson-orin-nano-tensorrt-{name}" for name in ("fp16", "fp32")]
    assert ids(found) == ["rpi4-tflite-fp16", "rpi4-tflite-fp32", "jetson-orin-nano-onnx-fp32", *tensorrt]
    assert found.refused == ()


def test_a_precision_with_a_target_is_for_that_target_alone() -> None:
    found = plan("rpi4", "x86-64-onnx", "iphone-15", precisions=("int8", "coreml:fp16"))
    assert ids(found) == ["rpi4-tflite-int8", "x86-64-onnx-onnx-int8", "iphone-15-coreml-fp16"]


def test_a_target_without_a_precision_of_its_own_has_its_defaults() -> None:
    found = plan("x86-64-onnx", "iphone-15", precisions=("onnx:int8",))
    assert ids(found) == ["x86-64-onnx-onnx-int8", "iphone-15-coreml-fp16"]


def test_a_profile_that_takes_none_of_the_precisions_is_refused() -> None:
    found = plan("iphone-12", precisions=("int8",))
    assert [item.reason_code for item in found.refused] == ["unsupported_precision"]


def test_a_named_target_without_defaults_builds_all_it_takes() -> None:
    assert ids(plan("rpi4", targets=("onnx",))) == ["rpi4-onnx-int8", "rpi4-onnx-fp32"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ("tflight",)}, "tflite"),
        ({"targets": ("coreml",)}, "tflite"),
        ({"precisions": ("in8",)}, "int8"),
        ({"precisions": ("onnx:in8",)}, "int8"),
        ({"precisions": ("onnx:int8",)}, "--target onnx"),
        ({"precisions": ("tflit:int8",)}, "tflite"),
    ],
)
def test_unknown_words_get_suggestions(options: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan("rpi4", **options)  # type: ignore[arg-type]  # only the two tuples are given


def test_a_target_that_is_not_installed_is_refused() -> None:
    found = plan("cortex-m4")
    assert found.wanted == ()
    assert found.refused[0].reason_code == "target_not_installed"


def test_equal_artifacts_are_built_once() -> None:
    found = plan("rpi4", "x86-64-litert")
    assert len({item.build_key for item in found.wanted}) == 3


def test_a_newer_ios_brings_the_precisions_that_it_has() -> None:
    profile = deployed(load_profile("iphone-12"), "iOS18")
    target = profile.target("coreml")
    assert target.options["deployment_target"] == "iOS18"
    assert {"int8", "int4"} <= set(target.precisions)
    assert target.default == ("fp16",)


def test_an_ios_version_without_rules_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="iOS19") as caught:
        deployed(load_profile("iphone-12"), "iOS19")
    assert caught.value.code == "unknown_deployment_target"


def test_all_on_an_older_ios_says_what_it_leaves_out() -> None:
    before = [load_profile("iphone-15")]
    after = [deployed(before[0], "iOS15")]
    (said,) = left_out(before, after, ["all"])
    assert "int8" in said
    assert "sparse75" in said
    assert "iOS15" in said
    assert not list(left_out(before, before, ["all"]))
    assert not list(left_out(before, after, ["fp16"]))


def test_a_precision_that_one_profile_has_not_is_left_out_aloud() -> None:
    found = plan("rpi4", "x86-64-onnx", precisions=("fp16", "fp32"))
    assert found.notes == ("x86-64-onnx has no fp16 on onnx: left out",)


def test_compressed_variants_come_besides_the_precisions_where_the_rules_know_a_gain() -> None:
    found = make_plan(
        [load_profile(name) for name in ("iphone-15", "iphone-12", "rpi4")],
        targets=(),
        precisions=("fp32",),
        installed=INSTALLED,
        has_calibration=True,
        compressions=("pruned",),
    )
    assert ids(found) == [
        "iphone-15-coreml-fp32",
        "iphone-15-coreml-pruned",
        "iphone-12-coreml-fp32",
        "rpi4-tflite-fp32",
    ]
    assert {item.id: item.reason_code for item in found.refused} == {
        "iphone-12-coreml-pruned": "no_gain",
        "rpi4-tflite-pruned": "no_gain",
    }


def test_pruning_without_calibration_data_is_refused() -> None:
    found = make_plan(
        [load_profile("iphone-15")],
        targets=(),
        precisions=(),
        installed=INSTALLED,
        has_calibration=False,
        compressions=("pruned", "clustered"),
    )
    assert [(item.id, item.reason_code) for item in found.refused] == [
        ("iphone-15-coreml-pruned", "needs_calibration")
    ]


def test_pruned_is_asked_for_by_its_option() -> None:
    with pytest.raises(UsageError) as caught:
        plan("iphone-15", precisions=("pruned",))
    assert caught.value.remedy == "give --prune"
