"""One forward pass of a set-up: from a batch to output, target and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from steadygrad.errors import SetupError
from steadygrad.training.batches import TARGET_NAMES, target_of
from steadygrad.training.blame import blamed, describe
from steadygrad.training.setup import Batch, TrainingSetup

__all__ = ["Step", "call_model", "input_tensors", "output_tensor", "run_batch", "run_loss", "run_model"]


class Step(NamedTuple):
    """What one forward pass gave. ``output`` is None where ``forward`` returned nothing but the loss."""

    output: Any
    target: Any
    loss: Tensor


def run_batch(setup: TrainingSetup, model: nn.Module, batch: Batch) -> Step:
    """Run ``model`` and the set-up's loss on one batch.

    Raises:
        SetupError: If the model or the loss raises, or the loss is no scalar.
    """
    output = run_model(setup, model, batch)
    return run_loss(setup, output, batch)


def run_model(setup: TrainingSetup, model: nn.Module, batch: Batch) -> Any:
    """Run the forward pass of one batch.

    Raises:
        SetupError: If the forward pass raises.
    """
    with blamed("model: forward failed", batch):
        return (setup.forward or call_model)(model, batch)


def call_model(model: nn.Module, batch: Batch) -> Any:
    """Call a model with a batch less its target: what a set-up without a ``forward`` of its own does."""
    inputs = _inputs(batch)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def run_loss(setup: TrainingSetup, output: Any, batch: Batch) -> Step:
    """Turn a forward pass's output into its loss.

    Raises:
        SetupError: If the loss raises or is no scalar tensor.
    """
    target = target_of(batch)
    if setup.loss is not None:
        with blamed("loss: failed", output, target):
            loss = setup.loss(output, target)
    elif isinstance(output, Tensor):
        loss, output = output, None
    else:
        loss, output = _entry(output, "loss"), _entry(output, "logits")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise SetupError(
            f"loss: expected a scalar tensor, got {describe(loss)}. Reduce it, for instance by .mean(), in the loss."
        )
    return Step(output, target, loss.reshape(()))


def output_tensor(output: Any) -> Tensor | None:
    """Return the floating tensor that stands for a model's output: itself, ``.logits``, or the first one inside."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if hasattr(output, "logits"):
        return output_tensor(output.logits)
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for item in items if (found := output_tensor(item)) is not None), None)


def input_tensors(batch: Batch) -> list[Tensor]:
    """Return the tensors of a batch that go into the model: all but the target."""
    inputs = _inputs(batch)
    items = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [item for item in items if isinstance(item, Tensor)]


def _inputs(batch: Batch) -> Mapping[str, Any] | Sequence[Any]:
    """Return the batch without its target: keyword arguments of the model, or positional ones."""
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key not in TARGET_NAMES}
    if isinstance(batch, Sequence):
        return batch[:-1] if len(batch) > 1 else batch
    return (batch,)


def _entry(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
