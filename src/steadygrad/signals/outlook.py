"""A handful of real steps on a copy of a set-up: how its loss and its score begin to move."""

from __future__ import annotations

import math
from itertools import cycle, islice

import torch
from torch import Tensor

from steadygrad.records import Outlook
from steadygrad.training import (
    Batch,
    Task,
    Training,
    TrainingSetup,
    blamed,
    chance_of,
    copied,
    device_of,
    evaluate,
    labels_of,
    make_optimizer,
    one_pass,
    row_count,
    run_batch,
    seeded,
    target_of,
)

__all__ = ["OUTLOOK_STEPS", "look_ahead"]

OUTLOOK_STEPS = 20
FELT_STEPS = 5  # more, each held against the loss of its own batch; all within the planned length
# Loss and score before and after are those of this many training samples, always the same.
_SAMPLES, _MOST_BATCHES = 300, 150


def look_ahead(setup: TrainingSetup, steps: int = OUTLOOK_STEPS) -> Outlook:
    """Train a copy of the set-up for a few steps with its own optimizer and say how loss and score moved.

    The set-up and all random states stay as they are.

    Args:
        setup: What to try; needs an optimizer.
        steps: Steps to make, or the planned length if that is shorter.

    Raises:
        SetupError: If the model, the loss, the optimizer or the data fail.
    """
    with seeded(setup.seed):
        batches = _samples(setup)
        training = Training(setup, setup.seed)
        before = _loss(setup, training, batches)
        task, score_before = evaluate(setup, training.model, batches)
        training.advance(min(steps, setup.steps))
        after = math.inf if training.diverged else _loss(setup, training, batches)
        score_after = -math.inf if training.diverged else evaluate(setup, training.model, batches)[1]
        felt = _feel(setup, batches, min(FELT_STEPS, setup.steps - len(training.losses)))
    return Outlook(
        losses=tuple(training.losses),
        before=before,
        after=after,
        score_before=score_before,
        score_after=score_after,
        metric=task.name,
        chance=chance_of(task, _labels(task, batches)),
        linear=tuple(linear for linear, _ in felt),
        changes=tuple(change for _, change in felt),
    )


def _feel(setup: TrainingSetup, batches: list[Batch], steps: int) -> list[tuple[float, float]]:
    """Make the first steps once more and hold each against the loss of its own batch before and after.

    Both losses are taken in training mode with the same random state.

    Returns:
        For each step the first-order change of the loss and the real one; fewer steps after a non-finite loss, none
        for an optimizer that needs a closure.
    """
    model = copied(setup).model.to(device_of(setup)).train()
    optimizer = make_optimizer(setup, model)
    found: list[tuple[float, float]] = []
    if isinstance(optimizer, torch.optim.LBFGS):
        return found
    for batch in islice(cycle(batches), steps):
        optimizer.zero_grad()
        with seeded(setup.seed):
            loss = run_batch(setup, model, batch).loss
        if not loss.requires_grad or not math.isfinite(loss.item()):
            break
        with blamed("loss: the backward pass failed"):
            loss.backward()
        moved = [(p, p.detach().clone(), p.grad.clone()) for p in model.parameters() if p.grad is not None]
        with blamed("optimizer: step failed"):
            optimizer.step()
        with seeded(setup.seed), torch.no_grad():
            after = run_batch(setup, model, batch).loss.item()
        linear = sum((grad.double() * (p.detach() - old).double()).sum().item() for p, old, grad in moved)
        found.append((linear, after - loss.item() if math.isfinite(after) else math.inf))
        if not math.isfinite(after):
            break
    return found


def _samples(setup: TrainingSetup) -> list[Batch]:
    """Return the first batches of a shuffled pass that hold enough samples together."""
    batches: list[Batch] = []
    rows = 0
    for batch in islice(one_pass(setup.train, setup.batch_size, device_of(setup), setup.seed), _MOST_BATCHES):
        batches.append(batch)
        rows += row_count(batch) or 1
        if rows >= _SAMPLES:
            break
    return batches


def _labels(task: Task, batches: list[Batch]) -> Tensor:
    scored = task.kind in ("classes", "binary")
    return labels_of(task, (target_of(batch) for batch in batches)) if scored else torch.empty(0)


@torch.no_grad()
def _loss(setup: TrainingSetup, training: Training, batches: list[Batch]) -> float:
    """Return the mean loss over batches in evaluation mode."""
    training.model.eval()
    losses = [run_batch(setup, training.model, batch).loss.item() for batch in batches]
    training.model.train()
    return sum(losses) / len(losses)
