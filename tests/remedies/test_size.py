"""Wider and shallower networks, and rows left out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import make
from steadygrad.training import TrainingSetup

X, Y = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


def setup_of(model: nn.Module, x: Tensor = X, **more: object) -> TrainingSetup:
    return TrainingSetup(model, F.cross_entropy, (x, Y), **more)  # type: ignore[arg-type]


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.out(self.norm(x + torch.relu(self.b(x))))


class Joined(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([x, torch.relu(self.a(x))], -1)[:, :8])


def chain(depth: int) -> nn.Sequential:
    hidden = [layer for i in range(depth - 1) for layer in (nn.Linear(8 if i else 6, 8), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(8, 3))


def sizes(model: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]


def test_every_hidden_layer_gets_more_units_and_both_ends_stay() -> None:
    assert sizes(make("width", times=3)(setup_of(chain(3))).model) == [(6, 24), (24, 24), (24, 3)]


def test_shortcuts_and_normalization_grow_along() -> None:
    wide = make("width")(setup_of(Skip())).model
    assert sizes(wide) == [(6, 16), (16, 16), (16, 3)]
    assert wide(X).shape == (24, 3)


@pytest.mark.parametrize(
    "model", [nn.Linear(6, 3), Joined(), nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 3, 1), nn.Flatten())]
)
def test_what_cannot_be_widened_is_told(model: nn.Module) -> None:
    with pytest.raises(NotApplicableError, match=r"^width: "):
        make("width")(setup_of(model))


def test_hidden_layers_go_from_the_end_until_few_are_left() -> None:
    short = make("depth", layers=3)(setup_of(chain(9))).model
    assert sizes(short) == [(6, 8), (8, 8), (8, 3)]
    assert sum(isinstance(module, nn.ReLU) for module in short) == 2, "their activations go with them"
    with pytest.raises(NotApplicableError, match=r"^depth: expected more than 4 weight layers"):
        make("depth")(setup_of(chain(3)))


def test_rows_with_nan_are_left_out_of_both_parts() -> None:
    x = X.clone()
    x[3, 2], x[20, 0] = math.nan, math.inf
    treated = make("complete_rows")(setup_of(chain(2), x, validation=(x[:5], Y[:5])))
    assert torch.equal(treated.train[0], x[x.isfinite().all(1)])
    assert torch.equal(treated.train[1], Y[x.isfinite().all(1)])
    assert len(treated.validation[0]) == 4
    with pytest.raises(NotApplicableError, match=r"^complete_rows: expected rows with NaN or infinity, found none"):
        make("complete_rows")(setup_of(chain(2)))
    with pytest.raises(NotApplicableError, match=r"got batches"):
        make("complete_rows")(setup_of(chain(2)).replace(train=[(x, Y)]))
    with pytest.raises(NotApplicableError, match=r"every one holds NaN"):
        make("complete_rows")(setup_of(chain(2), x * math.nan))


@pytest.mark.parametrize(("name", "settings"), [("width", {"times": 1}), ("depth", {"layers": 0})])
def test_settings_out_of_range_are_told(name: str, settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: expected"):
        make(name, **settings)(setup_of(chain(3)))
