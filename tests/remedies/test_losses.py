from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError
from steadygrad.remedies import head, loss


def test_a_double_softmax_is_unwired(make_setup, mlp) -> None:
    setup = make_setup(nn.Sequential(*mlp(), nn.Softmax(dim=1)))
    treated = head(to="identity")(setup)
    x = setup.train[0]
    torch.testing.assert_close(treated.model(x).softmax(1), setup.model(x))
    assert list(treated.model.state_dict()) == list(setup.model.state_dict())


def test_head_goes_into_nested_modules_and_may_be_the_whole_model(make_setup, mlp) -> None:
    inner = nn.Sequential(nn.Linear(8, 3), nn.Sigmoid())
    treated = head(to="log_softmax")(make_setup(nn.Sequential(mlp(outputs=8), nn.ReLU(), inner)))
    torch.testing.assert_close(treated.model(torch.ones(2, 8)).exp().sum(1), torch.ones(2))
    assert isinstance(treated.model[2][1], nn.LogSoftmax)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.out(x), 1)


def test_heads_that_cannot_be_replaced_are_refused(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"but 6 makes it. Change the loss instead"):
        head()(make_setup(mlp()))
    with pytest.raises(NotApplicableError, match=r"the model calls softmax as a function inside its forward"):
        head()(make_setup(Functional()))
    act = nn.Sigmoid()
    with pytest.raises(NotApplicableError, match=r"1 makes the model's output and stands between hidden layers too"):
        head()(make_setup(nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 3), act)))


def test_losses_by_name(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    x, y = setup.train
    logits = setup.model(x)
    torch.testing.assert_close(loss(to="cross_entropy")(setup).loss(logits, y), F.cross_entropy(logits, y))
    torch.testing.assert_close(loss(to="nll")(setup).loss(logits.log_softmax(1), y), F.cross_entropy(logits, y))


def test_targets_take_the_shape_and_dtype_of_outputs(make_setup, mlp) -> None:
    setup = make_setup(mlp(outputs=1))
    output, target = torch.tensor([[0.5], [2.0]]), torch.tensor([0, 1])
    assert loss(to="mse")(setup).loss(output, target).item() == pytest.approx((0.25 + 1.0) / 2)
    expected = F.binary_cross_entropy_with_logits(output, target[:, None].float())
    assert torch.equal(loss(to="bce_with_logits")(setup).loss(output, target), expected)
    torch.testing.assert_close(loss(to="bce")(setup).loss(output.sigmoid(), target), expected)


def test_a_loss_inside_forward_cannot_be_replaced(make_setup, mlp) -> None:
    setup = make_setup(mlp(), loss=None, forward=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    with pytest.raises(NotApplicableError, match=r"its forward returns the loss itself"):
        loss()(setup)
