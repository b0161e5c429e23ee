"""What a sound shallow network reaches on the same data: the yardstick of a cure."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def task_and_output(setup: TrainingSetup) -> tuple[Task, Tensor | None]:
    """Return what the set-up learns, and its output on the first batch."""
    batch = first_batch(setup)
    with preserved(setup.model), torch.no_grad():
        step = run_batch(setup, setup.model, batch)
    output = output_tensor(step.output)
    return task_of(setup, output, step.target if isinstance(step.target, Tensor) else None), output


def reference_setup(setup: TrainingSetup) -> tuple[TrainingSetup, Prescription] | None:
    """Return a shallow network on the set-up's own data, and what to apply to it before it is trained.

    Inputs (and real targets) standardized, two hidden layers of 64 ReLU units with He initialization, Adam at 1e-3, as
    many steps as planned, in the same batches.

    Returns:
        None where it does not fit: inputs that are not one floating tensor, a metric or forward pass of the user's
        own, or targets that are neither classes nor numbers.
    """
    batch = first_batch(setup)
    inputs, target = input_tensors(batch), target_of(batch)
    task, output = task_and_output(setup)
    if setup.forward is not None or len(inputs) != 1 or not inputs[0].is_floating_point() or inputs[0].dim() < 2:
        return None
    loss: Callable[[Tensor, Tensor], Tensor]
    if task.kind == "classes" and output is not None and output.dim() == 2:
        loss, units, shape = F.cross_entropy, output.shape[1], output.shape[1:]
    elif task.kind in ("binary", "real") and isinstance(target, Tensor):
        function = F.mse_loss if task.kind == "real" else F.binary_cross_entropy_with_logits
        loss, units, shape = Matched(function), math.prod(target.shape[1:]), target.shape[1:]
    else:
        return None
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(inputs[0].shape[1:]), WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, units),
        nn.Unflatten(1, shape) if len(shape) else nn.Flatten(0),
    ).to(device=device_of(setup), dtype=inputs[0].dtype)
    steps = [Step("standardize_inputs"), Step("initialization", {"method": "he"})]
    if task.kind == "real":
        steps.insert(1, Step("standardize_targets"))
    shallow = setup.replace(
        model=model,
        loss=loss,
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        scheduler=None,
        redraw=None,
        device=device_of(setup),
    )
    return shallow, Prescription(tuple(steps), "a sound shallow network")
