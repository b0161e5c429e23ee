from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError
from steadygrad.remedies import initialization, residual, zero_residual_


class Block(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, inplace: bool = False) -> None:
        super().__init__()
        self.body, self.shortcut, self.inplace = body, shortcut, inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        x = x if self.shortcut is None else self.shortcut(x)
        if self.inplace:
            y += x
            return y
        return x + y


def post_norm(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
    )  # fmt: skip


@pytest.mark.parametrize("inplace", [False, True])
def test_the_last_norm_of_a_residual_network_becomes_zero_and_blocks_identities(make_setup, inplace: bool) -> None:
    torch.manual_seed(0)
    stem = nn.Conv2d(2, 4, 3, padding=1)
    wider = Block(post_norm(4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), inplace)
    model = nn.Sequential(stem, Block(post_norm(4), None, inplace), wider, nn.Flatten(), nn.Linear(64, 3))
    setup = make_setup(model, shape=(2, 4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert zero_residual_(setup) == ["1.body.4", "2.body.4"]
    after = model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"1.body.4.weight", "2.body.4.weight"}  # shifts were 0, statistics stay
    x = setup.train[0]
    assert torch.equal(model.eval()(x), model[4](model[3](wider.shortcut(stem(x)))))


def test_transformers_start_as_identities_and_learn(make_setup) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Linear(8, 8), layer, nn.Flatten(), nn.Linear(40, 3))
    setup = make_setup(model, shape=(5, 8))
    treated = initialization(method="zero_residual")(setup).model
    x = setup.train[0]
    assert torch.equal(treated(x), model[3](model[2](model[0](x))))
    treated(x).square().sum().backward()
    for last in (treated[1].self_attn.out_proj, treated[1].linear2):
        assert last.weight.grad.abs().max() > 0


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.one(x) + self.other(x)) + self.one.bias)


def test_sums_that_are_no_residual_connections_are_left_alone(make_setup) -> None:
    with pytest.raises(NotApplicableError, match=r"zero_residual: .* found none. Add or scale branches with residual"):
        zero_residual_(make_setup(Sum()))


def test_branches_that_could_not_learn_from_zero_are_refused(make_setup, mlp) -> None:
    setup = residual()(make_setup(mlp(nn.ReLU)))
    before = {name: value.clone() for name, value in setup.model.state_dict().items()}
    with pytest.raises(NotApplicableError, match=r"but one ends in \d. Add or scale branches"):
        zero_residual_(setup)
    assert all(torch.equal(value, before[name]) for name, value in setup.model.state_dict().items())


def test_smooth_activations_at_the_end_are_passed_through(make_setup, mlp) -> None:
    setup = residual(scale=1.0)(make_setup(mlp(nn.GELU)))
    x = setup.train[0]
    assert zero_residual_(setup) == ["2", "4"]  # of the first branch the input is the data, which no layer made
    assert not setup.model[2].weight.any()
    setup.model(x).square().sum().backward()
    assert setup.model[2].weight.grad.abs().max() > 0
