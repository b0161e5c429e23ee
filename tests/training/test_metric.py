"""One number for how well a model does, right for every form of answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import SetupError
from steadygrad.training import TrainingSetup, evaluate

X = torch.randn(2500, 4, generator=torch.Generator().manual_seed(0))  # three evaluation batches


class Given(nn.Module):
    """Gives back its input; the parameter is there to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def score(output: Tensor, target: Any, loss: Any, **settings: Any) -> tuple[str, str, float]:
    setup = TrainingSetup(Given(), loss, (output, target), **settings)
    task, found = evaluate(setup, setup.model, (output, target))
    return task.name, task.kind, found


def test_classes_are_counted() -> None:
    target = X.argmax(1)
    target[:500] = (target[:500] + 1) % 4
    assert score(X, target, F.cross_entropy) == ("accuracy", "classes", 0.8)


def test_pixels_and_tokens_are_counted_wherever_the_classes_lie() -> None:
    images = X.reshape(100, 5, 5, 4)[:, :, :4].movedim(3, 1)
    assert score(images, images.argmax(1), F.cross_entropy)[1:] == ("classes", 1.0)
    tokens = X.reshape(500, 5, 4)
    loss = lambda output, target: F.cross_entropy(output.movedim(2, 1), target)  # noqa: E731
    assert score(tokens, tokens.argmax(2), loss)[1:] == ("classes", 1.0)


def test_ignored_targets_do_not_count() -> None:
    target = X.argmax(1)
    target[::2] = -100
    assert score(X, target, F.cross_entropy)[2] == 1.0


def test_one_hot_targets_are_classes() -> None:
    target = F.one_hot(X.argmax(1), 4).float()
    assert score(X, target, F.mse_loss) == ("accuracy", "classes", 1.0)


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        (X[:, :1] * 5, F.binary_cross_entropy_with_logits),
        (X[:, :1].sigmoid(), F.binary_cross_entropy),
        (X[:, :1].sigmoid(), F.mse_loss),
        (X[:, :1] * 5, lambda output, target: F.softplus(output - 2 * target * output).mean()),
    ],
    ids=["logits", "probabilities", "squares", "logits of one's own"],
)
def test_the_loss_decides_where_yes_begins(output: Tensor, loss: Any) -> None:
    target = (X[:, :1] > 0).float()
    assert score(output, target, loss) == ("accuracy", "binary", 1.0)


def test_several_yes_or_no_questions_at_once() -> None:
    assert score(X, (X > 0).float(), F.binary_cross_entropy_with_logits)[1:] == ("binary", 1.0)


def test_whole_numbers_of_one_output_are_no_classes() -> None:
    target = torch.arange(2500)
    name, _, found = score(
        target.float()[:, None], target, lambda output, target: F.mse_loss(output[:, 0], target.float())
    )
    assert (name, found) == ("R2", 1.0)


def test_r2_agrees_with_its_definition() -> None:
    target = X * 3 + 100
    output = target + torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    expected = (
        1 - ((output - target).double().square().sum() / (target - target.mean(0)).double().square().sum()).item()
    )
    name, kind, found = score(output, target, F.mse_loss)
    assert (name, kind) == ("R2", "real")
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_column_of_outputs_and_a_row_of_targets_are_not_spread_over_each_other() -> None:
    target = X[:, 0]
    assert score(target[:, None].clone(), target, lambda output, target: F.mse_loss(output[:, 0], target))[2] == 1.0


def test_a_metric_of_ones_own_sees_everything_at_once() -> None:
    def worst(output: Tensor, target: Tensor) -> float:
        return -float((output - target).abs().max()) - len(output)

    assert score(X, X, F.mse_loss, metric=worst) == ("worst", "custom", -2500.0)


def test_a_metric_that_fails_is_blamed() -> None:
    with pytest.raises(
        SetupError, match=r"metric: failed on float32\[2500, 4\] and float32\[2500, 4\]: ZeroDivisionError"
    ):
        score(X, X, F.mse_loss, metric=lambda output, target: 1 / 0)


def test_without_a_target_the_loss_counts_weighted_by_rows() -> None:
    setup = TrainingSetup(Given(), lambda output, target: output.mean(), (X,))
    task, found = evaluate(setup, setup.model, (X,))
    assert task == ("negative loss", "loss")
    assert found == pytest.approx(-X.double().mean().item(), rel=1e-4)


def test_a_language_model_with_its_own_loss_is_scored_by_it() -> None:
    def forward(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"loss": torch.tensor(2.5), "logits": model(batch["ids"])}

    data = {"ids": X.reshape(500, 5, 4), "labels": torch.zeros(500, 5, dtype=torch.long)}
    setup = TrainingSetup(Given(), None, data, forward=forward)
    assert evaluate(setup, setup.model, data) == (("negative loss", "loss"), -2.5)


def test_what_a_model_calls_logits_begins_at_zero() -> None:
    def forward(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"loss": torch.zeros(()), "logits": model(batch["x"])}

    data = {"x": X[:, :1], "labels": (X[:, :1] > 0).float()}
    setup = TrainingSetup(Given(), None, data, forward=forward)
    assert evaluate(setup, setup.model, data) == (("accuracy", "binary"), 1.0)


def test_a_metric_without_outputs_that_fit_together_is_told() -> None:
    data = [(X[:8].reshape(2, 4, 4), X[:2]), (X[:12].reshape(2, 6, 4), X[:2])]
    setup = TrainingSetup(Given(), lambda output, target: output.mean(), data, metric=lambda output, target: 1.0)
    with pytest.raises(SetupError, match="metric: expected an output tensor and a target for <lambda>, of one shape"):
        evaluate(setup, setup.model, data)


def test_batches_padded_to_other_lengths_are_scored_by_the_loss() -> None:
    data = [(X[:8].reshape(2, 4, 4), torch.zeros(2, 4).long()), (X[:12].reshape(2, 6, 4), torch.zeros(2, 6).long())]
    setup = TrainingSetup(Given(), lambda output, target: F.cross_entropy(output.movedim(2, 1), target), data)
    task, found = evaluate(setup, setup.model, data)
    assert task.kind == "loss"
    assert math.isfinite(found)


@pytest.mark.parametrize(
    ("output", "target"),
    [(X * math.nan, X.argmax(1)), (X * math.nan, X), (X[:1], X[:1])],
    ids=["nan classes", "nan numbers", "no spread"],
)
def test_a_score_that_is_no_number_is_minus_infinity(output: Tensor, target: Tensor) -> None:
    loss = F.cross_entropy if not target.is_floating_point() else F.mse_loss
    assert score(output, target, loss)[2] == -math.inf


def test_the_model_is_scored_in_evaluation_mode_and_its_modes_come_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(1.0))
    model[1].eval()
    setup = TrainingSetup(model, F.mse_loss, (X, X))
    before = model[1].running_mean.clone()
    assert evaluate(setup, model, (X, X))[1] == evaluate(setup, model, (X, X))[1]
    assert [module.training for module in model] == [True, False, True]
    assert torch.equal(model[1].running_mean, before)


def test_modes_come_back_when_the_model_fails() -> None:
    model = nn.Linear(3, 4)
    with pytest.raises(SetupError, match="model: forward failed"):
        evaluate(TrainingSetup(model, F.mse_loss, (X, X)), model, (X, X))
    assert model.training


def test_scoring_keeps_no_graph() -> None:
    kept: list[Tensor] = []
    setup = TrainingSetup(Given(), lambda output, target: kept.append(output) or output.mean(), (X, X))
    evaluate(setup, setup.model, (X, X))
    assert not any(output.requires_grad for output in kept)
