"""Fine-tune a network with targets: one pass at a time, each a function of its seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import SetupError, UsageError
from steadygrad.remedies import MaxNorm, after_step, attach, clip_by_global_norm
from steadygrad.training import seeded

__all__ = ["FineTuner"]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda parameters, **settings: torch.optim.Adam(parameters, fused=True, **settings),
    "sgd": lambda parameters, **settings: torch.optim.SGD(parameters, momentum=0.9, fused=True, **settings),
}


@dataclass(frozen=True)
class FineTuner:
    """How a network is fine-tuned.

    Attributes:
        optimizer: ``"adam"`` or ``"sgd"`` (momentum 0.9).
        weight_decay: L2 penalty as the optimizer has it.
        max_norm: Largest norm of each unit's incoming weights; None for no bound.
        clip: Largest global norm of the gradients; None for no bound.
        precision: dtype of the products; the parameters stay in float32.
    """

    optimizer: str
    weight_decay: float
    max_norm: float | None
    clip: float | None
    precision: torch.dtype

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a network, with what acts on its gradients and weights.

        Raises:
            UsageError: If a setting is wrong.
        """
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(
                f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}. Choose one of them."
            )
        made = OPTIMIZERS[self.optimizer](network.parameters(), lr=0.0, weight_decay=self.weight_decay)
        if self.clip is not None:
            attach(made, clip_by_global_norm(self.clip))
        if self.max_norm is not None:
            after_step(made, MaxNorm(self.max_norm))
        return made

    def epoch(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        batches: Iterable[tuple[Tensor, Tensor]],
        rate: float,
        seed: int,
    ) -> float:
        """Train one pass and return the mean loss of its batches; random states are left as found.

        Raises:
            SetupError: If the loss is not finite.
        """
        for group in optimizer.param_groups:
            group["lr"] = rate
        total, count = 0.0, 0
        network.train()
        with seeded(seed):
            for inputs, targets in batches:
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(inputs.device.type, self.precision, enabled=self.precision != torch.float32):
                    output = network(inputs)
                value = loss(output.float(), targets)
                value.backward()
                optimizer.step()
                total, count = total + float(value.detach()), count + 1
        network.eval()
        if not total < float("inf"):
            raise SetupError(
                f"fine-tuning: expected a finite loss, got {total} at a rate of {rate:.3g}. Lower learning_rate."
            )
        return total / max(count, 1)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers, by position of the parameter and name."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items() if v is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo :func:`optimizer_tensors`."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        position, _, key = name.partition(".")
        state.setdefault(int(position), {})[key] = value.clone()
    optimizer.load_state_dict({**whole, "state": state})
