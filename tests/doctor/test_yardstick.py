from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from steadygrad.doctor.apply import apply
from steadygrad.doctor.baseline import with_reference
from steadygrad.doctor.reference import FactorizationMachine, reference_setup
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.yardstick import GOAL_SHARE, Yardstick, yardstick
from steadygrad.training import Serial, TrainingSetup

from .patients import clusters, images, mlp, plane, setup_of


def bag(outputs: int = 3) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.EmbeddingBag(10, 4), torch.nn.Linear(4, outputs))


def test_chance_is_the_share_of_the_commonest_class() -> None:
    x = torch.randn(100, 8)
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    found = yardstick(setup_of(), (x, y))
    assert found.metric == "accuracy"
    assert found.chance == pytest.approx(0.6)
    assert found.luck == pytest.approx(3 * math.sqrt(0.6 * 0.4 / 100))


def test_targets_that_do_not_count_are_not_counted() -> None:
    y = torch.tensor([0] * 6 + [1] * 4 + [-100] * 90)
    assert yardstick(setup_of(), (torch.randn(100, 8), y)).chance == pytest.approx(0.6)


def test_one_hot_targets_count_as_classes() -> None:
    x, y = clusters()
    held = yardstick(setup_of(data=(x, F.one_hot(y).float())), (x, F.one_hot(y).float()))
    assert held.chance == pytest.approx(y.bincount().max().item() / len(y))


def test_binary_targets_count_every_entry() -> None:
    y = torch.tensor([[0.0], [0.0], [0.0], [1.0]] * 25)
    setup = TrainingSetup(mlp(1), F.binary_cross_entropy_with_logits, train=(torch.randn(100, 8), y))
    assert yardstick(setup, setup.train).chance == pytest.approx(0.75)


def test_each_of_several_labels_has_its_own_commonest_answer() -> None:
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]] * 25)
    setup = TrainingSetup(mlp(2), F.binary_cross_entropy_with_logits, train=(torch.randn(100, 8), y))
    assert yardstick(setup, setup.train).chance == pytest.approx((0.75 + 1.0) / 2)


def test_sequences_of_several_lengths_share_one_commonest_answer() -> None:
    batches = [(torch.randn(10, n), torch.zeros(10, n)) for n in (3, 5)]
    batches[0][1][:5] = 1.0
    setup = TrainingSetup(torch.nn.Identity(), F.binary_cross_entropy_with_logits, train=batches)
    assert yardstick(setup, setup.train).chance == pytest.approx(65 / 80)


def test_real_targets_have_chance_zero() -> None:
    setup = setup_of(mlp(1), plane(), F.mse_loss)
    assert yardstick(setup, setup.validation) == Yardstick("R2", 0.0, 9 / 100)


def test_random_predictions_stay_within_luck() -> None:
    g = torch.Generator().manual_seed(0)
    setup = setup_of()
    x, y = torch.randn(50, 8), torch.randint(0, 3, (50,), generator=g)
    held = yardstick(setup, (x, y))
    scores = [(torch.randint(0, 3, (50,), generator=g) == y).double().mean().item() for _ in range(500)]
    assert not any(held.beyond_luck(score) for score in scores)
    assert held.beyond_luck(0.9)


def test_a_metric_of_the_users_own_has_no_chance() -> None:
    def f1(output: torch.Tensor, target: torch.Tensor) -> float:
        return 0.0

    setup = setup_of(metric=f1)
    held = yardstick(setup, setup.validation, [0.9])
    assert held == Yardstick("f1")
    assert held.goal is None
    assert held.beyond_luck(-5.0)
    assert not held.beyond_luck(-math.inf)


