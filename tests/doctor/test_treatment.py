from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from steadygrad.doctor import Budget, Treatment, apply, load_cured, save_cured, treat
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.verify import train_pairs
from steadygrad.errors import DataFileError, SetupError, UsageError
from steadygrad.records import Prescription, Step, Verdict
from steadygrad.training import Serial, TrainingSetup

from .patients import badly_scaled, clusters, mlp, plane, setup_of, sick_setup

SURGERY = Prescription(
    (
        Step("standardize_inputs"),
        Step("activation", {"to": "gelu"}),
        Step("residual"),
        Step("normalization", {"kind": "layer"}),
        Step("initialization", {"method": "auto"}, ("SG101",)),
        Step("optimizer", {"name": "adamw", "lr": 0.01}),
    ),
    "all at once",
)


@pytest.fixture(scope="module")
def healthy() -> Treatment:
    return treat(setup_of())


@pytest.fixture(scope="module")
def cured() -> Treatment:
    return treat(sick_setup(), Budget(trials=2))


def treated(prescription: Prescription, setup: TrainingSetup) -> Treatment:
    """Return a treatment as if this prescription had been the cure."""
    pairs = train_pairs(prescription, setup, (1,), Runner(Serial()))
    cure = apply(prescription, setup, 1)
    diagnosis = treat(setup_of(steps=1), Budget(trials=1, steps=1)).diagnosis
    return Treatment(diagnosis, (), Verdict.CURED, cure, prescription, pairs.proof, None, pairs.weights)


