"""The probe against the slow obvious way: a forward pass by hand in float64, and one gradient call a tensor."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.records import Moments
from steadygrad.signals import probe
from steadygrad.training import TrainingSetup

BATCH = 16


class Attentive(nn.Module):
    """One attention layer with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.head = (
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x + self.attention(x, x, x)[0])[:, 0])

    def by_hand(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        attended = self.attention(x, x, x)[0]
        normed = F.layer_norm(x + attended, (8,), self.norm.weight, self.norm.bias)
        output = normed[:, 0] @ self.head.weight.T + self.head.bias
        return {"attention": attended, "norm": normed, "head": output}, output


class Convolutional(nn.Module):
    """Two convolutions, the second with an in-place activation and a shared weight layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.a(x))
        x = x + torch.tanh(self.b(x))
        return self.head(x.mean((2, 3)))

    def by_hand(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        a = F.conv2d(x, self.a.weight, self.a.bias)
        relu = a.clamp(min=0)
        b = F.conv2d(relu, self.b.weight, self.b.bias, padding=1)
        tanh = b.tanh()
        output = (relu + tanh).mean((2, 3)) @ self.head.weight.T + self.head.bias
        return {"a": a, "relu": relu, "b": b, "tanh": tanh, "head": output}, output


class Unrolled(nn.Module):
    """A recurrent layer by hand: one weight, used at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.cell, self.head = nn.Parameter(torch.randn(8, 8) / 3), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.sigmoid(self.cell(x[:, step]) + state @ self.w)
        return self.head(state)

    def by_hand(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        seen: dict[str, Tensor] = {}
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            tail = f"#{step + 1}" if step else ""
            seen[f"cell{tail}"] = x[:, step] @ self.cell.weight.T + self.cell.bias
            seen[f"w{tail}"] = state @ self.w
            state = (seen[f"cell{tail}"] + seen[f"w{tail}"]).sigmoid()
            seen[f"sigmoid{tail}"] = state
        output = state @ self.head.weight.T + self.head.bias
        return seen | {"head": output}, output


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "attention": (Attentive, (5, 8)),
    "convolutions": (Convolutional, (1, 6, 6)),
    "recurrence": (Unrolled, (3, 8)),
}
OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01, initial_accumulator_value=0.1),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, foreach=True),
    "Adafactor": torch.optim.Adafactor,
    "two groups": lambda parameters: torch.optim.SGD(
        [{"params": [p], "lr": 0.1 * i} for i, p in enumerate(parameters, 1)]
    ),
}


def make(case: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Tensor, Tensor]:
    build, shape = CASES[case]
    torch.manual_seed(0)
    model = build().to(dtype)
    return model, torch.randn(BATCH, *shape, dtype=dtype), torch.arange(BATCH) % 3


def look(model: nn.Module, x: Tensor, y: Tensor, optimizer: Any = None) -> Any:
    return probe(TrainingSetup(model, F.cross_entropy, (x, y), optimizer=optimizer, batch_size=BATCH), (x, y))


def agree(found: Moments, values: Tensor, rel: float) -> None:
    exact = values.detach().double()
    rms = exact.square().mean().sqrt().item()
    assert found.rms == pytest.approx(rms, rel=rel)
    assert found.mean == pytest.approx(exact.mean().item(), rel=rel, abs=rel * rms)
    assert found.abs_max == pytest.approx(exact.abs().max().item(), rel=rel)
    assert (found.nonfinite, found.numel) == (0, exact.numel())


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_agree_with_a_forward_pass_by_hand(case: str, dtype: torch.dtype, rel: float) -> None:
    model, x, y = make(case, dtype)
    twin = copy.deepcopy(model).double()
    intermediate, output = twin.by_hand(x.double())
    loss = F.cross_entropy(output, y)
    grads = torch.autograd.grad(loss, [*intermediate.values(), *twin.parameters()])
    output_grads = dict(zip(intermediate, grads, strict=False))
    weight_grads = dict(zip((name for name, _ in twin.named_parameters()), grads[len(intermediate) :], strict=True))

    blueprint, observation = look(model, x, y)
    assert [layer.name for layer in blueprint.layers] == list(intermediate)
    assert observation.loss == pytest.approx(loss.item(), rel=rel)
    norm = math.sqrt(sum(grad.square().sum().item() for grad in weight_grads.values()))
    assert observation.grad_norm == pytest.approx(norm, rel=rel)
    for layer, stats in zip(blueprint.layers, observation.layers, strict=True):
        agree(stats.output, intermediate[layer.name], rel)
        agree(stats.output_grad, output_grads[layer.name], rel)
        deviation = intermediate[layer.name].var(0, correction=0).mean().sqrt().item()
        assert stats.signal == pytest.approx(deviation, rel=rel, abs=1e-12)
        if stats.weight is None:
            continue
        own = [
            name
            for name in weight_grads
            if name.startswith(f"{layer.name.split('#')[0]}.") or name == layer.name.split("#")[0]
        ]
        matrices = [name for name in own if weight_grads[name].dim() > 1]
        agree(stats.weight, torch.cat([twin.get_parameter(name).flatten() for name in matrices]), rel)
        agree(stats.weight_grad, torch.cat([weight_grads[name].flatten() for name in matrices]), rel)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_updates_agree_with_a_step_of_the_optimizer_itself(case: str, name: str) -> None:
    model, x, y = make(case)
    twin = copy.deepcopy(model)
    optimizer = OPTIMIZERS[name](list(twin.parameters()))
    F.cross_entropy(twin(x), y).backward()
    optimizer.step()

    blueprint, observation = look(model, x, y, OPTIMIZERS[name])
    assert blueprint.optimizer == type(optimizer).__name__
    compared = 0
    for stats in observation.layers:
        if stats.update_ratio is None:
            continue
        own = stats.name.split("#")[0]
        names = [n for n, p in model.named_parameters() if p.dim() > 1 and (n == own or n.startswith(f"{own}."))]
        before, after = (
            torch.cat([m.get_parameter(n).detach().flatten() for n in names]).double() for m in (model, twin)
        )
        assert stats.update_ratio == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-4)
        compared += 1
    assert compared >= 2
