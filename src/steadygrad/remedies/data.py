"""Bring inputs and targets to mean 0 and standard deviation 1, within the model; change the batch size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, SetupError, UsageError
from steadygrad.records import Role, Symptom, TargetKind
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.signals.blueprint import read_blueprint
from steadygrad.training import Batch, device_of, is_arrays, one_pass, row_count, run_model, target_of
from steadygrad.training.setup import TrainingSetup

__all__ = ["StandardizedInputs", "StandardizedTargets", "batch_size", "standardize_inputs", "standardize_targets"]

_MOST_SAMPLES = 10_000
# A standard deviation below this share of the mean is the rounding of float32 numbers that are all alike.
_CONSTANT = 1e-6


class StandardizedInputs(nn.Module):
    """A model behind a frozen ``(x - mean) / std`` on each of its floating inputs; other inputs pass through.

    Args:
        model: The inner model; it stands under ``.model``.
        statistics: Mean and standard deviation, broadcastable to the input, by position or keyword of the argument.
    """

    def __init__(self, model: nn.Module, statistics: dict[int | str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.model = model
        for key, (mean, std) in statistics.items():
            self.register_buffer(f"mean_{key}", mean)
            self.register_buffer(f"std_{key}", std)
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on standardized inputs."""
        scaled = [self._scale(position, value) for position, value in enumerate(args)]
        return self.model(*scaled, **{name: self._scale(name, value) for name, value in kwargs.items()})

    def _scale(self, key: int | str, value: Any) -> Any:
        mean = getattr(self, f"mean_{key}", None)
        return value if mean is None else (value - mean) / getattr(self, f"std_{key}")


class StandardizedTargets(nn.Module):
    """A model whose output is ``std * y + mean``: it learns standardized targets and answers in the user's units.

    Args:
        model: The inner model; it stands under ``.model``.
        mean: Mean of the targets, a scalar or one entry a target column.
        std: Their standard deviation, likewise.
    """

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the model and bring its output to the targets' units."""
        return self.model(*args, **kwargs) * self.std + self.mean


class _Statistics:
    """Mean and variance of a stream of tensors along one dimension, merged batch by batch in float64 (Chan 1979)."""

    def __init__(self, dim: int | None) -> None:
        self.dim = dim
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take in one batch."""
        values = values.detach().double()
        rows = values.movedim(self.dim, -1).flatten(0, -2) if self.dim is not None else values.reshape(-1)
        mean, count = rows.mean(0), len(rows)
        total = self.count + count
        delta = mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + (rows - mean).square().sum(0) + delta**2 * self.count * count / total
        self.mean = self.mean.to(mean) + delta * count / total
        self.count = total

    def read(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, broadcastable to ``like``; 1 for what is constant."""
        std = (self.squares / self.count).sqrt()
        std = torch.where(std > _CONSTANT * self.mean.abs(), std, torch.ones_like(std))
        shape = [1] * like.dim()
        if self.dim is not None:
            shape[self.dim] = -1
        else:
            shape = []
        return self.mean.to(like.dtype).reshape(shape), std.to(like.dtype).reshape(shape)


