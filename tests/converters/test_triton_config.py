"""What is written for Triton fits the model and Triton's own protobuf; what does not is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.package import Tensor
from edgekit_converters.errors import Refusal
from edgekit_converters.targets.triton import TritonTarget, config
from edgekit_converters.targets.triton.check import faults, parsed
from edgekit_converters.targets.triton.pbtxt import Map, text
from edgekit_converters.targets.triton.repository import model_name
from edgekit_converters.values import Built, Job
from tests.converters.quant_models import samples
from tests.converters.triton_jobs import built_in, job_of, require_triton

FRESH = samples(19, seed=7)
PRODUCTION = "model_repository/little_net"


@pytest.fixture
def python() -> Path:
    """The sidecar's interpreter; with CI=true it must be there."""
    return require_triton()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Job, Built, Path]:
    """A small model as a Triton variant: its job, what was built, and where."""
    return built_in(tmp_path)


def forms(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every form of configuration there is."""
    serving = config.Serving(
        name="little_net",
        ref="little net@1.2.0",
        inputs=job.inputs,
        outputs=job.outputs,
        labels="labels.txt",
        warm={"x": "input0"},
    )
    yield "cpu", config.production(serving, threads=2)
    yield "gpu", config.production(serving, accelerator="tensorrt", precision="int8")
    yield "pinned", config.production(replace(serving, versions=(1, 3)))
    yield "plans", config.plans(serving, {"8.6": "model.cc8.6.plan", "8.7": "model.cc8.7.plan"})
    yield "armnn", config.armnn(replace(serving, batch=0), accelerator="cpu", threads=4)
    yield "mali", config.armnn(replace(serving, batch=0), accelerator="gpu", threads=1)
    yield "twin", config.twin(serving, file="1/model.onnx", threads=1)


def plain(value: Any) -> Any:
    """A message as protobuf's JSON has it: numbers as text, what is unset or zero left out."""
    if isinstance(value, Mapping):
        found = {str(key): plain(item) for key, item in value.items()}
        return (
            {key: item for key, item in found.items() if item not in ("0", "", [], {})}
            if not isinstance(value, Map)
            else found
        )
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_configuration_survives_tritons_own_protobuf(
    made: tuple[Job, Built, Path], python: Path, tmp_path: Path
) -> None:
    written = dict(forms(made[0]))
    paths = [tmp_path / f"{name}.pbtxt" for name in written]
    for path, message in zip(paths, written.values(), strict=True):
        path.write_text(text(message))
    found = parsed(paths)
    assert found is not None
    for message, read in zip(written.values(), found, strict=True):
        assert plain(read) == plain(message)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('name: "a"\nbogus: 3\n', 'no field named "bogus"'),
        ('name: "a"\ninput { name: "x" data_type: TYPE_FP99 }\n', "TYPE_FP99"),
        ('name: "a\n', "2:1"),
        ('name: "a"\nmax_batch_size: "eight"\n', "eight"),
    ],
)
def test_what_protobuf_does_not_read_is_refused_with_its_place(
    python: Path, tmp_path: Path, broken: str, said: str
) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(broken)
    with pytest.raises(Refusal) as caught:
        parsed([path])
    assert caught.value.code == "config_refused"
    assert said in str(caught.value) or said == "2:1"


def sizes(found: dict[str, Any], folder: Path) -> None:
    found["input"][0]["dims"] = [3, 8, 9]


def type_(found: dict[str, Any], folder: Path) -> None:
    found["output"][0]["data_type"] = "TYPE_FP16"


def port(found: dict[str, Any], folder: Path) -> None:
    found["input"][0]["name"] = "y"


def name(found: dict[str, Any], folder: Path) -> None:
    found["name"] = "other"


def preferred(found: dict[str, Any], folder: Path) -> None:
    found["dynamic_batching"]["preferred_batch_size"] = [16]


def warm_batch(found: dict[str, Any], folder: Path) -> None:
    found["model_warmup"][1]["batch_size"] = 9


def short_sample(found: dict[str, Any], folder: Path) -> None:
    path = folder / "warmup" / "input0"
    path.write_bytes(path.read_bytes()[:-4])


