"""What the cards claim, tried on small networks: what is said to cure does, what is said not to does not.

Every patient is trained as it came, and learns nothing, then with the remedy. Scores are accuracies on held-out digits
(chance is 0.1) or R2; a training that diverged scores 0. Each claim holds on three seeds; the fast tests try one.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.records import Symptom
from steadygrad.remedies import CATALOGUE, compose, make
from steadygrad.training import Training, TrainingSetup, evaluate, seeded

from .patients import BATCH, PATIENTS, STEPS, he_with_adam, plain

LEARNED, NOTHING = 0.4, 0.3
LONG = 500
SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
# fmt: off
(SIGMOID, SIGMOID20, RELU, TANH, EXPLODING, INPUTS, TARGETS, RATE, SPIKES, SMALL_BATCH, FEW_STEPS,
 SATURATING_INPUTS, SATURATING_WEIGHTS, SATURATING_BIASES, DEAD, NARROW, FROZEN, PROBABILITIES, LOGITS, DROPPED, LINEAR,
 NAN_ROWS, NAN_GRADIENTS) = PATIENTS
# fmt: on

# Remedies (name, settings), patient, optimizer steps (0: as set up). Where there are several, the first is the one on
# trial and the others alone do less: test_partners_alone_do_less.
CURES: list[tuple[str, list[tuple[str, dict]], str, int]] = [
    ("initialization", [("initialization", {})], SIGMOID, STEPS),
    ("initialization", [("initialization", {})], SIGMOID20, STEPS),
    ("initialization", [("initialization", {})], RELU, STEPS),
    ("initialization", [("initialization", {})], TANH, STEPS),
    ("initialization", [("initialization", {})], EXPLODING, STEPS),
    ("activation", [("activation", {"to": "relu"}), ("initialization", {"method": "he"})], SIGMOID, STEPS),
    ("normalization", [("normalization", {"kind": "batch"})], SIGMOID, STEPS),
    ("normalization", [("normalization", {"kind": "batch"})], RELU, STEPS),
    ("normalization", [("normalization", {"kind": "layer"})], EXPLODING, STEPS),
    ("normalization", [("normalization", {"kind": "batch"})], EXPLODING, STEPS),
    ("residual", [("residual", {})], SIGMOID, LONG),
    ("residual", [("residual", {})], RELU, LONG),
    ("residual", [("residual", {"kind": "rezero"})], TANH, LONG),
    ("auxiliary_loss", [("auxiliary_loss", {"heads": 6}), ("optimizer", {"name": "adam", "lr": 0.01})], SIGMOID, 300),
    ("optimizer", [("optimizer", {"name": "adamw", "lr": 0.006})], TANH, 800),
    ("optimizer", [("optimizer", {"name": "adamw"})], RATE, STEPS),
    ("depth", [("depth", {"layers": 2})], RELU, LONG),
    ("depth", [("depth", {"layers": 2})], TANH, LONG),
    ("depth", [("depth", {"layers": 2})], EXPLODING, STEPS),
    ("orthogonal_weights", [("orthogonal_weights", {})], TANH, STEPS),
    ("orthogonal_weights", [("orthogonal_weights", {})], EXPLODING, STEPS),
    ("weight_standardization", [("weight_standardization", {}), ("learning_rate", {"lr": 0.01})], RELU, LONG),
    ("weight_standardization", [("weight_standardization", {}), ("learning_rate", {"lr": 0.01})], TANH, LONG),
    ("weight_standardization", [("weight_standardization", {})], EXPLODING, STEPS),
    ("learning_rate", [("learning_rate", {"lr": 1e-4})], EXPLODING, STEPS),
    ("learning_rate", [("learning_rate", {"lr": 0.1})], RATE, STEPS),
    ("clip_by_global_norm", [("clip_by_global_norm", {})], EXPLODING, STEPS),
    ("clip_by_global_norm", [("clip_by_global_norm", {"max_norm": 0.1})], RATE, STEPS),
    ("clip_by_value", [("clip_by_value", {"max_value": 0.01})], EXPLODING, STEPS),
    ("clip_by_parameter_norm", [("clip_by_parameter_norm", {"max_norm": 0.3})], EXPLODING, STEPS),
    ("clip_by_block_rms", [("clip_by_block_rms", {"max_rms": 0.01})], EXPLODING, STEPS),
    ("clip_by_running_norm", [("clip_by_running_norm", {})], EXPLODING, STEPS),
    ("clip_by_quantile", [("clip_by_quantile", {})], RATE, STEPS),
    ("adaptive_clip", [("adaptive_clip", {})], EXPLODING, STEPS),
    ("project_gradients", [("project_gradients", {})], EXPLODING, STEPS),
    ("normalize_gradients", [("normalize_gradients", {})], EXPLODING, STEPS),
    ("standardize_inputs", [("standardize_inputs", {})], INPUTS, STEPS),
    (
        "standardize_targets",
        [("standardize_targets", {}), ("optimizer", {"name": "adam", "lr": 0.01})],
        TARGETS,
        STEPS,
    ),
    ("centered_updates", [("centered_updates", {})], RATE, STEPS),
    *((name, [(name, {})], SPIKES, STEPS) for name in ("clip_by_running_norm", "clip_by_zscore", "skip_spikes")),
    ("clip_spikes", [("clip_spikes", {"ratio": 25.0})], SPIKES, STEPS),
    ("batch_size", [("batch_size", {})], SMALL_BATCH, STEPS),
    ("longer_training", [("longer_training", {"times": 30})], FEW_STEPS, 0),
    ("standardize_inputs", [("standardize_inputs", {})], SATURATING_INPUTS, STEPS),
    ("initialization", [("initialization", {})], SATURATING_WEIGHTS, STEPS),
    ("residual", [("residual", {})], SATURATING_WEIGHTS, LONG),
    ("activation", [("activation", {}), ("learning_rate", {"lr": 0.02})], SATURATING_BIASES, LONG),
    ("activation", [("activation", {"to": "elu"})], DEAD, LONG),
    ("initialization", [("initialization", {})], DEAD, STEPS),
    *(("normalization", [("normalization", {"kind": "batch"})], p, STEPS) for p in (SATURATING_WEIGHTS, DEAD)),
    *(("normalization", [("normalization", {"kind": "layer"})], p, STEPS) for p in (SATURATING_BIASES, DEAD)),
    ("width", [("width", {"times": 8}), ("initialization", {"method": "he"})], NARROW, STEPS),
    ("unfreeze", [("unfreeze", {})], FROZEN, STEPS),
    ("head", [("head", {})], PROBABILITIES, STEPS),
    ("loss", [("loss", {"to": "cross_entropy"})], LOGITS, STEPS),
    ("less_dropout", [("less_dropout", {})], DROPPED, STEPS),
    ("inserted_activation", [("inserted_activation", {})], LINEAR, 800),
    ("complete_rows", [("complete_rows", {})], NAN_ROWS, STEPS),
    *((name, [(name, {})], NAN_GRADIENTS, STEPS) for name in ("skip_nonfinite", "zero_nonfinite")),
]

REGULARIZERS: list[tuple[str, dict]] = [
    ("l1_penalty", {}),
    ("l2_penalty", {"strength": 1e-3}),
    ("l2_penalty", {"strength": 0.1}),
    ("weight_decay", {"strength": 0.1}),
    ("dropout", {}),
    ("pruning", {"amount": 0.5}),
    ("pruning", {"amount": 0.9}),
    ("label_smoothing", {}),
    ("z_loss", {}),
    ("weight_norm", {}),
    ("augmentation", {}),
    ("adversarial_samples", {}),
    ("batch_size", {"samples": 8}),
    ("batch_size", {"samples": 1024}),
    ("centralize_gradients", {}),
    ("gradient_noise", {}),
]
CLIPS = [name for name in CATALOGUE if name.startswith(("clip_by", "adaptive_clip", "project_gr", "normalize_gr"))]
NO_CURES: list[tuple[str, dict, str]] = [
    *((name, settings, patient) for name, settings in REGULARIZERS for patient in (SIGMOID, EXPLODING)),
    *((name, {}, patient) for name in CLIPS for patient in (SIGMOID, RELU)),
    ("activation", {"to": "hardsigmoid"}, SIGMOID),
    ("activation", {"to": "gelu"}, DEAD),
    ("activation", {"to": "leaky_relu"}, DEAD),
    ("initialization", {"method": "he"}, SIGMOID),
    ("initialization", {"method": "small"}, SIGMOID),
    ("learning_rate", {"lr": 1.0}, SIGMOID),
    ("max_norm", {}, SIGMOID),
    ("normalization", {"kind": "layer"}, SIGMOID),
    ("spectral_norm", {}, RELU),
    ("clip_weights", {}, EXPLODING),
    ("max_norm", {}, EXPLODING),
    ("soft_cap", {}, EXPLODING),
    ("schedule", {}, EXPLODING),
    ("clip_by_zscore", {}, EXPLODING),
    ("clip_by_quantile", {}, EXPLODING),
    ("skip_spikes", {}, EXPLODING),
]
FAMOUS = ("clip_by_global_norm", "dropout", "l2_penalty", "label_smoothing", "pruning")  # in the fast tests too
KEEPS_FINITE = [("clip_weights", {}), ("max_norm", {}), ("soft_cap", {})]


def score(setup: TrainingSetup, seed: int, steps: int = 0) -> float:
    training = Training(setup, seed)
    training.advance(steps or setup.steps)
    return 0.0 if training.diverged else evaluate(setup, training.model, setup.validation)[1]


def treated(remedies: list[tuple[str, dict]], patient: str, seed: int) -> TrainingSetup:
    with seeded(seed):
        return compose(*(make(name, **settings) for name, settings in remedies))(PATIENTS[patient](seed))


def case(name: str, settings: dict, patient: str) -> str:
    return f"{name}{settings or ''} on {patient}"


@pytest.mark.parametrize("patient", PATIENTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_patients_learn_nothing_as_they_come(patient: str, seed: int) -> None:
    assert score(PATIENTS[patient](seed), seed) < NOTHING


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("remedies", "patient", "steps"),
    [
        pytest.param(*row, id=case(*remedies[0], row[1]), marks=[pytest.mark.slow] if row[2] > STEPS else [])
        for _, *row in CURES
        for remedies in row[:1]
    ],
)
def test_what_is_said_to_cure_does(remedies, patient: str, steps: int, seed: int) -> None:
    assert score(treated(remedies, patient, seed), seed, steps) > LEARNED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remedies", "patient", "steps"), [row[1:] for row in CURES if len(row[1]) > 1], ids=lambda value: str(value)[:30]
)
def test_partners_alone_do_less(remedies, patient: str, steps: int) -> None:
    together, alone = (score(treated(each, patient, 0), 0, steps) for each in (remedies, remedies[1:]))
    assert alone < together - 0.2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "settings", "patient"),
    [
        pytest.param(*row, id=case(*row), marks=[] if row[0] in FAMOUS or row[2] == EXPLODING else [pytest.mark.slow])
        for row in NO_CURES
    ],
)
def test_what_is_said_not_to_cure_does_not(name: str, settings: dict, patient: str, seed: int) -> None:
    assert score(treated([(name, settings)], patient, seed), seed) < NOTHING


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "settings"), KEEPS_FINITE, ids=[name for name, _ in KEEPS_FINITE])
def test_what_treats_non_finite_numbers_keeps_the_loss_finite(name: str, settings: dict, seed: int) -> None:
    for sick, setup in ((True, PATIENTS[EXPLODING](seed)), (False, treated([(name, settings)], EXPLODING, seed))):
        training = Training(setup, seed)
        training.advance(STEPS)
        assert training.diverged == sick


@pytest.mark.parametrize("seed", SEEDS)
def test_warm_up_lets_a_rate_that_is_too_large_work(seed: int) -> None:
    setup = he_with_adam(seed)
    assert score(make("schedule", warmup=0.3)(setup), seed) > score(setup, seed) + 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_spectral_norm_takes_the_explosion_away_and_makes_a_small_signal_smaller(seed: int) -> None:
    before = {finding.symptom for finding in diagnose(PATIENTS[EXPLODING](seed)).findings}
    after = {finding.symptom for finding in diagnose(treated([("spectral_norm", {})], EXPLODING, seed)).findings}
    assert Symptom.EXPLODING in before
    assert Symptom.EXPLODING not in after


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_norm_makes_gradients_of_deep_plain_networks_explode_and_layer_norm_does_not(seed: int) -> None:
    growth = {}
    for kind in ("batch", "layer"):
        for depth in (10, 60):
            setup = plain(nn.ReLU, depth, seed)
            setup = make("normalization", kind=kind)(setup)
            x, y = setup.train
            F.cross_entropy(setup.model(x[:BATCH]), y[:BATCH]).backward()
            hidden = [module for module in setup.model if isinstance(module, nn.Linear)][1:-1]
            growth[kind, depth] = (hidden[0].weight.grad.norm() / hidden[-1].weight.grad.norm()).item()
    assert growth["batch", 60] > 1e3 * growth["batch", 10] > 1e3
    assert growth["layer", 60] < 1


def test_truncation_bounds_a_gradient_that_explodes_through_time() -> None:
    rnn = nn.RNN(1, 4, batch_first=True)
    with torch.no_grad():
        for parameter in rnn.parameters():
            nn.init.zeros_(parameter)
        rnn.weight_hh_l0.copy_(2 * torch.eye(4))  # at states of 0, tanh passes all: gradients double with every step
    setup = TrainingSetup(nn.Sequential(rnn), lambda output: output, (torch.zeros(2, 60, 1),), batch_size=2)
    norms = []
    for each in (setup, make("truncated_backpropagation", length=5)(setup)):
        each.model(setup.train[0])[0][:, -1].sum().backward()
        norms.append(max(parameter.grad.norm().item() for parameter in each.model.parameters()))
    assert norms[0] > 1e15
    assert norms[1] < 1e3


def test_every_claim_of_every_card_is_on_trial() -> None:
    elsewhere = {
        *((name, Symptom.NONFINITE) for name, _ in KEEPS_FINITE),
        ("schedule", Symptom.LEARNING_RATE),  # test_warm_up_lets_a_rate_that_is_too_large_work
        ("spectral_norm", Symptom.EXPLODING),
        ("truncated_backpropagation", Symptom.EXPLODING),
        ("centered_updates", Symptom.VANISHING),  # at extreme depth, in its own tests
        ("centered_updates", Symptom.EXPLODING),
        ("recurrent", Symptom.VANISHING),  # over time, in its own tests
    }
    claimed = {(name, symptom) for name, factory in CATALOGUE.items() for symptom in factory.card.treats}
    shown = {(name, Symptom(symptom)) for name, _, patient, _ in CURES for symptom in symptoms_of(patient)}
    # pretraining is tried with the Boltzmann machines that it is made of
    assert {claim for claim in claimed - shown - elsewhere if claim[0] != "pretraining"} == set()
    assert elsewhere <= claimed


def symptoms_of(patient: str) -> list[str]:
    return patient.partition(":")[0].split(", ")