class _Listener(nn.Module):
    """Stands in for the model to catch the arguments that ``forward(model, batch)`` calls it with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[int | str, Tensor]] = []

    def forward(self, *args: Any, **kwargs: Any) -> None:
        named: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        self.calls.append({k: v for k, v in named if isinstance(v, Tensor) and v.is_floating_point() and v.dim()})


def _floating_inputs(setup: TrainingSetup, batch: Batch) -> list[dict[int | str, Tensor]]:
    listener = _Listener().eval()  # augmentation is for training
    try:
        run_model(setup, listener, batch)
    except SetupError:
        # What the user's forward does to an output that is not there matters not: the inputs were heard. A forward that
        # needs more of the model than to call it could not run on the wrapper either.
        if not listener.calls:
            raise NotApplicableError(
                "standardize_inputs: expected forward(model, batch) to call the model, but it uses parts of it. "
                "Standardize the inputs there."
            ) from None
    return listener.calls


def _some_batches(setup: TrainingSetup) -> Iterator[Batch]:
    """Yield shuffled batches of the training data until they hold enough samples: sorted data start with one class."""
    rest = _MOST_SAMPLES
    for batch in one_pass(setup.train, setup.batch_size, device_of(setup), setup.seed):
        yield batch
        rest -= max(1, row_count(batch))
        if rest <= 0:
            return


def _feature_dim(tensor: Tensor, convolutional: bool) -> int | None:
    """Return the dimension that holds features or channels; None for one number a sample."""
    if tensor.dim() < 2:
        return None
    return -1 if tensor.dim() == 3 and not convolutional else 1


def _check_finite(where: str, what: str, mean: Tensor, std: Tensor) -> None:
    if not bool(mean.isfinite().all() & std.isfinite().all()):
        raise NotApplicableError(
            f"{where}: expected {what} with a finite mean and standard deviation, found NaN, inf or "
            "numbers beyond the range of their dtype. Clean the data first."
        )


@remedy(
    Card(
        name="standardize_inputs",
        treats=(Symptom.DATA, Symptom.EXPLODING, Symptom.SATURATION),
        site=Site.DATA,
        summary="Put a frozen (x - mean) / std in front of the model, from its training data.",
        reference="LeCun et al., Efficient BackProp, 1998, sec. 4.3",
        hurts="Floating masks among the inputs are scaled too.",
        not_for="Weights of the wrong scale: what is lost or blown up behind the first layer stays so.",
        formula="x <- (x - mean) / std, by feature or channel",
        cost="one pass over up to 10,000 samples",
    )
)
def standardize_inputs(setup: TrainingSetup) -> TrainingSetup:
    """Standardize every floating input of the model: by feature, or by channel for images and convolutions.

    The model is wrapped: it stands under ``.model`` afterwards, takes the user's units as before, and carries mean and
    standard deviation as buffers. Features that are constant are only centered.

    Raises:
        NotApplicableError: If the model has no floating input, or the data hold NaN or inf.
    """
    if isinstance(setup.model, StandardizedInputs):
        raise NotApplicableError(
            "standardize_inputs: expected a model without it, but its inputs are standardized already."
        )
    layers = read_blueprint(setup).layers
    kinds = [layer.kind for layer in layers if layer.role in (Role.LINEAR, Role.RECURRENT)]
    convolutional = bool(kinds) and kinds[0].lower().startswith("conv")
    streams: dict[int | str, _Statistics] = {}
    examples: dict[int | str, Tensor] = {}
    for batch in _some_batches(setup):
        for key, tensor in ((k, t) for call in _floating_inputs(setup, batch) for k, t in call.items()):
            examples[key] = tensor
            streams.setdefault(key, _Statistics(_feature_dim(tensor, convolutional))).add(tensor)
    if not streams:
        raise NotApplicableError(
            "standardize_inputs: expected a floating tensor among the model's arguments, found none. "
            "Indices of an embedding need no scaling."
        )
    statistics = {key: stream.read(examples[key]) for key, stream in streams.items()}
    for mean, std in statistics.values():
        _check_finite("standardize_inputs", "inputs", mean, std)
    return setup.replace(model=StandardizedInputs(setup.model, statistics))


@remedy(
    Card(
        name="standardize_targets",
        treats=(Symptom.DATA, Symptom.EXPLODING),
        site=Site.DATA,
        summary="Put a frozen y * std + mean behind the model, from its training targets.",
        reference="Bishop, Neural Networks for Pattern Recognition, 1995, sec. 8.2",
        hurts="Losses stay in the user's units, so the learning rate has to be found anew.",
        not_for="Vanishing. With plain SGD the gradient still has the targets' units: take a tiny rate, or Adam.",
        formula="output <- output * std + mean, of the training targets",
        cost="one pass over up to 10,000 samples",
    )
)
def standardize_targets(setup: TrainingSetup) -> TrainingSetup:
    """Let the model learn standardized targets while outputs and losses stay in the user's units.

    The model is wrapped: it stands under ``.model`` afterwards.

    Raises:
        NotApplicableError: If the targets are not real numbers, or do not fit the model's output.
    """
    if isinstance(setup.model, StandardizedTargets):
        raise NotApplicableError("standardize_targets: expected a model without it, but its output is scaled already.")
    blueprint = read_blueprint(setup)
    if setup.loss is None or blueprint.target_kind is not TargetKind.REAL:
        raise NotApplicableError(
            f"standardize_targets: expected real targets and a loss of output and target, got targets of kind "
            f"{blueprint.target_kind.value!r}. Only real targets have a scale."
        )
    output, target = blueprint.output, blueprint.target
    columns = target.shape[-1] if target and len(target.shape) > 1 else 1
    if output is None or (columns > 1 and output.shape[-1] != columns):
        raise NotApplicableError(
            f"standardize_targets: expected an output with the {columns} columns of the target, got "
            f"{'no tensor' if output is None else f'shape {output.shape}'}. Scale the targets in the data instead."
        )
    stream = _Statistics(-1 if columns > 1 else None)
    for batch in _some_batches(setup):
        stream.add(target_of(batch))
    mean, std = (value.reshape(-1) if columns > 1 else value for value in stream.read(target_of(batch)))
    _check_finite("standardize_targets", "targets", mean, std)
    return setup.replace(model=StandardizedTargets(setup.model, mean, std))


@remedy(
    Card(
        name="batch_size",
        treats=(Symptom.LEARNING_RATE,),
        site=Site.DATA,
        summary="Change the number of samples a step.",
        reference="Keskar et al. 2017, https://arxiv.org/abs/1609.04836; Goyal et al. 2017, "
        "https://arxiv.org/abs/1706.02677, for the rate that goes with it",
        hurts="The learning rate has to follow; BatchNorm needs some 16 samples or more.",
        cost="time a step grows with it",
        not_for="Vanishing and exploding: the mean over fewer or more samples has passed the same layers.",
        formula="gradient = mean over n samples; its noise falls as 1 / sqrt(n)",
    )
)
def batch_size(setup: TrainingSetup, *, samples: int = 128) -> TrainingSetup:
    """Change the batch size of data that are tensors or arrays.

    Args:
        setup: The set-up to change.
        samples: A step, a whole number of 1 or more.

    Raises:
        NotApplicableError: If the data come in batches of their own.
    """
    if samples < 1 or samples != int(samples):
        raise UsageError(f"batch_size: expected samples to be a whole number of at least 1, got {samples}.")
    if not is_arrays(setup.train):
        raise NotApplicableError(
            "batch_size: expected training data as tensors or arrays, got batches. Change the size in their DataLoader."
        )
    return setup.replace(batch_size=int(samples))
