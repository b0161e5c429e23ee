from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.doctor import apply
from steadygrad.errors import NotApplicableError, SetupError, UsageError
from steadygrad.records import Prescription, Step

from .patients import clusters, mlp, plane, setup_of

EVERYTHING = Prescription(
    (
        Step("standardize_inputs"),
        Step("activation", {"to": "gelu"}),
        Step("residual"),
        Step("normalization", {"kind": "layer"}),
        Step("initialization", {"method": "auto"}),
        Step("optimizer", {"name": "adamw", "lr": 1e-3}),
        Step("clip_by_global_norm", {"max_norm": 1.0}),
    )
)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("prescription", [Prescription(), EVERYTHING], ids=["nothing", "everything"])
def test_the_setup_given_and_the_random_states_stay(prescription: Prescription) -> None:
    setup = setup_of(mlp(depth=5))
    given = dict(vars(setup))
    before, tree = state(setup.model), repr(setup.model)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    treated = apply(prescription, setup, seed=3)
    assert vars(setup) == given
    assert same(state(setup.model), before)
    assert repr(setup.model) == tree
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in setup.model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert not {id(p) for p in treated.model.parameters()} & {id(p) for p in setup.model.parameters()}


@pytest.mark.parametrize("prescription", [Prescription(), EVERYTHING], ids=["nothing", "everything"])
def test_a_seed_gives_the_same_weights_and_another_one_others(prescription: Prescription) -> None:
    setup = setup_of(mlp(depth=5))
    first, again, other = (state(apply(prescription, setup, seed).model) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_the_seed_orders_the_data_too() -> None:
    assert apply(Prescription(), setup_of(), seed=7).seed == 7


def test_weights_are_kept_where_nothing_redraws_them() -> None:
    setup = setup_of(redraw=None)
    assert same(state(apply(Prescription(), setup, seed=1).model), state(setup.model))


def test_a_redraw_of_the_users_own_is_used() -> None:
    def zeros(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()

    treated = apply(Prescription(), setup_of(redraw=zeros))
    assert all(not parameter.any() for parameter in treated.model.parameters())


def test_a_redraw_that_fails_is_told() -> None:
    with pytest.raises(SetupError, match=r"^redraw: failed: ZeroDivisionError"):
        apply(Prescription(), setup_of(redraw=lambda model: 1 / 0))


def test_what_loss_and_transforms_hold_is_copied() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            return F.cross_entropy(output, target)

    loss = Counting()
    treated = apply(Prescription(), setup_of(loss=loss))
    treated.loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    assert (loss.calls, treated.loss.calls) == (0, 1)


def test_a_model_that_cannot_be_copied_is_told() -> None:
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo: dict) -> Stubborn:
            raise TypeError("no copies")

    with pytest.raises(SetupError, match=r"cannot be copied: TypeError: no copies"):
        apply(Prescription(), setup_of(Stubborn(8, 3)))


def test_an_unknown_remedy_or_setting_is_told_before_anything_is_copied() -> None:
    with pytest.raises(UsageError, match=r"expected the name of a remedy, got 'residul'. Did you mean 'residual'\?"):
        apply(Prescription((Step("residul"),)), setup_of())
    with pytest.raises(UsageError, match=r"clip_by_global_norm: expected one of its settings, got 'norm'"):
        apply(Prescription((Step("clip_by_global_norm", {"norm": 1.0}),)), setup_of())


def test_a_remedy_that_does_not_fit_is_told() -> None:
    with pytest.raises(NotApplicableError, match=r"^standardize_targets: expected real targets"):
        apply(Prescription((Step("standardize_targets"),)), setup_of())


def test_float64_stays_float64() -> None:
    x, y = clusters()
    treated = apply(EVERYTHING, setup_of(mlp(depth=5).double(), (x.double(), y)))
    assert {tensor.dtype for tensor in treated.model.state_dict().values()} == {torch.float64}


def test_standardized_targets_come_out_in_the_users_units() -> None:
    x, y = plane(scale=1e3, shift=5e4)
    treated = apply(Prescription((Step("standardize_targets"),)), setup_of(mlp(1), (x, y), F.mse_loss))
    assert treated.model(x).mean().item() == pytest.approx(5e4, rel=0.05)


def test_the_model_is_copied_to_the_setups_device() -> None:
    setup = setup_of(device="meta", redraw=None)
    treated = apply(Prescription(), copy.copy(setup))
    assert {parameter.device.type for parameter in treated.model.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in setup.model.parameters()} == {"cpu"}
