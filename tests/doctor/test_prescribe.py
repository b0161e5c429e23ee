from __future__ import annotations

from dataclasses import replace

import pytest
import torch.nn.functional as F
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.doctor import prescribe
from steadygrad.doctor.prescribe import WHY
from steadygrad.records import (
    Blueprint,
    Diagnosis,
    Finding,
    Layer,
    Observation,
    Prescription,
    Role,
    Severity,
    Step,
    Symptom,
    TargetKind,
)
from steadygrad.remedies import CATALOGUE, make

from .patients import Pair, clusters, diagnosis_of, mlp, setup_of

VANISHING, EXPLODING = ("SG101", Symptom.VANISHING), ("SG201", Symptom.EXPLODING)
DATA_IN, DATA_OUT = ("SG802", Symptom.DATA), ("SG803", Symptom.DATA)
SMALL_STEPS = ("SG502", Symptom.LEARNING_RATE)


def wiring(code: str) -> tuple[str, Symptom]:
    return code, Symptom.WIRING


def names(prescription: Prescription) -> list[str]:
    return [step.remedy for step in prescription.steps]


def test_a_healthy_network_gets_an_optimizer_then_new_weights_then_everything() -> None:
    assert [names(each) for each in prescribe(diagnosis_of())] == [
        ["optimizer"],
        ["initialization", "optimizer"],
        ["activation", "initialization", "optimizer"],
        ["loss", "activation", "normalization", "initialization", "optimizer"],
    ]


def test_the_loss_is_replaced_only_where_another_one_fits_better() -> None:
    usual = diagnose(setup_of())
    assert not any("loss" in names(each) for each in prescribe(usual))
    squares = diagnose(setup_of(loss=lambda output, y: F.mse_loss(output, F.one_hot(y, 3).float())))
    assert "loss" in names(prescribe(squares)[-1])
    summed = diagnose(setup_of(loss=lambda output, y: F.cross_entropy(output, y, reduction="sum")))
    assert "loss" in names(prescribe(summed)[-1])


def test_embeddings_get_larger_steps_for_their_rows_start_without_any_meaning() -> None:
    def rate(model: nn.Module, data: Pair) -> float:
        adam = next(s for each in prescribe(diagnose(setup_of(model, data, steps=400))) for s in each.steps)
        return float(adam.settings["lr"])

    x, y = clusters()
    words = nn.Sequential(nn.EmbeddingBag(10, 8), mlp())
    assert rate(words, ((x.abs() * 3).long().clamp(max=9), y)) > 3 * rate(mlp(), (x, y))


def test_a_learning_rate_comes_first_where_steps_have_a_wrong_size() -> None:
    slow = diagnose(setup_of(lr=1e-8))
    first, second, *_ = prescribe(slow)
    assert names(first) == ["learning_rate"]
    assert 1e-4 < first.steps[0].settings["lr"] < 10
    assert names(second) == ["optimizer"]


def test_of_several_rates_that_are_too_high_the_lowest_is_taken() -> None:
    curved = Finding("SG519", Symptom.LEARNING_RATE, Severity.ERROR, "", "", evidence={"overshoot": 1.1})
    large = Finding("SG501", Symptom.LEARNING_RATE, Severity.WARNING, "", "", evidence={"update_ratio": 4.0})
    blueprint = Blueprint((), optimizer_settings={"lr": 0.02}, steps=200)
    first, *_ = prescribe(Diagnosis((curved, large), Observation(1.0, (), 1.0), blueprint))
    assert first.steps == (Step("learning_rate", {"lr": 1.5e-05}, ("SG501",)),)


def test_deep_networks_get_shortcuts() -> None:
    deep = diagnose(setup_of(mlp(depth=12)))
    assert any("residual" in names(each) for each in prescribe(deep))
    shallow = diagnose(setup_of(mlp(depth=3)))
    assert not any("residual" in names(each) for each in prescribe(shallow))


@pytest.mark.parametrize(("steps", "times"), [(5, 60), (30, 10), (40, None)])
def test_a_handful_of_planned_steps_becomes_a_training(steps: int, times: int | None) -> None:
    for each in prescribe(diagnose(setup_of(steps=steps))):
        longer = [step.settings["times"] for step in each.steps if step.remedy == "longer_training"]
        assert longer == ([times] if times else [])


def test_exploding_gradients_are_clipped() -> None:
    assert names(prescribe(diagnosis_of(EXPLODING))[0]) == ["initialization"]
    assert names(prescribe(diagnosis_of(EXPLODING))[1]) == ["initialization", "clip_by_global_norm", "optimizer"]
    assert all("clip_by_global_norm" not in names(each) for each in prescribe(diagnosis_of(VANISHING)))


def test_notes_are_not_treated() -> None:
    noted = prescribe(diagnosis_of(VANISHING, wiring("SG601"), severity=Severity.NOTE))
    assert noted == prescribe(diagnosis_of())


