"""Shuffled weights are a fresh draw of the same kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from steadygrad.training import seeded, shuffle_weights


def redrawn(model: nn.Module, seed: int = 0) -> nn.Module:
    with seeded(seed):
        shuffle_weights(model)
    return model


def test_a_weight_changes_and_a_vector_stays() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = redrawn(model).state_dict()
    assert [name for name in after if not torch.equal(after[name], before[name])] == ["0.weight"]


def test_a_draw_follows_from_the_seed() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(0)
        return redrawn(nn.Linear(8, 8), seed).weight

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_channels_of_a_convolution_stay_whole() -> None:
    model = nn.Conv2d(4, 6, 3)
    before = {kernel.numpy().tobytes() for kernel in model.weight.detach().reshape(24, 9)}
    redrawn(model)
    assert {kernel.numpy().tobytes() for kernel in model.weight.detach().reshape(24, 9)} == before


@pytest.mark.parametrize("cell", [nn.RNN, nn.LSTM, nn.GRU, nn.LSTMCell])
def test_an_identity_of_a_recurrent_layer_stays_one(cell: type[nn.Module]) -> None:
    model = cell(3, 5)
    weight = next(value for name, value in model.named_parameters() if "weight_hh" in name)
    with torch.no_grad():
        weight.copy_(torch.eye(5).repeat(len(weight) // 5, 1))
    before = weight.detach().clone()
    redrawn(model)
    assert torch.equal(weight, before)


def test_the_padding_row_of_an_embedding_keeps_its_place() -> None:
    for seed in range(20):
        model = nn.Embedding(6, 3, padding_idx=2)
        before = model.weight.detach().clone()
        redrawn(model, seed)
        assert bool((model.weight[2] == 0).all())
        assert torch.equal(model.weight.detach().flatten().sort().values, before.flatten().sort().values)


def test_frozen_weights_stay() -> None:
    model = nn.Linear(8, 8).requires_grad_(False)
    before = model.weight.clone()
    assert torch.equal(redrawn(model).weight, before)


def test_tied_weights_are_shuffled_once_and_stay_tied() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    lone = nn.Linear(8, 8)
    lone.load_state_dict(first.state_dict())
    redrawn(nn.Sequential(first, second))
    assert first.weight is second.weight
    assert torch.equal(first.weight, redrawn(nn.Sequential(lone)).get_parameter("0.weight"))