def test_the_goal_lies_near_the_reference() -> None:
    held = Yardstick("accuracy", 0.1, 0.05, 0.9)
    assert held.goal == pytest.approx(0.1 + GOAL_SHARE * 0.8)
    assert held.at(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("reference", [0.3, -math.inf, math.nan])
def test_a_reference_that_is_no_better_than_luck_is_none(reference: float) -> None:
    setup = setup_of()
    held = yardstick(setup, setup.validation, [reference])
    assert held.reference is None
    assert held.goal is None


@pytest.mark.parametrize(
    ("setup", "shape"),
    [
        (setup_of(), (5, 3)),
        (setup_of(data=images(), model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))), (5, 2)),
        (setup_of(mlp(1), plane(), F.mse_loss), (5, 1)),
        (setup_of(torch.nn.Sequential(mlp(1), torch.nn.Flatten(0)), (plane()[0], plane()[1][:, 0]), F.mse_loss), (5,)),
        (setup_of(bag(), (torch.randint(0, 5, (400, 7)), clusters()[1])), (5, 3)),
        (setup_of(bag(1), (torch.randint(0, 5, (400, 7)), plane()[1]), F.mse_loss), (5, 1)),
    ],
    ids=["classes", "images", "real", "real without a column", "indices to classes", "indices to numbers"],
)
def test_the_reference_answers_in_the_shape_of_the_task(setup: TrainingSetup, shape: tuple[int, ...]) -> None:
    found = reference_setup(setup)
    assert found is not None
    shallow, prescription = found
    treated = apply(prescription, shallow)
    assert treated.model(setup.train[0][:5]).shape == shape


def test_a_factorization_machine_adds_a_number_for_each_index_and_each_pair() -> None:
    machine = FactorizationMachine(3, torch.Size([2])).double()
    torch.nn.init.normal_(machine.weights.weight)
    users, items = torch.tensor([[1, 7], [999, 0]]), torch.tensor([4, 1004])  # 1004 shares a row with 4
    answers = machine(users, items)
    for sample, columns in enumerate([(1, 1007, 2004), (999, 1000, 2004)]):
        expected = machine.bias + machine.weights.weight[list(columns)].sum(0)
        for first, second in combinations(columns, 2):
            products = machine.factors.weight[first] * machine.factors.weight[second]
            expected = expected + products.reshape(2, -1).sum(1)
        torch.testing.assert_close(answers[sample], expected)


def test_a_reference_on_indices_learns_what_only_a_pair_of_them_tells() -> None:
    g = torch.Generator().manual_seed(0)
    pairs = torch.randint(0, 10, (2, 1200), generator=g)
    tastes, traits = torch.randn(2, 10, generator=g)
    ratings = (tastes[pairs[0]] * traits[pairs[1]])[:, None]
    setup = setup_of(bag(1), (pairs.T, ratings), F.mse_loss, steps=200)
    held, _ = with_reference(setup, yardstick(setup, setup.validation), -math.inf, 0, Runner(Serial()))
    assert held.reference is not None
    assert held.reference > 0.3


def test_the_reference_takes_over_nothing_that_belongs_to_the_users_model() -> None:
    found = reference_setup(setup_of(redraw=lambda model: model.gone(), scheduler=lambda optimizer: None))
    assert found is not None
    assert found[0].redraw is None
    assert found[0].scheduler is None


@pytest.mark.parametrize(
    "setup",
    [
        setup_of(metric=lambda output, target: 0.0),
        setup_of(forward=lambda model, batch: model(batch[0])),
        setup_of(bag(), (torch.randint(0, 5, (400, 65)), clusters()[1])),
    ],
    ids=["own metric", "own forward", "too many columns of indices"],
)
def test_there_is_no_reference_where_none_fits(setup: TrainingSetup) -> None:
    assert reference_setup(setup) is None


@pytest.mark.parametrize(("hopeless", "steps"), [(-math.inf, 40), (2.0, 20)], ids=["open", "behind by half"])
def test_the_shallow_network_ends_by_half_where_it_is_behind(hopeless: float, steps: int) -> None:
    setup, runner = setup_of(), Runner(Serial())
    held, spent = with_reference(setup, yardstick(setup, setup.validation), hopeless, 0, runner)
    assert spent == steps
    assert held.reference is not None, "what it reached by then stands"
    assert f"in {steps} steps" in runner.notes[0]