REPAIRS = [
    (diagnosis_of(wiring("SG601"), head="Softmax"), ["head(to='identity')"]),
    (diagnosis_of(wiring("SG601"), loss="nll_loss"), ["loss(to='cross_entropy')"]),
    (diagnosis_of(wiring("SG601"), loss="nll_loss", head="Softmax"), ["head(to='log_softmax')"]),
    (diagnosis_of(wiring("SG602"), loss="binary_cross_entropy", head="Softmax"), ["head(to='sigmoid')"]),
    (diagnosis_of(wiring("SG602"), loss="mse_loss", head="Softmax"), ["head(to='identity')"]),
    (diagnosis_of(wiring("SG603"), loss="mse_loss", head="Tanh"), ["head(to='identity')"]),
    (diagnosis_of(wiring("SG605"), loss="mse_loss", target=TargetKind.REAL), ["loss(to='matched')"]),
    (diagnosis_of(wiring("SG605"), loss="huber_loss", target=TargetKind.REAL), ["loss(to='matched')"]),
    (diagnosis_of(DATA_IN), ["standardize_inputs()"]),
    (diagnosis_of(DATA_OUT, loss="mse_loss", target=TargetKind.REAL), ["standardize_targets()"]),
    (diagnosis_of(DATA_OUT), []),
    (diagnosis_of(wiring("SG303")), ["less_dropout()"]),
    (diagnosis_of(("SG521", Symptom.LEARNING_RATE)), ["optimizer(name='adamw', lr=0.02)"]),
    (
        diagnosis_of(("SG522", Symptom.LEARNING_RATE), DATA_IN),
        ["standardize_inputs()", "optimizer(name='adamw', lr=0.02)"],
    ),
    (
        diagnosis_of(wiring("SG603"), DATA_IN, DATA_OUT, loss="mse_loss", head="Tanh", target=TargetKind.REAL),
        ["head(to='identity')", "standardize_inputs()", "standardize_targets()"],
    ),
]


@pytest.mark.parametrize(("diagnosis", "repairs"), REPAIRS)
def test_plain_faults_are_repaired_in_every_prescription(diagnosis: Diagnosis, repairs: list[str]) -> None:
    found = prescribe(diagnosis)
    if repairs:
        assert [str(step) for step in found[0].steps] == repairs, "the smallest change is nothing but the repairs"
    assert all([str(step) for step in each.steps[: len(repairs)]] == repairs for each in found)


@pytest.mark.parametrize("keep_weights", [False, True])
@pytest.mark.parametrize(
    "diagnosis",
    [diagnosis_of(), diagnosis_of(VANISHING), diagnosis_of(EXPLODING, VANISHING), diagnosis_of(VANISHING, DATA_IN)],
    ids=["healthy", "vanishing", "exploding", "unscaled"],
)
def test_sizes_grow_and_nothing_is_there_twice(diagnosis: Diagnosis, keep_weights: bool) -> None:
    found = prescribe(diagnosis, keep_weights=keep_weights)
    sizes = [len(each.steps) for each in found]
    assert sizes == sorted(sizes)
    assert len({str(each) for each in found}) == len(found)


@pytest.mark.parametrize("diagnosis", [diagnosis_of(), diagnosis_of(VANISHING), diagnosis_of(EXPLODING)])
def test_weights_that_carry_something_are_not_drawn_again(diagnosis: Diagnosis) -> None:
    found = prescribe(diagnosis, keep_weights=True)
    assert all("initialization" not in names(each) for each in found)
    assert names(found[0]) == ["optimizer"]


def test_steps_say_which_findings_they_answer() -> None:
    *_, last = prescribe(diagnosis_of(VANISHING, SMALL_STEPS, DATA_IN))
    assert {step.remedy: step.answers for step in last.steps} == {
        "standardize_inputs": ("SG802",),
        "loss": (),
        "activation": ("SG101",),
        "normalization": ("SG101",),
        "initialization": ("SG101",),
        "optimizer": ("SG101", "SG502"),
    }


def test_every_step_is_in_the_catalogue_and_explained() -> None:
    assert set(WHY) <= set(CATALOGUE)
    for diagnosis in (diagnosis_of(VANISHING, EXPLODING), *(diagnosis for diagnosis, _ in REPAIRS)):
        for prescription in prescribe(diagnosis):
            assert prescription.rationale
            for step in prescription.steps:
                assert make(step.remedy, **step.settings).card.name == step.remedy


def deep_diagnosis(*extra: Layer, depth: int = 60) -> Diagnosis:
    layers = [Layer(str(i), str(i), "Linear", Role.LINEAR, follows=(i - 1,) * (i > 0)) for i in range(depth)]
    blueprint = Blueprint((*layers, *extra), loss="cross_entropy", target_kind=TargetKind.CLASS_INDEX)
    return replace(diagnosis_of(VANISHING), blueprint=blueprint)


def test_deep_plain_networks_may_become_isometries() -> None:
    isometric = Step("initialization", {"method": "isometric"}, ("SG101",)), Step("centered_updates", {}, ("SG101",))
    shortcut = Layer("add", "", "add", Role.OTHER, follows=(0, 39))
    assert isometric in [each.steps for each in prescribe(deep_diagnosis())]
    for other in (deep_diagnosis(shortcut), deep_diagnosis(depth=40)):
        assert isometric not in [each.steps for each in prescribe(other)]
