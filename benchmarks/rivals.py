"""What the doctor is held against, restated with the same shelf of remedies and a like budget of optimizer steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import steadygrad as sg
from steadygrad.doctor.trials import Answer, Patients, TrainTask, run_train_task
from steadygrad.records import Prescription, Step, TargetKind
from steadygrad.training import split

BUDGET = 1.5  # trainings of the planned length
TRIES = 6
SHELF: dict[str, list[dict[str, object]]] = {
    "activation": [{"to": name} for name in ("relu", "gelu", "selu", "leaky_relu", "tanh")],
    "head": [{"to": "identity"}],
    "initialization": [{"method": name} for name in ("auto", "he", "xavier", "orthogonal")],
    "loss": [{"to": name} for name in ("cross_entropy", "bce_with_logits", "mse")],
    "normalization": [{"kind": "layer"}, {"kind": "batch"}],
    "optimizer": [
        {"name": name, "lr": lr} for name in ("adamw", "momentum", "rmsprop") for lr in (1e-4, 1e-3, 3e-3, 1e-2)
    ],
    "residual": [{}],
    "standardize_inputs": [{}],
    "standardize_targets": [{}],
    "batch_size": [{"samples": 32}, {"samples": 128}],
    "longer_training": [{"times": 4}],
    "clip_by_global_norm": [{"max_norm": 1.0}],
}


def _practice(setup: sg.TrainingSetup, seed: int) -> sg.TrainingSetup:
    train, held = split(setup.train, 0.2, seed)
    return setup.replace(train=train, validation=held)


def _try(practice: sg.TrainingSetup, steps: tuple[Step, ...], seed: int, length: int) -> Answer:
    """Train without the steps that do not fit."""
    fitting: list[Step] = []
    for step in steps:
        with suppress(Exception):  # a remedy may fail in any way on a broken program
            sg.apply(Prescription((*fitting, step)), practice, seed)
            fitting.append(step)
    return run_train_task(Patients(practice), TrainTask(Prescription(tuple(fitting)), seed, steps=length))


def _best(answers: list[Answer]) -> tuple[Prescription, int]:
    best = max(answers, key=lambda answer: answer.run.score if answer.run else float("-inf"))
    return best.prescription, sum(answer.cost for answer in answers)


def random_search(setup: sg.TrainingSetup, seed: int) -> tuple[Prescription, int]:
    """Draw up to four remedies a try from the shelf; keep the best, the set-up as it came included."""
    rng, practice = random.Random(seed), _practice(setup, seed)
    length = max(10, round(BUDGET / (TRIES + 1) * setup.steps))
    tries: list[tuple[Step, ...]] = [()]
    for _ in range(TRIES):
        names = rng.sample(sorted(SHELF), rng.randint(1, 4))
        tries.append(tuple(Step(name, rng.choice(SHELF[name])) for name in names))
    return _best([_try(practice, steps, seed, length) for steps in tries])


def recipe(setup: sg.TrainingSetup, seed: int) -> tuple[Prescription, int]:
    """Replace everything by what is good in general, whatever came; the budget goes into a longer training."""
    kind = sg.diagnose(setup).blueprint.target_kind
    loss = {TargetKind.CLASS_INDEX: "cross_entropy", TargetKind.BINARY: "bce_with_logits"}.get(kind, "mse")
    wanted = (
        Step("head", {"to": "identity"}),
        Step("loss", {"to": loss}),
        Step("standardize_inputs"),
        *((Step("standardize_targets"),) if kind is TargetKind.REAL else ()),
        Step("activation", {"to": "relu"}),
        Step("residual"),
        Step("initialization", {"method": "he"}),
        Step("optimizer", {"name": "adam", "lr": 1e-3}),
    )
    made = _try(_practice(setup, seed), wanted, seed, 1).prescription
    return replace(made, steps=(*made.steps, Step("longer_training", {"times": 2}))), setup.steps


def _rules(setup: sg.TrainingSetup) -> Iterator[tuple[Step, ...]]:
    """Yield AUTOTRAINER's repairs for the first of its symptoms, in its order and by its priority (ICSE 2021).

    Its symptoms are read from one batch, where it reads them every three epochs.
    """
    diagnosis = sg.diagnose(setup)
    blueprint, layers = diagnosis.blueprint, diagnosis.observation.layers
    norms = [s.weight_grad.rms * s.weight_grad.numel**0.5 for s in layers if s.weight_grad is not None]
    large = any(s.output is not None and s.output.rms >= 10 for s in layers)
    classes = blueprint.target_kind is TargetKind.CLASS_INDEX
    loss = {TargetKind.CLASS_INDEX: "cross_entropy", TargetKind.BINARY: "bce_with_logits"}.get(blueprint.target_kind)
    selu = (Step("activation", {"to": "selu"}), Step("initialization", {"method": "lecun"}))
    relu = (Step("activation", {"to": "relu"}), Step("initialization", {"method": "he"}))
    batch = (Step("normalization", {"kind": "batch"}),)
    if large:
        yield (Step("standardize_inputs"),)
    if loss is not None and (blueprint.loss == "mse_loss" or (classes and blueprint.head is not None)):
        yield (Step("head", {"to": "identity"}), Step("loss", {"to": loss}))
    if norms and norms[0] < 1e-4 and norms[0] < 1e-3 * norms[-1]:
        yield from (selu, relu, batch)
    elif norms and norms[-1] > 0 and norms[0] > 70 * norms[-1]:
        yield from (selu, relu, (Step("clip_by_value", {"max_value": 9.5}),), batch)
    elif any(s.dead_fraction is not None and s.dead_fraction >= 0.7 for s in layers):
        yield from (selu, batch, (Step("activation", {"to": "leaky_relu"}),))
    lr = blueprint.optimizer_settings.get("lr", 1e-3)
    for name in ("adam", "momentum", "rmsprop"):  # its order for a training that does not converge
        yield (Step("optimizer", {"name": name}),)
    for factor in (10.0, 100.0, 0.1):
        yield (Step("learning_rate", {"lr": lr * factor}),)


def autotrainer(setup: sg.TrainingSetup, seed: int) -> tuple[Prescription, int]:
    """Restate AUTOTRAINER: one symptom at a time, each try a training, here as long as the budget allows."""
    practice = _practice(setup, seed)
    tries = [(), *list(_rules(setup))[:TRIES]]
    length = max(10, round(BUDGET / len(tries) * setup.steps))
    return _best([_try(practice, steps, seed, length) for steps in tries])