def no_labels(found: dict[str, Any], folder: Path) -> None:
    (folder / "labels.txt").unlink()


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (sizes, "input x: dims [3, 8, 9], the model has [-1, 3, 8, 8]"),
        (type_, "TYPE_FP16, the model has float32"),
        (port, "inputs y are not the model's: x"),
        (name, "name 'other' is not that of its folder"),
        (preferred, "preferred_batch_size 16 is more than max_batch_size 8"),
        (warm_batch, "batch_size 9, at most 8"),
        (short_sample, "warmup/input0 must hold 768 bytes"),
        (no_labels, "there is no labels.txt"),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_configuration_that_contradicts_its_model_is_found(
    made: tuple[Job, Built, Path], spoiled: Any, said: str
) -> None:
    job, _, folder = made
    place = folder / PRODUCTION
    found = next(message for _, message in forms(job))
    assert list(faults(found, place, place / "1" / "model.onnx")) == []
    spoiled(found, place)
    assert any(said in item for item in faults(found, place, place / "1" / "model.onnx"))


def test_batches_of_a_model_that_takes_none_are_found(tmp_path: Path) -> None:
    job = job_of(tmp_path, batch=1)
    found = next(message for _, message in forms(job))
    place = tmp_path / "little_net"
    assert any("first axis is fixed" in item for item in faults(found, place, Path(job.hub)))


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    job = job_of(tmp_path, precision="int8", rules="triton-10.3", options={"accelerator": "tensorrt"})
    found = []
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        TritonTarget().build(job, place)
        files = (path for path in place.rglob("*") if path.is_file())
        found.append({path.relative_to(place): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert Path("build_engine.sh") in found[0]


def test_the_warm_up_is_a_real_sample_and_the_labels_are_the_contracts(made: tuple[Job, Built, Path]) -> None:
    _, built, folder = made
    place = folder / PRODUCTION
    assert (place / "warmup" / "input0").read_bytes() == samples()["x"][0].tobytes()
    assert (place / "labels.txt").read_text() == "a\nb\n"
    assert 'edgekit_ref"' in (place / "config.pbtxt").read_text()
    assert built.facts["triton"]["model_name"] == "little_net"


def test_without_samples_the_warm_up_is_zeros(tmp_path: Path) -> None:
    job = replace(job_of(tmp_path), calibration=None)
    TritonTarget().build(job, tmp_path)
    assert "zero_data: true" in (tmp_path / PRODUCTION / "config.pbtxt").read_text()


def test_options_of_the_profile_are_heard(tmp_path: Path) -> None:
    options = {"max_batch": 32, "queue_delay_us": 50, "versions": [1, 2], "threads": 3}
    TritonTarget().build(job_of(tmp_path, options=options), tmp_path)
    written = (tmp_path / PRODUCTION / "config.pbtxt").read_text()
    for said in ("max_batch_size: 32", "[ 16, 32 ]", "microseconds: 50", "versions: [ 1, 2 ]", '"3"'):
        assert said in written


@pytest.mark.parametrize("options", [{"accelerator": "openvino"}, {"max_batch": -1}, {"threads": "two"}])
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        TritonTarget().build(job_of(tmp_path, options=options), tmp_path)
    assert caught.value.code == "bad_option"


def test_a_type_that_triton_does_not_have_is_refused(made: tuple[Job, Built, Path]) -> None:
    odd = Tensor(name="x", dtype="complex64", shape=(-1, 2))
    serving = config.Serving(name="a", ref="a@1", inputs=(odd,), outputs=made[0].outputs)
    with pytest.raises(Refusal) as caught:
        config.production(serving)
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize(
    ("given", "used"), [("little net", "little_net"), ("../x", "x"), ("äß", "model"), ("a.b-1", "a.b-1")]
)
def test_a_name_becomes_one_that_a_folder_and_an_address_can_have(given: str, used: str) -> None:
    assert model_name(given) == used


def test_without_the_sidecar_it_is_written_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_TOOLS", str(tmp_path / "none"))
    target = TritonTarget()
    built = target.build(job_of(tmp_path), tmp_path)
    assert target.kernel_sets == ()
    assert target.open(tmp_path, built, kernels="python-backend", threads=1) is None
    assert target.run(tmp_path, built, FRESH) is None
    assert target.version() == ""
    assert built.facts["triton"]["protobuf_checked"] is False
