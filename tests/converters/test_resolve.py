from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.contract import Contract, InputSpec, Metric, OutputSpec
from edgekit.errors import ContractError
from edgekit.package import Tensor
from edgekit_converters.resolve import LabelFacts, Resolved, resolve, with_labels
from edgekit_converters.values import Signature, Source

SOURCE = Source(path="/models/my model.keras", kind="keras", digest="ab" * 32, bytes=1)
MODEL = Signature(
    inputs=(Tensor(name="keras_tensor_1", dtype="float32", shape=(-1, 8, 8, 1)),),
    outputs=(Tensor(name="dense", dtype="float32", shape=(-1, 10)),),
    activation="softmax",
)


def labelled(found: Resolved, highest: int) -> Resolved:
    return with_labels(found, LabelFacts(highest=highest, per_sample=1))


def test_without_a_contract_everything_is_inferred() -> None:
    found = resolve(Contract(), MODEL, SOURCE, where="model.toml")
    assert (found.contract.name, found.contract.version) == ("my-model", "0.0.0+abababab")
    assert found.contract.outputs[0].task == "classification"
    assert found.classifier == "dense"


def test_ports_take_the_contracts_names_by_place() -> None:
    contract = Contract(inputs=(InputSpec(name="image"),), outputs=(OutputSpec(name="y"),))
    found = resolve(contract, MODEL, SOURCE, where="model.toml")
    assert found.names == {"keras_tensor_1": "image", "dense": "y"}
    assert found.inputs[0].shape == (-1, 8, 8, 1)


@pytest.mark.parametrize(
    ("contract", "key"),
    [
        (Contract(inputs=(InputSpec(name="a"), InputSpec(name="b"))), "inputs"),
        (Contract(inputs=(InputSpec(name="a", dtype="uint8"),)), "inputs.a.dtype"),
        (Contract(inputs=(InputSpec(name="a", shape=(-1, 1, 8, 8)),)), "inputs.a.shape"),
        (Contract(inputs=(InputSpec(name="a", shape=(-1, 64)),)), "inputs.a.shape"),
        (Contract(outputs=(OutputSpec(name="y", labels=("one", "two")),)), "outputs.dense.labels"),
        (Contract(inputs=(InputSpec(name="same"),), outputs=(OutputSpec(name="same"),)), ""),
    ],
)
def test_a_contract_that_does_not_fit_names_the_key(contract: Contract, key: str) -> None:
    with pytest.raises(ContractError) as caught:
        resolve(contract, MODEL, SOURCE, where="model.toml")
    assert str(caught.value.where).endswith(key)


def test_a_free_axis_must_be_pinned_by_the_contract() -> None:
    free = replace(MODEL, inputs=(Tensor(name="x", dtype="float32", shape=(-1, -1, 8, 1)),))
    with pytest.raises(ContractError, match="axis free") as caught:
        resolve(Contract(), free, SOURCE, where="model.toml")
    assert caught.value.code == "dynamic_shape"
    pinned = Contract(inputs=(InputSpec(name="x", shape=(-1, 8, 8, 1)),))
    assert resolve(pinned, free, SOURCE, where="model.toml").inputs[0].shape == (-1, 8, 8, 1)


def test_class_labels_make_a_matrix_output_a_classifier() -> None:
    logits = replace(MODEL, activation="none")
    found = resolve(Contract(), logits, SOURCE, where="model.toml")
    assert found.classifier is None
    assert labelled(found, 9).classifier == "dense"
    assert labelled(found, 9).contract.outputs[0].activation == "logits"


def test_whole_number_targets_of_a_regression_are_no_class_labels() -> None:
    one = replace(MODEL, activation="none", outputs=(Tensor(name="price", dtype="float32", shape=(-1, 1)),))
    found = resolve(Contract(), one, SOURCE, where="model.toml")
    assert labelled(found, 346).classifier is None
    assert labelled(found, 1).classifier == "price"


def test_a_metric_of_an_output_that_does_not_exist_is_named() -> None:
    contract = Contract(metrics=(Metric(name="top1", tolerance=0.1, output="dens"),))
    with pytest.raises(ContractError, match="no output") as caught:
        resolve(contract, MODEL, SOURCE, where="model.toml")
    assert "dense" in (caught.value.remedy or "")


def test_names_that_become_the_same_are_told_apart() -> None:
    ports = tuple(Tensor(name=name, dtype="float32", shape=(-1, 4)) for name in ("a:0", "a_0", "a/0"))
    found = resolve(Contract(), replace(MODEL, inputs=ports), SOURCE, where="m")
    assert found.names["a_0"] == "a_0"
    assert len({item.name for item in found.inputs}) == 3
    assert len(found.names) == 4


@pytest.mark.parametrize(
    ("file", "name"), [("größe_ä.onnx", "grosse_a"), ("Modèle Ø.onnx", "Modele-O"), ("a b(1).onnx", "a-b-1-")]
)
def test_a_files_name_loses_its_marks_and_no_letter(file: str, name: str) -> None:
    assert resolve(Contract(), MODEL, replace(SOURCE, path=file), where="m").contract.name == name


def test_a_name_that_has_no_latin_letters_is_refused_with_advice() -> None:
    foreign = replace(SOURCE, path="/models/模型-v2.onnx")
    with pytest.raises(ContractError, match="模型") as caught:
        resolve(Contract(), MODEL, foreign, where="m")
    assert "[model] name" in str(caught.value.remedy)
    assert resolve(Contract(name="model-v2"), MODEL, foreign, where="m").contract.name == "model-v2"
