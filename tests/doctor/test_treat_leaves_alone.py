"""A treatment reads what it is given and changes none of it; the same seed gives the same treatment."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from steadygrad.doctor import Budget, Treatment, treat
from steadygrad.records import Verdict
from steadygrad.training import Processes, Serial, TrainingSetup

from .patients import LEARNED, badly_scaled, clusters, mlp, setup_of, sick_setup

SMALL = Budget(trials=2, steps=20)


def loader(part: slice, **settings: Any) -> DataLoader:
    x, y = clusters()
    return DataLoader(TensorDataset(x[part], y[part]), batch_size=32, **settings)


def same(first: Treatment, second: Treatment) -> bool:
    weights = (first.weights or {}, second.weights or {})
    return (
        first.to_dict() == second.to_dict()
        and weights[0].keys() == weights[1].keys()
        and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    )


def test_models_data_and_random_states_stay() -> None:
    model = nn.Sequential(badly_scaled(), nn.BatchNorm1d(3), nn.Dropout(0.1))
    model.register_forward_hook(lambda *_: None)
    model[0][0].weight.grad = torch.ones_like(model[0][0].weight)
    generator = torch.Generator().manual_seed(9)
    setup = setup_of(model, train=loader(slice(LEARNED), shuffle=True, generator=generator))
    before = copy.deepcopy(model.state_dict())
    fields, modes, grad = dict(vars(setup)), [m.training for m in model.modules()], model[0][0].weight.grad
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), generator.get_state()
    treat(setup, SMALL)
    assert vars(setup) == fields
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert model[0][0].weight.grad is grad
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == 1
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert torch.equal(generator.get_state(), states[3])


def test_random_states_are_restored_when_the_setup_fails() -> None:
    calls = iter(range(10**6))

    def forward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        torch.randn(1)
        return model(batch[0]) if next(calls) < 9 else 1 / 0

    before = torch.get_rng_state()
    with pytest.raises(Exception, match=r"^model: forward failed"):
        treat(setup_of(forward=forward), SMALL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_same_seed_gives_the_same_treatment(shuffled: bool) -> None:
    train = loader(slice(LEARNED), shuffle=True) if shuffled else None
    setup = sick_setup(**{"train": train} if train else {})
    first = treat(setup, SMALL, seed=3)
    torch.randn(7)  # whatever happened in between
    assert same(first, treat(setup, SMALL, seed=3))


def test_another_seed_gives_other_trainings() -> None:
    tiny = Budget(trials=1, steps=5)
    assert not same(treat(sick_setup(), tiny, seed=0), treat(sick_setup(), tiny, seed=1))


@pytest.mark.slow
def test_processes_give_the_same_treatment_as_one() -> None:
    setup = sick_setup()
    assert same(treat(setup, SMALL, executor=Serial()), treat(setup, SMALL, executor=Processes(2)))


@pytest.mark.parametrize("held", [threading.Lock(), (number for number in range(3))], ids=["lock", "generator"])
def test_what_cannot_be_sent_is_trained_here_and_told(held: object) -> None:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        assert held is not None
        return torch.optim.SGD(parameters, lr=0.1)

    treatment = treat(sick_setup(optimizer=optimizer), SMALL, executor=Processes(2))
    assert treatment.trials[0].runs
    told = [note for note in treatment.notes if note.startswith("Trainings ran in this process")]
    assert len(told) == 1
    assert "cannot pickle" in told[0]


class Untouchable:
    """Validation data that raise when they are read before the proof."""

    def __init__(self) -> None:
        self.open = False

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.open:
            raise AssertionError("the validation data were touched")
        x, y = clusters()
        yield x[LEARNED:], y[LEARNED:]


def test_nothing_is_chosen_on_the_validation_data() -> None:
    data = Untouchable()

    def progress(stage: str, done: int, total: int) -> None:
        data.open = stage == "proving it on fresh seeds"

    treatment = treat(sick_setup(validation=data), SMALL, progress=progress)
    assert treatment.proof is not None
    closed = treat(setup_of(validation=Untouchable()))
    assert closed.verdict is Verdict.HEALTHY, "nothing is proven, so the validation data are never read"


def test_an_interruption_passes() -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "trying prescriptions" and done:
            raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        treat(sick_setup(), SMALL, progress=progress)
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_validation_data_are_held_out_and_told() -> None:
    treatment = treat(sick_setup(validation=None), SMALL)
    assert (
        "No validation data were given: the proof was scored on 20% of the training data, held out." in treatment.notes
    )
    assert treatment.proof is not None
    assert treatment.setup.validation is None


def test_too_few_data_to_hold_any_out_are_told() -> None:
    x, y = clusters()
    treatment = treat(sick_setup(train=[(x[:64], y[:64])], validation=None), SMALL)
    assert any(note.startswith("There are too few data to hold any out") for note in treatment.notes)


def forward_pair(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(torch.cat([batch["left"], batch["right"]], 1))


def formats() -> dict[str, TrainingSetup]:
    x, y = clusters()
    learned, rest = slice(LEARNED), slice(LEARNED, None)

    def halves(part: slice) -> dict[str, Tensor]:
        return {"left": x[part, :4], "right": x[part, 4:], "target": y[part]}

    def own_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        logits = model(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits}

    def error_rate(output: Tensor, target: Tensor) -> float:
        return -(output.argmax(1) != target).double().mean().item()

    return {
        "loader": sick_setup(train=loader(learned, shuffle=True), validation=loader(rest)),
        "arrays": sick_setup(
            train=(x[learned].numpy(), y[learned].numpy()), validation=(x[rest].numpy(), y[rest].numpy())
        ),
        "dict": sick_setup(train=halves(learned), validation=halves(rest), forward=forward_pair),
        "own loss": sick_setup(loss=None, forward=own_loss),
        "own metric": sick_setup(metric=error_rate),
        "float64": setup_of(badly_scaled().double(), (x.double(), y)),
        "scheduler": sick_setup(scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=50)),
    }


@pytest.mark.parametrize(("name", "setup"), formats().items(), ids=formats())
def test_all_forms_of_setups_are_treated(name: str, setup: TrainingSetup) -> None:
    treatment = treat(setup, Budget(trials=1))
    known = name not in ("dict", "own loss", "own metric")
    assert treatment.verdict is (Verdict.CURED if known else Verdict.IMPROVED)
    if not known:
        assert any("no goal is known" in note for note in treatment.notes)


def test_a_setup_that_no_yardstick_fits_is_judged_by_findings_and_loss() -> None:
    def metric(output: Tensor, target: Tensor) -> float:
        return (output.argmax(1) == target).double().mean().item()

    treatment = treat(setup_of(metric=metric))
    assert treatment.verdict is Verdict.HEALTHY
    assert any(note.startswith("It was judged by its findings and its loss") for note in treatment.notes)
    slow = treat(setup_of(metric=metric, lr=1e-8), SMALL)
    assert slow.verdict is Verdict.IMPROVED


def test_a_loader_that_never_ends_is_read_only_as_far_as_needed() -> None:
    class Stream:
        def __init__(self) -> None:
            self.most = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            x, y = clusters()
            for step in range(10**9):
                self.most = max(self.most, step + 1)
                yield x[:32], y[:32]

    stream = Stream()
    treat(setup_of(mlp(), train=stream), Budget(steps=20))
    assert stream.most <= 30
