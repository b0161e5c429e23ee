"""How well a model does on held-out data: one number, higher is better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from steadygrad.errors import SetupError
from steadygrad.training.batches import device_of, floating_dtype, one_pass, row_count
from steadygrad.training.blame import blamed
from steadygrad.training.forward import output_tensor, run_batch
from steadygrad.training.setup import Data, TrainingSetup

__all__ = ["Task", "chance_of", "evaluate", "labels_of", "task_of"]

EVALUATION_BATCH = 1000
IGNORED_CLASS = -100  # torch's own mark for targets that do not count


class Task(NamedTuple):
    """What is scored: ``name`` of the metric and ``kind`` of the answer."""

    name: str
    kind: str  # "classes", "binary", "real", "custom" or "loss"


def task_of(setup: TrainingSetup, output: Tensor | None, target: Tensor | None) -> Task:
    """Tell what the set-up learns from one batch's output and target."""
    if setup.metric is not None:
        return Task(getattr(setup.metric, "__name__", "metric"), "custom")
    if output is None or not isinstance(target, Tensor):
        return Task("negative loss", "loss")
    if _class_dimension(output, target) is not None:
        # A model that makes its own loss may shift its targets, as language models do.
        own_loss = setup.loss is None and output.dim() > 2
        return Task("negative loss", "loss") if own_loss else Task("accuracy", "classes")
    if output.numel() != target.numel():
        return Task("negative loss", "loss")
    if bool(((target == 0) | (target == 1)).all()):
        return Task("accuracy", "binary")
    return Task("R2", "real")


@torch.no_grad()
def evaluate(setup: TrainingSetup, model: nn.Module, data: Data) -> tuple[Task, float]:
    """Score ``model`` on all of ``data``, in evaluation mode; the mode of every module is as before afterwards.

    Returns:
        The task and the score, higher is better; ``-inf`` where it is not finite.

    Raises:
        SetupError: If the model, the loss, the metric or the data fail.
    """
    modes = {module: module.training for module in model.modules()}
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    losses, rows = 0.0, 0
    model.eval()
    try:
        for batch in one_pass(data, EVALUATION_BATCH, device_of(setup), floating=floating_dtype(setup)):
            step = run_batch(setup, model, batch)
            output = output_tensor(step.output)
            if isinstance(step.target, Tensor) and output is not None:
                outputs.append(output)
                targets.append(step.target)
            count = row_count(batch) or 1
            losses += step.loss.item() * count
            rows += count
    finally:
        for module, mode in modes.items():
            module.training = mode
    output, target = (_joined(outputs), _joined(targets)) if outputs else (None, None)
    task = task_of(setup, output, target)
    if task.kind == "loss":
        score = -losses / max(rows, 1)
    elif output is None or target is None:
        raise SetupError(
            f"metric: expected an output tensor and a target for {task.name}, of one shape in all batches, got others. "
            "Leave metric out to score by the loss, or give forward and batches that fit."
        )
    else:
        score = _score(setup, task, output, target)
    return task, score if math.isfinite(score) else -math.inf


def labels_of(task: Task, targets: Iterable[Tensor]) -> Tensor:
    """Return what is scored of batches of targets: one-hot rows as indices, without what is ignored, in one row.

    Several labels at a time keep a column each if every batch has as many.
    """
    parts = list(targets)
    if task.kind == "classes":
        parts = [part.argmax(1) if part.is_floating_point() else part[part != IGNORED_CLASS] for part in parts]
    columns = {part.shape[1:] for part in parts}
    if task.kind == "binary" and len(columns) == 1 and columns != {torch.Size()}:
        return torch.cat(parts).flatten(1)
    return torch.cat([part.reshape(-1) for part in parts])


def chance_of(task: Task, targets: Tensor) -> float | None:
    """Return the score of the best constant answer to these labels; None where it is not known."""
    if task.kind not in ("classes", "binary"):
        return 0.0 if task.kind == "real" else None
    if task.kind == "binary":  # the commoner answer of each label
        share = (targets > 0.5).double().mean(0)
        return torch.maximum(share, 1 - share).mean().item()
    _, counts = targets.unique(return_counts=True)
    return counts.max().item() / counts.sum().item()


def _joined(batches: list[Tensor]) -> Tensor | None:
    """Return the batches as one; None where they do not fit, as with sequences padded batch by batch."""
    fit = all(batch.dim() == batches[0].dim() and batch.shape[1:] == batches[0].shape[1:] for batch in batches)
    if not fit:
        return None
    return torch.cat(batches) if batches[0].dim() else torch.stack(batches)


def _class_dimension(output: Tensor, target: Tensor) -> int | None:
    """Return the dimension of ``output`` that runs over classes; None if the target is not one of several classes."""
    if target.is_floating_point():  # one-hot, or a probability a class
        if output.shape != target.shape or target.dim() < 2 or target.shape[1] < 2:
            return None
        one_hot = bool(((target == 0) | (target == 1)).all()) and bool((target.sum(1) == 1).all())
        return 1 if one_hot else None
    for dimension in (1, -1):
        if output.dim() == target.dim() + 1 > 1 and output.shape[dimension] > 1:
            samples = list(output.shape)
            del samples[dimension]
            if samples == list(target.shape):
                return dimension
    return None


def _score(setup: TrainingSetup, task: Task, output: Tensor, target: Tensor) -> float:
    if setup.metric is not None:
        with blamed("metric: failed", output, target):
            return float(setup.metric(output, target))
    if not bool(output.isfinite().all()):
        return -math.inf
    if task.kind == "classes":
        dimension = _class_dimension(output, target)
        truth = target.argmax(dimension) if target.is_floating_point() else target
        right = output.argmax(dimension) == truth
        return right[truth != IGNORED_CLASS].double().mean().item()
    if task.kind == "binary":
        threshold = _threshold(setup, output, target)
        return ((output > threshold).reshape(target.shape) == (target > 0.5)).double().mean().item()
    truth, answer = target.double(), output.double().reshape(target.shape)
    return 1 - ((truth - answer).square().sum() / (truth - truth.mean(0)).square().sum()).item()


def _threshold(setup: TrainingSetup, output: Tensor, target: Tensor) -> float:
    """Tell logits (0.0) from probabilities (0.5) by what the loss prefers: only on logits is 3 a better yes than 1."""
    if setup.loss is None:  # the output is what the model itself calls logits
        return 0.0
    yes = torch.ones_like(target)
    try:
        ones, threes = (setup.loss(torch.full_like(output, value), yes).mean().item() for value in (1.0, 3.0))
    except Exception:  # a loss of probabilities refuses a 3; a loss of another form says nothing
        return 0.5
    return 0.0 if threes < ones else 0.5
