"""Many networks of one shape as one computation, whatever they are made of, by ``torch.func.vmap``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from steadygrad.lab.stack import Case, batch_rows, next_rows
from steadygrad.lab.update import FusedUpdate, Update, kernels, rule_of
from steadygrad.training import (
    Batch,
    Data,
    TrainingSetup,
    device_of,
    evaluate,
    floating_dtype,
    is_arrays,
    move,
    row_count,
    run_batch,
)

__all__ = ["Unstackable", "Vmapped", "shape_of"]

PROBE_TOLERANCE = 1e-3  # of a gradient's norm, in float32; a wrong rule for batching errs by the order of the norm


class Unstackable(Exception):  # noqa: N818  # no error: the runs are trained one by one
    """These runs cannot be one computation; the message says why."""


class Vmapped:
    """Runs of one shape as one stack. Those that diverge leave it; the others notice nothing.

    Raises:
        Unstackable: If the runs differ in more than numbers, or a first batch, tried on copies, shows that ``vmap``
            cannot batch the model or gives other gradients than autograd, or that it draws random numbers.
    """

    engine = "stacked"

    def __init__(self, cases: Sequence[Case]) -> None:
        first = cases[0].setup
        rules = [rule_of(case.setup) for case in cases]
        if None in rules:
            raise Unstackable("its optimizer or scheduler has no stacked form")
        self._rules = [rule for rule in rules if rule is not None]
        _check_weights([case.setup.model for case in cases])
        order = sorted(range(len(cases)), key=lambda run: self._rules[run].code)  # so that few operations step them all
        self._cases, self._device = cases, device_of(first)
        self._runs = order  # which run each row of the stack is
        self._step = _Step(first).to(self._device).train()
        self._shared = len({(case.seed, id(_columns(case.setup.train)[0])) for case in cases}) == 1
        own = cases[:1] if self._shared else cases
        moved = [move(case.setup.train, self._device, floating_dtype(first)) for case in own]
        self._data = moved * len(cases) if self._shared else moved
        self._batches = [
            batch_rows(row_count(data), first.batch_size, case.seed)
            for case, data in zip(cases, self._data, strict=True)
        ]
        models = [cases[run].setup.model for run in order]
        self._weights = torch.stack([_trained(model) for model in models]).to(self._device)
        kept = [_kept(model) for model in models]
        self._buffers = {
            f"model.{name}": torch.stack([each[name] for each in kept]).to(self._device) for name in kept[0]
        }
        starts = torch.tensor([self._rules[run].first for run in order]).to(self._weights)
        self._first = starts.unsqueeze(1).repeat(1, self._weights.shape[1])
        self._second, self._done = torch.zeros_like(self._weights), 0
        fused = self._device.type == "cpu" and kernels() is not None
        self._make_update = FusedUpdate if fused else Update
        self._update = self._make_update([self._rules[run] for run in order], self._weights)
        self._gradients = vmap(grad_and_value(self._loss), in_dims=(0, 0, None if self._shared else 0))
        self._probe()

    def advance(self, steps: int) -> Tensor:
        """Train further; see :class:`~steadygrad.lab.stack.Stack`."""
        losses = torch.full((len(self._cases), steps), torch.nan, dtype=torch.float64)
        rows = [next_rows(batches, steps) for batches in self._batches]
        for now in range(steps if self._runs else 0):
            gradient, loss = self._gradients(self._weights, self._buffers, self._batch([each[now] for each in rows]))
            losses[self._runs, now] = loss.detach().double().cpu()
            self._done += 1
            self._update(self._done, self._weights, gradient, self._first, self._second)
        ended = (~losses.isfinite()).cumsum(1) > 1  # all after the first
        losses[ended] = torch.nan
        self._leave([row for row, run in enumerate(self._runs) if not losses[run].isfinite().all()])
        return losses

    def score(self, run: int, data: Data) -> float:
        """Return the score of a run's present weights on ``data``; the run must not have diverged."""
        row, setup, step = self._runs.index(run), self._cases[run].setup, self._step
        with torch.no_grad():
            state = {name: stack[row] for name, stack in self._buffers.items()} | self._named(self._weights[row])
            for name, tensor in (*step.named_parameters(), *step.named_buffers()):
                tensor.copy_(state[name])
        return evaluate(setup, step.model, data)[1]

    def _leave(self, rows: Sequence[int]) -> None:
        """Take runs out of the stack."""
        if not rows:
            return
        kept = [row for row in range(len(self._runs)) if row not in rows]
        self._runs = [self._runs[row] for row in kept]
        self._weights, self._first, self._second = (x[kept] for x in (self._weights, self._first, self._second))
        self._buffers = {name: stack[kept] for name, stack in self._buffers.items()}
        self._update = self._make_update([self._rules[run] for run in self._runs], self._weights)

    def _batch(self, rows: Sequence[Tensor]) -> Batch:
        """Return the runs' batches as one, or the one that all share."""
        if self._shared:
            return _map(lambda column: column[rows[0].to(self._device)], self._data[0])
        own = [_map(lambda column, run=run: column[rows[run].to(self._device)], self._data[run]) for run in self._runs]
        return _map(lambda *columns: torch.stack(columns), *own)

    def _loss(self, weights: Tensor, buffers: dict[str, Tensor], batch: Batch) -> Tensor:
        return functional_call(self._step, {**self._named(weights), **buffers}, (batch,))

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        """Return one run's row of weights as parameters of the step."""
        learned = [(name, p.shape) for name, p in self._step.named_parameters() if p.requires_grad]
        parts = weights.split([shape.numel() for _, shape in learned])
        return {name: part.view(shape) for part, (name, shape) in zip(parts, learned, strict=True)}

    def _probe(self) -> None:
        """Compare the gradients of a first batch with those of autograd, run by run."""
        rows = [
            next(batch_rows(row_count(data), case.setup.batch_size, case.seed))
            for case, data in zip(self._cases, self._data, strict=True)
        ]
        buffers = {name: stack.clone() for name, stack in self._buffers.items()}
        try:
            stacked, _ = self._gradients(self._weights, buffers, self._batch(rows))
        except Exception as error:  # whatever a model that vmap cannot batch may raise
            raise Unstackable(str(error).strip().splitlines()[0]) from error
        for row, run in enumerate(self._runs):
            setup = self._cases[run].setup
            model = copy.deepcopy(setup.model).to(self._device).train()
            batch = _map(lambda column, run=run: column[rows[run].to(self._device)], self._data[run])
            run_batch(setup, model, batch).loss.backward()
            parameters = [p for p in model.parameters() if p.requires_grad]
            alone = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in parameters])
            if not (stacked[row] - alone).norm() <= PROBE_TOLERANCE * alone.norm() and bool(alone.isfinite().all()):
                raise Unstackable("its gradients in a stack are not those of autograd")


