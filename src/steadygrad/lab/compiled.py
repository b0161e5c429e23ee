"""Multilayer perceptrons in compiled code, on a processor; the fast way for grids of small ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from steadygrad.lab.stack import Case, batch_rows, next_rows
from steadygrad.lab.update import Rule, kernels, rule_of
from steadygrad.training import Data

__all__ = ["Compiled"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid)  # an activation's code is its place here
MOST_NONZERO = 0.4  # of inputs: with more, dense products are faster

# Inputs as the kernel reads them, for as long as their tensor lives: the runs of a grid share their data.
_READ = WeakTensorKeyDictionary()


class Compiled:
    """One multilayer perceptron, its steps made by :mod:`steadygrad.lab.kernels`.

    Built by :meth:`of`, which tells what fits: an ``nn.Sequential`` of ``nn.Linear`` with one kind of ReLU, tanh or
    sigmoid between, the mean cross-entropy of classes, tensors in the processor's memory, an optimizer that
    :func:`~steadygrad.lab.update.rule_of` knows, no forward and no metric of its own.
    """

    engine = "compiled"

    def __init__(self, case: Case, linears: list[nn.Linear], activation: int, rule: Rule) -> None:
        setup = case.setup
        x, y = setup.train
        self._inputs, self._targets = _inputs(x), y.contiguous().numpy()
        self._activation, self._rule, self._done, self._ended = activation, rule, 0, False
        self._batches = batch_rows(len(x), setup.batch_size, case.seed)
        self._sizes = np.array([linears[0].in_features, *(linear.out_features for linear in linears)])
        parts = [part for linear in linears for part in (linear.weight.t(), linear.bias)]
        self._weights = torch.cat([part.detach().reshape(-1) for part in parts]).numpy()
        self._first = np.full_like(self._weights, rule.first)
        self._second = np.zeros_like(self._weights)

    @classmethod
    def of(cls, case: Case) -> Compiled | None:
        """Return the run in compiled code; None if it does not fit or numba is not installed."""
        setup = case.setup
        found = _perceptron(setup.model)
        if found is None or not _classifies(case, found[0]) or kernels() is None:
            return None
        rule = rule_of(setup)
        return None if rule is None else cls(case, *found, rule)

    def advance(self, steps: int) -> Tensor:
        """Train further; see :class:`Stack`."""
        rows = next_rows(self._batches, steps).numpy()
        if self._ended:
            return torch.full((1, steps), torch.nan, dtype=torch.float64)
        with _libraries().limit(limits=1, user_api="blas"):  # threads cost more than they bring at this size
            losses = kernels().advance(
                self._inputs,
                self._targets,
                rows,
                self._sizes,
                self._activation,
                self._rule.code,
                np.array(self._rule.constants),
                self._done,
                self._weights,
                self._first,
                self._second,
            )
        self._done += steps
        self._ended = not np.isfinite(losses).all()
        return torch.from_numpy(losses).unsqueeze(0)

    def score(self, run: int, data: Data) -> float:
        """Return the accuracy of the present weights on ``data``."""
        x, y = data
        with _libraries().limit(limits=1, user_api="blas"):
            right = kernels().count_right(
                _inputs(x), y.contiguous().numpy(), self._sizes, self._activation, self._weights
            )
        return right / len(y)


def _inputs(x: Tensor) -> tuple[np.ndarray, ...]:
    """Return the inputs as the kernel reads them: dense, or sparse where most are zero."""
    version, found = _READ.get(x, (None, None))
    if version != x._version:
        from scipy.sparse import csr_matrix

        rows = x.contiguous().numpy()
        sparse = csr_matrix(rows if np.count_nonzero(rows) < MOST_NONZERO * rows.size else (0, 0), dtype=rows.dtype)
        found = (rows[: 0 if sparse.nnz else None], sparse.indptr, sparse.indices, sparse.data)
        _READ[x] = (x._version, found)
    return found


def _perceptron(model: nn.Module) -> tuple[list[nn.Linear], int] | None:
    """Return the linear layers of a multilayer perceptron and the code of its activation; None for anything else."""
    if type(model) is not nn.Sequential or len(model) % 2 == 0:
        return None
    linears: list[Any] = list(model)[::2]
    between = list(model)[1::2]
    kinds = {type(module) for module in between} or {nn.ReLU}
    parameters = list(model.parameters())
    alike = {(parameter.dtype, parameter.device.type) for parameter in parameters}
    if (
        {type(module) for module in linears} != {nn.Linear}
        or any(linear.bias is None for linear in linears)
        or len(kinds) != 1
        or not kinds.issubset(ACTIVATIONS)
        or len(parameters) != 2 * len(linears)  # shared ones are counted once
        or not all(parameter.requires_grad for parameter in parameters)
        or alike not in ({(torch.float32, "cpu")}, {(torch.float64, "cpu")})
        or any(vars(module)[name] for module in model.modules() for name in HOOKS)
    ):
        return None
    return linears, ACTIVATIONS.index(kinds.pop())


def _classifies(case: Case, linears: list[nn.Linear]) -> bool:
    """Whether the set-up is nothing but: lower the mean cross-entropy of classes, on data that fit the layers."""
    setup, loss = case.setup, case.setup.loss
    if type(loss) is nn.CrossEntropyLoss:
        usual = loss.weight is None and loss.reduction == "mean" and not loss.label_smoothing
    else:
        usual = loss is F.cross_entropy
    if not usual or setup.forward is not None or setup.metric is not None:
        return False
    if setup.device is not None and torch.device(setup.device).type != "cpu":
        return False
    return all(data is None or _fits(data, linears) for data in (setup.train, setup.validation, case.test))


def _fits(data: Data, linears: list[nn.Linear]) -> bool:
    """Whether ``data`` are rows of features in memory and one class each that the layers know."""
    if type(data) is not tuple or len(data) != 2 or not all(type(column) is Tensor for column in data):
        return False
    (x, y), weight = data, linears[0].weight
    right = (x.dtype, x.device, x.shape[1:]) == (weight.dtype, weight.device, weight.shape[1:])
    classes = y.dtype == torch.int64 and y.shape == x.shape[:1] and y.device == x.device
    return right and classes and len(y) > 0 and int(y.min()) >= 0 and int(y.max()) < linears[-1].out_features


@lru_cache(maxsize=1)
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController  # here, as scipy below, for the sake of a quick start

    return ThreadpoolController()
