"""The gradients of one step, and transforms that change them: optax's ``(init, update)`` with explicit state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steadygrad.errors import NotApplicableError
from steadygrad.remedies.norms import HALF, entries, norms_of, peaks_of
from steadygrad.remedies.sharding import Shards, local_part

__all__ = ["GradientTransform", "Gradients", "State", "chain"]

State = dict[str, Any]
"""What a transform remembers: numbers, tensors and dicts of them, so that it can be saved as it is."""

# Factors below this are denormal or zero as float32, so they are applied in two halves.
_SMALLEST_FACTOR = 1e-30


class GradientTransform(NamedTuple):
    """Change gradients between backward pass and optimizer step.

    Attributes:
        init: ``init(parameters) -> state``; raises :class:`~steadygrad.errors.NotApplicableError` where it cannot work.
        update: ``update(gradients, state, parameters) -> state`` changes the gradients and returns the next state; the
            state that it is given stays as it is. A step whose gradients are not finite leaves no trace in the state
            but counts.
        name: Its name in reports and in saved states.
        skips: Whether it may skip steps.
    """

    init: Callable[[Sequence[Tensor]], State]
    update: Callable[[Gradients, State, Sequence[Tensor]], State]
    name: str
    skips: bool = False


def chain(*transforms: GradientTransform) -> GradientTransform:
    """Return one transform that applies ``transforms`` in order, up to one that skips the step."""
    keys = [f"{position} {transform.name}" for position, transform in enumerate(transforms)]

    def init(parameters: Sequence[Tensor]) -> State:
        return {key: transform.init(parameters) for key, transform in zip(keys, transforms, strict=True)}

    def update(gradients: Gradients, state: State, parameters: Sequence[Tensor]) -> State:
        state = dict(state)
        for key, transform in zip(keys, transforms, strict=True):
            if gradients.skip:
                break
            state[key] = transform.update(gradients, state[key], parameters)
        return state

    name = f"chain({', '.join(transform.name for transform in transforms)})"
    return GradientTransform(init, update, name, skips=any(transform.skips for transform in transforms))


class Gradients:
    """The gradients of one step; parameters without one are passed over.

    Norms are read once. Factors are remembered and written at the end, so that a chain of clips that scale costs one
    read, and one write only if it acted; in between, norms are those of the gradients with all factors. What changes
    entries one by one calls :meth:`edit` first.

    Args:
        parameters: Parameters, plain or DTensors. A gradient that cannot be written in place (one tensor under two
            parameters, an expanded or an uncoalesced one) is replaced by an equal one.
        loss_scale: What the gradients have been multiplied by.

    Attributes:
        positions: Positions of the parameters that have a gradient.
        skip: Set to True to skip the step.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> gradients = Gradients([weight])
        >>> gradients.scale(1 / gradients.global_norm())
        >>> gradients.global_norm(), weight.grad
        (1.0, tensor([3., 4.]))
        >>> gradients.write()
        1.0
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """

    def __init__(self, parameters: Sequence[Tensor], loss_scale: float = 1.0) -> None:
        self.positions = [i for i, parameter in enumerate(parameters) if parameter.grad is not None]
        self.skip = False
        self.parameters = [parameters[i] for i in self.positions]
        self._gradients: list[Tensor] = [parameter.grad for parameter in self.parameters]  # type: ignore[misc]
        if len({*map(id, self._gradients)}) == len(self) and all(map(_is_plain, self._gradients)):  # as most are
            self._entries = self._gradients
        else:
            self._gradients = _writable(self.parameters)
            self._entries = [entries(local_part(gradient)) for gradient in self._gradients]
        self._shards = Shards(self._gradients)
        self._factor = 1.0 / loss_scale
        self._factors: Tensor | None = None
        self._norms: list[float] | None = None  # of what is written in memory, without factors
        self._peaks: list[float] | None = None

    def __len__(self) -> int:
        return len(self._gradients)

    @property
    def rounding(self) -> float:
        """The relative rounding error of the coarsest dtype: what a clipped norm may miss its bound by."""
        return max((torch.finfo(dtype).eps for dtype in {gradient.dtype for gradient in self._gradients}), default=0.0)

    @property
    def sharded(self) -> bool:
        """Whether a gradient is spread over processes."""
        return bool(self._shards)

    @property
    def sizes(self) -> Tensor:
        """The number of entries of each gradient, over all processes; float64."""
        return torch.tensor([gradient.numel() for gradient in self._gradients], dtype=torch.float64)

    @property
    def finite(self) -> bool:
        """Whether all entries are finite."""
        return math.isfinite(self.global_norm())

    def global_norm(self) -> float:
        """Return the L2 norm of all gradients together; NaN or inf if an entry is."""
        if self._factors is None:
            return math.hypot(*self._memory_norms()) * self._factor
        return math.hypot(*self.norms().tolist())

    def norms(self) -> Tensor:
        """Return the L2 norm of each gradient. Shape ``(gradients,)``, float64."""
        return torch.tensor(self._memory_norms(), dtype=torch.float64) * self._pending()

    def peaks(self) -> Tensor:
        """Return the largest magnitude in each gradient, inf for NaN. Shape ``(gradients,)``, float64."""
        if self._peaks is None:
            finite_or_inf = [peak if peak == peak else math.inf for peak in peaks_of(self._entries)]  # max() loses NaN
            self._peaks = self.max(finite_or_inf).tolist()
        return torch.tensor(self._peaks, dtype=torch.float64) * self._pending()

    def sum(self, values: list[float]) -> Tensor:
        """Return ``values``, one a gradient of this process, summed over the processes that share the gradient."""
        return self._shards.sum(torch.tensor(values, dtype=torch.float64))

    def max(self, values: list[float]) -> Tensor:
        """Return the largest of ``values``, one a gradient of this process, among the processes that share it."""
        return self._shards.max(torch.tensor(values, dtype=torch.float64))

    def scale(self, factor: float) -> None:
        """Multiply all gradients by ``factor``, above 0."""
        self._factor *= factor

    def scale_each(self, factors: Tensor) -> None:
        """Multiply each gradient by its factor. Shape ``(gradients,)``, float64."""
        if bool((factors != 1).any()):
            self._factors = factors if self._factors is None else self._factors * factors

    def read(self) -> list[Tensor]:
        """Return the entries that this process holds, to be read; of a sparse gradient those that are stored."""
        self.write()
        return self._entries

    def edit(self) -> list[Tensor]:
        """Return the entries that this process holds, to be changed in place."""
        self.write()
        self._norms = self._peaks = None
        return self._entries

    def dense(self, where: str) -> list[Tensor]:
        """Return :meth:`edit`'s entries if no gradient is sparse.

        Raises:
            NotApplicableError: If one is.
        """
        if any(gradient.layout != torch.strided for gradient in self._gradients):
            raise NotApplicableError(
                f"{where}: expected dense gradients, got a sparse one. Use Embedding(sparse=False)."
            )
        return self.edit()

    def stored_rows(self, position: int) -> Tensor | None:
        """Return the indices of the rows that a sparse gradient, as of an embedding, stores; None if it is dense."""
        gradient = self._gradients[position]
        return gradient.indices()[0] if gradient.layout == torch.sparse_coo else None

    def write(self, *, all_but_one: bool = False) -> float:
        """Write the factors to the gradients.

        Args:
            all_but_one: Leave the factor that all gradients share to the caller.

        Returns:
            That factor, or 1.
        """
        left = 1.0
        if all_but_one and _SMALLEST_FACTOR < self._factor < 1 / _SMALLEST_FACTOR:
            left, self._factor = self._factor, 1.0
        if self._factor != 1 or self._factors is not None:
            factors = self._pending().expand(len(self)).tolist()
            changed = [i for i, factor in enumerate(factors) if factor != 1]
            _multiply_([self._entries[i] for i in changed], [factors[i] for i in changed])
            if self._norms is not None:
                self._norms = [norm * factor for norm, factor in zip(self._norms, factors, strict=True)]
            if self._peaks is not None:
                self._peaks = [peak * factor for peak, factor in zip(self._peaks, factors, strict=True)]
            self._factor, self._factors = 1.0, None
        return left

    def _pending(self) -> Tensor:
        factor = torch.tensor(self._factor, dtype=torch.float64)
        return factor if self._factors is None else self._factors * factor

    def _memory_norms(self) -> list[float]:
        if self._norms is None:
            self._norms = norms_of(self._entries)
            if self._shards:
                squares = torch.tensor(self._norms, dtype=torch.float64).square()
                self._norms = self._shards.sum(squares).sqrt().tolist()
        return self._norms


def _is_plain(gradient: Tensor) -> bool:
    """Whether a gradient is its own entries and can be written; quick, for it is asked at every step."""
    strided = type(gradient) is Tensor and gradient.layout is torch.strided
    return strided and gradient.is_contiguous() and not gradient.is_complex()


def _writable(parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradients, after those that cannot be changed in place have been replaced by equal ones."""
    gradients: list[Tensor] = []
    seen: set[int] = set()
    for parameter in parameters:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.layout is torch.sparse_coo:
            if not gradient.is_coalesced():
                parameter.grad = gradient = gradient.coalesce()
        elif id(gradient) in seen or (not gradient.is_contiguous() and 0 in gradient.stride()):
            parameter.grad = gradient = gradient.clone(memory_format=torch.contiguous_format)
        seen.add(id(gradient))
        gradients.append(gradient)
    return gradients


def _multiply_(tensors: list[Tensor], factors: list[float]) -> None:
    if any(factor < _SMALLEST_FACTOR for factor in factors):
        factors = [math.sqrt(factor) for factor in factors]
        _multiply_(tensors, factors)
    if any(tensor.is_cpu and tensor.dtype in HALF for tensor in tensors):  # there _foreach_mul_ rounds the factors too
        for tensor, factor in zip(tensors, factors, strict=True):
            tensor.mul_(factor)
    else:
        torch._foreach_mul_(tensors, factors)