class Tied(nn.Module):
    """The last layer's weight is the first one's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))[:, :3]


ROUND_TRIPS = {
    "surgery": (SURGERY, setup_of(mlp(depth=5), steps=5)),
    "tied weights": (Prescription((Step("learning_rate", {"lr": 0.5}),)), setup_of(Tied(), steps=5)),
    "target scale": (
        Prescription((Step("standardize_targets"), Step("optimizer", {"name": "adam"}))),
        setup_of(mlp(1), plane(50.0, 3.0), F.mse_loss, steps=5),
    ),
    "float64": (Prescription(), setup_of(mlp().double(), (clusters()[0].double(), clusters()[1]), steps=5)),
}


@pytest.mark.parametrize(("prescription", "setup"), ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_a_cure_comes_back_bit_for_bit(prescription: Prescription, setup: TrainingSetup, tmp_path: Path) -> None:
    treatment = treated(prescription, setup)
    save_cured(treatment, tmp_path / "deep" / "cure")
    loaded = load_cured(tmp_path / "deep" / "cure", setup)
    x = setup.validation[0]
    assert torch.equal(loaded.model.eval()(x), treatment.model.eval()(x))
    assert not torch.equal(loaded.model(x), apply(prescription, setup).model.eval()(x)), "the weights were loaded"
    assert type(loaded.optimizer(loaded.model.parameters())) is type(
        treatment.setup.optimizer(treatment.setup.model.parameters())
    )
    assert sorted(path.name for path in (tmp_path / "deep" / "cure").iterdir()) == [
        "prescription.json",
        "weights.safetensors",
    ]


def test_a_cure_on_disk_can_be_read_by_people(cured: Treatment, tmp_path: Path) -> None:
    save_cured(cured, tmp_path)
    content = json.loads((tmp_path / "prescription.json").read_text())
    assert [step["remedy"] for step in content["prescription"]["steps"]] == [
        step.remedy for step in cured.prescription.steps
    ]


def test_there_must_be_a_cure_to_save(healthy: Treatment, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^save_cured: expected a treatment with a cure, got one that is healthy"):
        save_cured(healthy, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(cured: Treatment, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"^save_cured: expected a folder that can be made, got '.*file'"):
        save_cured(cured, tmp_path / "file")


def test_a_failure_while_saving_keeps_the_old_cure(
    cured: Treatment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_cured(cured, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise RuntimeError("no space left")

    monkeypatch.setattr("safetensors.torch.save_model", full)
    with pytest.raises(SetupError, match=r"^save_cured: the weights cannot be written: RuntimeError: no space left"):
        save_cured(cured, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def damage_nothing_is_there(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def damage_no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def damage_cut_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def damage_foreign_weights(folder: Path) -> None:
    save_file({"other": torch.zeros(3)}, folder / "weights.safetensors")


def damage_cut_prescription(folder: Path) -> None:
    path = folder / "prescription.json"
    path.write_text(path.read_text()[:40])


def damage_foreign_prescription(folder: Path) -> None:
    (folder / "prescription.json").write_text('{"format": 1, "steps": []}')


def damage_not_a_dict(folder: Path) -> None:
    (folder / "prescription.json").write_text("[1, 2]")


def damage_other_format(folder: Path) -> None:
    (folder / "prescription.json").write_text('{"format": 2}')


def damage_binary(folder: Path) -> None:
    (folder / "prescription.json").write_bytes(b"\xff\xfe\x00")


def damage_unknown_remedy(folder: Path) -> None:
    step = {"remedy": "magic", "settings": {}, "answers": []}
    content = {"format": 1, "prescription": {"steps": [step], "rationale": ""}}
    (folder / "prescription.json").write_text(json.dumps(content))


DAMAGES = {
    damage_nothing_is_there: r"expected a prescription in .*json, got FileNotFoundError: .* Name the folder",
    damage_no_weights: r"expected weights of this model in .*safetensors, got FileNotFoundError",
    damage_cut_weights: r"expected weights of this model in .*safetensors, got SafetensorError",
    damage_foreign_weights: r"expected weights of this model in .*safetensors, got RuntimeError: .* Pass the",
    damage_cut_prescription: r"expected a prescription in .*json, got JSONDecodeError",
    damage_foreign_prescription: r"expected a prescription in .*json, got KeyError: 'prescription'",
    damage_not_a_dict: r"expected a prescription in .*json, got TypeError",
    damage_other_format: r"expected a prescription in .*json, got ValueError: format 2 is not 1, the one of this",
    damage_binary: r"expected a prescription in .*json, got UnicodeDecodeError",
    damage_unknown_remedy: r"expected a prescription that fits this set-up in .*json, but make: expected the name of",
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_damaged_cure_is_told(damage, words: str, cured: Treatment, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save_cured(cured, tmp_path)
    damage(tmp_path)
    with pytest.raises(DataFileError, match=f"^load_cured: {words}"):
        load_cured(tmp_path, sick_setup())


def test_a_cure_of_another_network_is_told(cured: Treatment, tmp_path: Path) -> None:
    save_cured(cured, tmp_path)
    with pytest.raises(DataFileError, match=r"expected weights of this model .* Pass the set-up that was treated"):
        load_cured(tmp_path, setup_of(badly_scaled(depth=4)))


def test_a_treatment_becomes_plain_data(cured: Treatment, tmp_path: Path) -> None:
    cured.save(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert content == json.loads(json.dumps(cured.to_dict()))
    assert content["verdict"] == "cured"
    assert content["proof"]["after"][0]["seed"] == 1
    assert {"setup", "weights"}.isdisjoint(content)


@pytest.mark.parametrize("which", ["healthy", "cured"])
def test_a_treatment_becomes_a_page(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    treatment = request.getfixturevalue(which)
    treatment.save(str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page == treatment._repr_html_()


def test_a_report_elsewhere_is_told(healthy: Treatment, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^save: expected a path that ends in .html or .json, got '.*report.txt'"):
        healthy.save(tmp_path / "report.txt")
    with pytest.raises(UsageError, match=r"^save: expected an existing folder, got '.*gone'"):
        healthy.save(tmp_path / "gone" / "report.html")


def test_the_model_of_a_treatment_is_a_copy(cured: Treatment) -> None:
    with torch.no_grad():
        for parameter in cured.model.parameters():
            parameter.zero_()
    assert any(parameter.any() for parameter in cured.model.parameters())
    assert all(torch.equal(value, cured.weights[name]) for name, value in cured.model.state_dict().items())


def test_without_a_cure_the_model_is_as_it_came(healthy: Treatment) -> None:
    given = healthy.setup.model
    assert healthy.model is not given
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in healthy.model.state_dict().items())