class _Step(nn.Module):
    """A set-up's forward pass and loss as one module, so that its parameters can be replaced from outside."""

    def __init__(self, setup: TrainingSetup) -> None:
        super().__init__()
        self.setup, self.model = setup, copy.deepcopy(setup.model)

    def forward(self, batch: Batch) -> Tensor:
        return run_batch(self.setup, self.model, batch).loss


def _check_weights(models: Sequence[nn.Module]) -> None:
    parameters = [parameter for model in models for parameter in model.parameters()]
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise Unstackable("runs share parameters")
    if len({parameter.dtype for parameter in parameters if parameter.requires_grad}) != 1:
        raise Unstackable("their parameters are of several dtypes, or none is trained")


def shape_of(setup: TrainingSetup) -> Any:
    """Return what has to be equal in all runs of a stack, as a key; None for a run that no stack can hold."""
    if not is_arrays(setup.train):
        return None
    model, device = setup.model, device_of(setup)
    tensors = (*model.named_parameters(), *model.named_buffers())
    columns = _columns(move(setup.train, device, floating_dtype(setup)))
    return (
        repr(model),
        tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in tensors),
        tuple((column.shape[1:], column.dtype) for column in columns),
        (min(len(columns[0]), setup.batch_size), setup.steps, str(device)),
    )


def _columns(data: Data) -> list[Tensor]:
    return list(data.values()) if isinstance(data, Mapping) else list(data)


def _map(function: Callable[..., Tensor], *data: Data) -> Data:
    """Apply a function to the columns of one or several tuples or dicts of tensors."""
    if isinstance(data[0], Mapping):
        return {name: function(*(each[name] for each in data)) for name in data[0]}
    return tuple(function(*columns) for columns in zip(*data, strict=True))


def _trained(model: nn.Module) -> Tensor:
    """Return the parameters that learn in one row."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters() if p.requires_grad])


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """Return what the optimizer does not change: buffers and frozen parameters."""
    frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    return frozen | dict(model.named_buffers())
