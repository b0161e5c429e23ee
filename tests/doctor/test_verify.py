from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.doctor import verify
from steadygrad.doctor.runner import Runner
from steadygrad.doctor.verify import train_pairs
from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Prescription, Step, Verdict
from steadygrad.training import Serial

from .patients import mlp, setup_of, sick_setup

CURE = Prescription((Step("initialization", {"method": "auto"}), Step("optimizer", {"name": "adamw", "lr": 0.03})))
POISON = Prescription((Step("learning_rate", {"lr": 1e6}),))


def test_a_cure_is_better_on_every_seed_and_reaches_the_goal() -> None:
    proof = verify(CURE, sick_setup())
    assert proof.verdict is Verdict.CURED
    assert [run.seed for run in proof.before] == [run.seed for run in proof.after] == [1, 2, 3]
    assert proof.metric == "accuracy"
    assert proof.goal is not None
    assert proof.spread(proof.after)[0] >= proof.goal > proof.spread(proof.before)[0]


def test_where_the_training_is_prolonged_the_shallow_network_trains_as_long() -> None:
    longer = Prescription((*CURE.steps, Step("longer_training", {"times": 10})))
    short, long = (verify(prescription, sick_setup(steps=6)) for prescription in (CURE, longer))
    assert short.goal is not None
    assert long.goal is not None
    assert long.goal > short.goal + 0.1, "six steps teach it little"
    assert long.goal == verify(CURE, sick_setup(steps=60)).goal


def test_better_but_short_of_the_goal_is_improved() -> None:
    slow = Prescription((Step("initialization", {"method": "auto"}), Step("learning_rate", {"lr": 0.005})))
    proof = verify(slow, sick_setup(steps=20))
    assert proof.verdict is Verdict.IMPROVED
    assert proof.goal is not None
    assert proof.spread(proof.after)[0] < proof.goal


@pytest.mark.parametrize("prescription", [Prescription(), POISON], ids=["nothing", "poison"])
def test_no_better_is_not_cured(prescription: Prescription) -> None:
    assert verify(prescription, sick_setup(steps=20)).verdict is Verdict.NOT_CURED


def test_better_but_within_luck_is_not_cured() -> None:
    """Labels at random: whatever wins by chance has won nothing."""
    setup = setup_of(lr=1e6, steps=20)  # the untreated training diverges
    target = torch.randint(0, 3, (400,), generator=torch.Generator().manual_seed(1))
    setup = setup.replace(train=(setup.train[0], target[:300]), validation=(setup.validation[0], target[300:]))
    proof = verify(CURE, setup)
    assert all(after.score > before.score for before, after in zip(proof.before, proof.after, strict=True))
    assert proof.verdict is Verdict.NOT_CURED
    assert proof.goal is None


def test_without_a_reference_improved_is_the_most() -> None:
    def accuracy(output: Tensor, target: Tensor) -> float:
        return (output.argmax(1) == target).double().mean().item()

    proof = verify(CURE, sick_setup(metric=accuracy))
    assert (proof.verdict, proof.goal, proof.chance) == (Verdict.IMPROVED, None, None)


def test_pairs_see_the_same_data_in_the_same_order() -> None:
    seen: list[tuple[int, ...]] = []

    def forward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if model.training and torch.is_grad_enabled():
            seen.append(tuple(batch[1].tolist()))
        return model(batch[0])

    verify(Prescription((Step("learning_rate", {"lr": 0.5}),)), setup_of(forward=forward, steps=5), seeds=(4, 5))
    first_before, second_before, first_after, second_after = (seen[i : i + 5] for i in range(0, 20, 5))
    assert first_before == first_after
    assert second_before == second_after
    assert first_before != second_before


def test_a_remedy_that_keeps_the_setup_gives_the_same_scores() -> None:
    same = Prescription((Step("learning_rate", {"lr": 0.1}),))
    proof = verify(same, setup_of(steps=10), seeds=(1, 2))
    assert proof.before == proof.after


def test_random_states_stay() -> None:
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(64, 8), torch.randint(0, 3, (64,))), batch_size=16, shuffle=True
    )
    before = torch.get_rng_state()
    verify(Prescription(), setup_of(train=loader, validation=loader, steps=3), seeds=(1,))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_validation_data_and_no_seeds_are_told() -> None:
    with pytest.raises(UsageError, match=r"^verify: expected a set-up with validation data, got None"):
        verify(CURE, sick_setup(validation=None))
    with pytest.raises(UsageError, match=r"^verify: expected at least one seed, got none"):
        verify(CURE, sick_setup(), seeds=())
    with pytest.raises(UsageError, match=r"expected an optimizer, got None"):
        verify(CURE, sick_setup(optimizer=None))


def test_what_does_not_fit_is_told_at_once() -> None:
    with pytest.raises(NotApplicableError, match=r"^standardize_targets"):
        verify(Prescription((Step("standardize_targets"),)), sick_setup())


class Failing:
    """An executor on which every treated training fails."""

    def map(self, function, shared, items):  # type: ignore[no-untyped-def]
        for answer in Serial().map(function, shared, items):
            treated = answer.prescription.steps and answer.prescription.steps[0].remedy == "learning_rate"
            yield type(answer)(answer.prescription, problem="out of memory") if treated else answer


def test_treated_trainings_that_fail_are_not_cured_and_say_why() -> None:
    pairs = train_pairs(POISON, sick_setup(steps=5), (1, 2), Runner(Failing()))
    assert pairs.proof.verdict is Verdict.NOT_CURED
    assert pairs.proof.after == ()
    assert pairs.problems == ("out of memory",)
    assert pairs.weights is None
    assert all(math.isnan(value) for value in pairs.proof.spread(pairs.proof.after))


def test_the_first_treated_training_keeps_its_weights() -> None:
    pairs = train_pairs(CURE, sick_setup(steps=5), (1, 2), Runner(Serial()))
    assert pairs.weights is not None
    assert pairs.weights.keys() == mlp(depth=5).state_dict().keys()


def test_progress_counts_optimizer_steps() -> None:
    told: list[tuple[str, int, int]] = []
    train_pairs(CURE, sick_setup(steps=5), (1, 2), Runner(Serial(), lambda *news: told.append(news)))
    assert told == [("proving it on fresh seeds", done, 30) for done in range(0, 31, 5)]


def test_real_targets_are_scored_by_r2() -> None:
    def scores(seeds: Sequence[int]) -> tuple[str, float | None]:
        x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        setup = setup_of(mlp(1), loss=F.mse_loss, train=(x, x[:, :1]), validation=(x, x[:, :1]), steps=5)
        proof = verify(Prescription(), setup, seeds)
        return proof.metric, proof.chance

    assert scores((1,)) == ("R2", 0.0)
