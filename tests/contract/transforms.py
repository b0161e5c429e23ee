"""The table of all gradient transforms, and one training by hand that every other place must agree with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.remedies import (
    Decaying,
    Gradients,
    GradientTransform,
    adaptive_clip,
    add_weights,
    centralize_gradients,
    chain,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_parameter_norm,
    clip_by_quantile,
    clip_by_running_norm,
    clip_by_value,
    clip_by_zscore,
    clip_spikes,
    gradient_noise,
    normalize_gradients,
    project_gradients,
    skip_nonfinite,
    skip_spikes,
    zero_nonfinite,
)

# A new transform is a line here, with settings under which it acts within the steps of `train`.
CASES: dict[str, Callable[[], GradientTransform]] = {
    "adaptive_clip": lambda: adaptive_clip(0.01),
    "centralize_gradients": centralize_gradients,
    "clip_by_block_rms": lambda: clip_by_block_rms(0.02),
    "clip_by_global_norm": lambda: clip_by_global_norm(0.1),
    "clip_by_parameter_norm": lambda: clip_by_parameter_norm(0.05),
    "clip_by_quantile": lambda: clip_by_quantile(30.0, history=5),
    "clip_by_running_norm": lambda: clip_by_running_norm(1.0, warmup=3, warmup_norm=0.2),
    "clip_by_value": lambda: clip_by_value(0.01),
    "clip_by_zscore": lambda: clip_by_zscore(0.3, warmup=3),
    "clip_spikes": lambda: clip_spikes(0.5, warmup=2),
    "gradient_noise": lambda: gradient_noise(0.01, seed=3),
    "l2_penalty": lambda: add_weights(0.1),
    "normalize_gradients": normalize_gradients,
    "project_gradients": lambda: project_gradients(0.2, norm="l1"),
    "skip_nonfinite": skip_nonfinite,
    "skip_spikes": lambda: skip_spikes(0.2, window=4, give_up_after=2),
    "zero_nonfinite": zero_nonfinite,
    "chain": lambda: chain(
        skip_nonfinite(), adaptive_clip(0.05), clip_by_global_norm(Decaying(0.1, 0.9, 0.01)), centralize_gradients()
    ),
    "normalize each": lambda: normalize_gradients(over="each"),
    "project to linf": lambda: project_gradients(0.01, norm="linf"),
}
STEPS = 8


def network(zero_head: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    if zero_head:
        nn.init.zeros_(model[-1].weight)
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 6, generator=generator)
    return x * (5.0 if step % 4 == 3 else 1.0), torch.randint(4, (8,), generator=generator)  # some steps are spikes


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, y = batch(step)
    return F.cross_entropy(model(x), y)


def train_by_hand(
    transform: GradientTransform, optimizer_of: Callable[..., torch.optim.Optimizer], steps: int = STEPS
) -> list[Tensor]:
    """Train without :func:`attach`; return the weights."""
    model = network()
    parameters = list(model.parameters())
    optimizer = optimizer_of(parameters)
    state = transform.init(parameters)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        with torch.no_grad():
            gradients = Gradients(parameters)
            state = transform.update(gradients, state, parameters)
            gradients.write()
        if not gradients.skip:
            optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]
