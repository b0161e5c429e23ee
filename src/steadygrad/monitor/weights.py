"""The weights before a step, kept on a CPU, and what the step made of them: by torch, or by a compiled kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from steadygrad.monitor.norms import SAFE_SQUARE, compilable, local, with_care
from steadygrad.signals.kernel import StepsKernel

__all__ = ["Copies", "KeptWeights"]

# Long enough to run at memory speed, short enough for 10,000 tensors padded to whole blocks.
BLOCK = 1024
Sums = tuple[list[float], list[float]]  # of squares: of what came to each weight since the last look at it, and of it
PIECE = 2**17  # entries, which stay in the cache with their copies


class Copies:
    """Copies of tensors side by side in one flat tensor, each padded with zeros to whole blocks.

    Attributes:
        rows: All of it, a block a row.
        views: Each copy in the shape of its tensor.
        blocks: How many each of them takes.
        starts: The first row of each.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        parts = [local(tensor) for tensor in tensors]
        wide = any(part.dtype == torch.float64 for part in parts)
        self.blocks = [max(-(-part.numel() // BLOCK), 1) for part in parts]
        self.starts = np.cumsum([0, *self.blocks[:-1]])
        dtype = torch.float64 if wide else torch.float32
        self.rows = torch.zeros(sum(self.blocks), BLOCK, device=parts[0].device, dtype=dtype)
        flat, starts = self.rows.view(-1), (self.starts * BLOCK).tolist()
        self.views = [
            flat[start : start + part.numel()].view(part.shape) for start, part in zip(starts, parts, strict=True)
        ]


class KeptWeights:
    """Weights before a step, and what it makes of them; where looks follow each other, those it leaves for the next.

    Args:
        kernel: Reads weights, if it can read all of them; torch does otherwise.
    """

    def __init__(self, kernel: StepsKernel | None = None) -> None:
        self._kernel = kernel
        self._steps: Callable[[Sequence[Tensor], bool, bool], Sums | None] = lambda *_: None
        self._before: list[float] = []  # sums of squares of the weights
        self._stamps: list[tuple[int, int]] = []  # of the weights after the last step
        self._in_a_row = False  # whether nothing tells of a step between this look and the last one
        self._kept = False  # whether the weights were copied after the last step
        self._unnoticed = False  # whether stamps have ever missed a change

    def keep(self, weights: Sequence[Tensor], trust: bool) -> None:
        """Keep the weights before a step.

        With ``trust`` those after the last step are relied on, where nothing tells of a change since and none ever came
        untold: torch's count of writes to a tensor misses those through ``.data``.
        """
        self._in_a_row = _stamps(weights) == self._stamps
        same = self._in_a_row and self._kept
        if same and trust and not self._unnoticed:
            return
        moved, self._before = self._steps(weights, same, True) or self._anew(weights)
        self._unnoticed |= same and any(moved)

    def _anew(self, weights: Sequence[Tensor]) -> Sums:
        """Copy weights that are the first ones, or that have another layout by now."""
        if self._kernel is not None and all(map(compilable, weights)):
            self._steps = CompiledSteps(weights, self._kernel)
        else:
            self._steps = TorchSteps(weights)
        found = self._steps(weights, False, True)
        assert found is not None
        return found

    def compare(self, weights: Sequence[Tensor]) -> Sums:
        """Return the sums of squares of the weights before the step, and of the step.

        Raises:
            ValueError: If they have another shape or layout than before.
        """
        before, found = self._before, self._steps(weights, True, self._in_a_row)
        if found is None:
            raise ValueError("A step changed the shape, dtype or layout of a weight.")
        moved, self._before = found
        self._stamps, self._kept = _stamps(weights), self._in_a_row
        return before, moved


class TorchSteps:
    """Sums of squares of what came to weights since the last call, and of the weights: of any kind, by torch.

    Pieces of weights go through all calls one after the other, and stay in the cache meanwhile.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        parts = [_here(weight) for weight in weights]
        self._layouts = [_layout(part) for part in parts]
        self._places = _places(parts)
        groups: list[tuple[list[int], list[Tensor]]] = []  # whose pieces they are, and the pieces
        size = PIECE
        for owner, piece in _pieces(parts):
            if size >= PIECE:
                groups.append(([], []))
                size = 0
            groups[-1][0].append(owner)
            groups[-1][1].append(piece)
            size += max(piece.numel(), BLOCK)
        self._groups = [(owners, pieces, Copies(pieces)) for owners, pieces in groups]

    @np.errstate(all="ignore")
    def __call__(self, weights: Sequence[Tensor], compare: bool, keep: bool) -> Sums | None:
        """Return both sums for each weight, of finite entries alone; None if one has another layout by now.

        What came to them is 0 if that is not asked for by ``compare``, as what they are if not by ``keep``.
        """
        if not self._found([_here(weight) for weight in weights]):
            return None
        moved, squares = [0.0] * len(weights), [0.0] * len(weights)
        for owners, pieces, copies in self._groups:
            for asked, write, sums in (
                (compare, torch._foreach_sub_, moved),
                (keep, torch._foreach_copy_, squares),
            ):
                if asked:
                    write(copies.views, pieces)
                    for owner, total in zip(owners, _sums(copies), strict=True):
                        sums[owner] += total
        return moved, squares

    def _found(self, parts: Sequence[Tensor]) -> bool:
        """Cut weights that lie elsewhere by now, if they are still laid out as they were."""
        places = _places(parts)
        if places != self._places:
            if [_layout(part) for part in parts] != self._layouts:
                return False
            self._places = places
            pieces = (piece for _, piece in _pieces(parts))
            self._groups = [(owners, list(islice(pieces, len(owners))), copies) for owners, _, copies in self._groups]
        return True


class CompiledSteps:
    """The same of weights that a kernel can read, all ``compilable``: in one pass over them."""

    def __init__(self, weights: Sequence[Tensor], kernel: StepsKernel) -> None:
        self._kernel = kernel
        self._copies = [torch.zeros_like(weight) for weight in weights]

    def __call__(self, weights: Sequence[Tensor], compare: bool, keep: bool) -> Sums | None:
        """Return both sums for each weight, of finite entries alone; None if one has another layout by now.

        Both, whatever is asked for: one alone would take as long.
        """
        fit = all(compilable(w) and w.shape == copy.shape for w, copy in zip(weights, self._copies, strict=True))
        return self._kernel(weights, self._copies) if fit else None


def _places(parts: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return where tensors lie, and how many entries they have."""
    return [(part.data_ptr(), part.numel()) for part in parts]


def _layout(part: Tensor) -> tuple[torch.Size, bool]:
    return part.shape, part.is_contiguous()


def _pieces(parts: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Cut tensors into views of ``PIECE`` entries; give the place of the tensor with each."""
    for place, part in enumerate(parts):
        cut = part.numel() > PIECE and part.is_contiguous()
        yield from ((place, piece) for piece in (part.view(-1).split(PIECE) if cut else (part,)))


def _sums(copies: Copies) -> list[float]:
    """Return the sum of squares of each."""
    rows = copies.rows.numpy()
    squares: list[float] = np.add.reduceat(np.vecdot(rows, rows), copies.starts, dtype=np.float64).tolist()
    safe = min(squares) > SAFE_SQUARE * copies.rows.numel() and sum(squares) < math.inf
    return squares if safe else with_care(squares, copies.views)[0]


def _stamps(weights: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return where weights lie, and torch's counts of writes to them."""
    return [((part := _here(weight)).data_ptr(), part._version) for weight in weights]


def _here(weight: Tensor) -> Tensor:
    """Return what of a weight lies here."""
    plain = type(weight) is nn.Parameter and weight.layout is torch.strided and not weight.is_complex()
    return weight if plain else local(weight)
