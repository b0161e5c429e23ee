"""What a sound shallow network reaches on the same data: the yardstick of a cure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.records import Prescription, Step
from steadygrad.remedies.losses import Matched
from steadygrad.training import (
    Task,
    TrainingSetup,
    device_of,
    first_batch,
    input_tensors,
    output_tensor,
    preserved,
    run_batch,
    target_of,
    task_of,
)

__all__ = ["reference_setup", "task_and_output"]

WIDTH = 64
# Of the factorization machine: factors and hashed rows a column, and how many columns are still few. With 16 factors it
# comes about nine tenths as far on the zoo's ratings as the named healthy network, in as many steps.
FACTORS, ROWS, MOST_COLUMNS = 16, 1000, 64


def task_and_output(setup: TrainingSetup) -> tuple[Task, Tensor | None]:
    """Return what the set-up learns, and its output on the first batch."""
    batch = first_batch(setup)
    with preserved(setup.model), torch.no_grad():
        step = run_batch(setup, setup.model, batch)
    output = output_tensor(step.output)
    return task_of(setup, output, step.target if isinstance(step.target, Tensor) else None), output


def reference_setup(setup: TrainingSetup) -> tuple[TrainingSetup, Prescription] | None:
    """Return a shallow network on the set-up's own data, and what to apply to it before it is trained.

    Floating inputs: standardized, two hidden layers of 64 ReLU units with He initialization, Adam at 1e-3. Columns of
    indices: a :class:`FactorizationMachine`, Adam at 3e-3. Real targets standardized, as many steps as planned, in the
    same batches.

    Returns:
        None where it does not fit: inputs that are neither one floating tensor nor a few columns of indices, a metric
        or forward pass of the user's own, or targets that are neither classes nor numbers.
    """
    batch = first_batch(setup)
    inputs, target = input_tensors(batch), target_of(batch)
    task, output = task_and_output(setup)
    loss: Callable[[Tensor, Tensor], Tensor]
    if setup.forward is not None or output is None:
        return None
    if task.kind == "classes" and output.dim() == 2:
        loss, shape = F.cross_entropy, output.shape[1:]
    elif task.kind in ("binary", "real") and isinstance(target, Tensor):
        function = F.mse_loss if task.kind == "real" else F.binary_cross_entropy_with_logits
        loss, shape = Matched(function), target.shape[1:]
    else:
        return None
    steps = [Step("standardize_targets")] if task.kind == "real" else []
    model: nn.Module
    if len(inputs) == 1 and inputs[0].is_floating_point() and inputs[0].dim() >= 2:
        model, rate = _perceptron(inputs[0], shape), 1e-3
        steps = [Step("standardize_inputs"), *steps, Step("initialization", {"method": "he"})]
    elif columns := _columns(inputs):
        model, rate = FactorizationMachine(columns, shape).to(output.dtype), 3e-3
    else:
        return None
    shallow = setup.replace(
        model=model.to(device_of(setup)),
        loss=loss,
        optimizer=partial(torch.optim.Adam, lr=rate),
        scheduler=None,
        redraw=None,
        device=device_of(setup),
    )
    return shallow, Prescription(tuple(steps), "a sound shallow network")


def _perceptron(inputs: Tensor, shape: torch.Size) -> nn.Module:
    """Return two hidden layers that read ``(samples, *)`` and answer ``(samples, *shape)``."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(inputs.shape[1:]), WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, math.prod(shape)),
        nn.Unflatten(1, shape) if len(shape) else nn.Flatten(0),
    ).to(inputs.dtype)


def _columns(inputs: Sequence[Tensor]) -> int:
    """Return how many columns of indices there are together; 0 where there are others, or too many."""
    whole = all(not x.is_floating_point() and not x.is_complex() and x.dim() in (1, 2) for x in inputs)
    columns = sum(1 if x.dim() == 1 else x.shape[1] for x in inputs)
    return columns if whole and columns <= MOST_COLUMNS else 0


class FactorizationMachine(nn.Module):
    """A number for each index and for each pair of them, the latter as a product of factors.

    Rendle 2010, Factorization Machines, eq. 1 and Lemma 3.1, with one-hot columns. Departure: indices share a thousand
    rows a column by their remainder (Weinberger et al. 2009, Feature Hashing), so that none is out of range.

    Args:
        columns: How many indices a sample has.
        shape: Of an answer.
    """

    def __init__(self, columns: int, shape: torch.Size) -> None:
        super().__init__()
        self.shape, units = shape, math.prod(shape)
        self.bias = nn.Parameter(torch.zeros(units))
        self.weights = nn.Embedding(columns * ROWS, units)
        self.factors = nn.Embedding(columns * ROWS, units * FACTORS)
        nn.init.zeros_(self.weights.weight)
        nn.init.normal_(self.factors.weight, std=0.1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Read tensors of shape ``(samples,)`` or ``(samples, columns)``; answer ``(samples, *shape)``."""
        indices = torch.cat([x.reshape(len(x), -1).long() for x in inputs], 1)
        rows = indices.remainder(ROWS) + ROWS * torch.arange(indices.shape[1], device=indices.device)
        factors = self.factors(rows)
        pairs = (factors.sum(1).square() - factors.square().sum(1)) / 2
        answers = self.bias + self.weights(rows).sum(1) + pairs.unflatten(1, (-1, FACTORS)).sum(2)
        return answers.reshape(len(answers), *self.shape)
