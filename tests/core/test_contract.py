from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.contract import Contract, InputSpec, Metric, OutputSpec, load_contract
from edgekit.digest import canonical_json
from edgekit.errors import ContractError

GOOD = """
[model]
name = "digits"
version = "1.0.0"
tags = ["demo"]
origin = "bespoke"
owner = "Ada"
[model.hyperparameters]
epochs = 16
trained = 2026-11-01

[[inputs]]
name = "image"
dtype = "float32"
shape = [-1, 8, 8, 1]
layout = "NHWC"
meaning = "image"
range = [0, 1]
[inputs.preprocess]
scale = 0.0625

[[outputs]]
name = "probabilities"
task = "classification"
labels = ["zero", "one"]
activation = "softmax"

[[metrics]]
name = "top1"
tolerance = 0.01

[data]
calibration = "calibration.npz"

[serving]
confidence_threshold = 0.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "model.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_contract_survives_the_round_trip(tmp_path: Path) -> None:
    contract = load_contract(write(tmp_path, GOOD))
    again = Contract.from_dict(contract.to_dict())
    assert again == contract
    assert canonical_json(again.to_dict()) == canonical_json(contract.to_dict())
    assert contract.inputs[0].range == (0.0, 1.0)
    assert contract.outputs[0].has_argmax
    assert contract.data.calibration == str(tmp_path / "calibration.npz")
    assert contract.identity["hyperparameters"]["trained"] == "2026-11-01"


def test_an_empty_contract_is_allowed(tmp_path: Path) -> None:
    assert load_contract(write(tmp_path, "")) == Contract()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('dtype = "float32"', 'dtype = "float33"', "inputs[0].dtype"),
        ('dtype = "float32"', 'dtypo = "float32"', "inputs[0].dtypo"),
        ("range = [0, 1]", "range = [1, 0]", "inputs[0].range"),
        ("range = [0, 1]", "range = [0, nan]", "inputs[0].range"),
        ('task = "classification"', 'task = "classify"', "outputs[0].task"),
        ("tolerance = 0.01", "tolerance = -1", "metrics[0].tolerance"),
        ("confidence_threshold = 0.5", "confidence_threshold = 50", "serving.confidence_threshold"),
        ('name = "digits"', 'name = "../digits"', "model.name"),
        ("scale = 0.0625", "std = [0.0]", "inputs[0].preprocess.std"),
        ("scale = 0.0625", "resize = [8]", "inputs[0].preprocess.resize"),
        ("[data]", "[dataa]", "dataa"),
        ("[serving]", "[drift]\nbins = 1\n[serving]", "drift.bins"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    assert caught.value.where == f"{path}: {key}"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("top_1", "did you mean top1"),
        ("accuracy", "pixel_accuracy"),
        ("zzz", "known: auc, mae, map, map50, miou, pixel_accuracy, recall1, rmse, top1, top5"),
        ("rmse", "its metrics: top1, top5, auc"),
    ],
)
def test_a_metric_that_nothing_would_judge_is_refused(tmp_path: Path, name: str, remedy: str) -> None:
    path = write(tmp_path, GOOD.replace('name = "top1"', f'name = "{name}"', 1))
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    assert caught.value.where == f"{path}: metrics[0].name"
    assert remedy in (caught.value.remedy or "")


def test_a_package_of_a_newer_version_may_have_other_metrics() -> None:
    body = {"metrics": [{"name": "bleu", "tolerance": 0.1}]}
    assert Contract.from_dict(body).metrics[0].name == "bleu"


def test_an_unknown_key_is_answered_with_all_that_are_allowed_whether_read_so_far_or_not(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, GOOD.replace('dtype = "float32"', 'rang = "float32"', 1))
    with pytest.raises(ContractError) as caught:
        load_contract(path)
    remedy = caught.value.remedy or ""
    assert "did you mean range, meaning?" in remedy
    assert "known: dtype, layout, meaning, name, preprocess, range, shape" in remedy


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = '[[inputs]]\nname = "x"\n[[inputs]]\nname = "x"\n'
    with pytest.raises(ContractError, match="same name"):
        load_contract(write(tmp_path, twice))


def test_a_missing_contract_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"nowhere\.toml"):
        load_contract(tmp_path / "nowhere.toml")


def test_members_of_a_newer_version_survive() -> None:
    newer = {"model": {"name": "m", "colour": "red"}, "inputs": [{"name": "x", "unit": "m"}], "future": [1]}
    again = Contract.from_dict(newer).to_dict()
    assert again["future"] == [1]
    assert again["model"]["colour"] == "red"


_names = st.text("abcXYZ019._+-", min_size=1, max_size=12).map(lambda text: "n" + text)


@given(
    name=_names,
    inputs=st.lists(_names, unique=True, max_size=3),
    labels=st.lists(st.text(max_size=8), max_size=4),
    tolerance=st.floats(0, 1, allow_nan=False),
)
def test_any_contract_survives_json(
    name: str, inputs: list[str], labels: list[str], tolerance: float
) -> None:
    contract = Contract(
        name=name,
        inputs=tuple(InputSpec(name=item, shape=(-1, 3)) for item in inputs),
        outputs=(OutputSpec(name="y", labels=tuple(labels)),),
        metrics=(Metric(name="top1", tolerance=tolerance),),
    )
    assert Contract.from_dict(contract.to_dict()) == contract
