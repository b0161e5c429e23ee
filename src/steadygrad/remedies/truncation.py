"""Cut backpropagation through time into segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.remedies.surgery import replace_module
from steadygrad.training.setup import TrainingSetup

__all__ = ["Truncated", "detached", "segments", "truncated_backpropagation"]


def segments(sequence: Tensor, length: int, dim: int = 1) -> Iterator[Tensor]:
    """Yield consecutive parts of a long sequence, for a loop that makes an optimizer step after each.

    A :class:`TrainingSetup` makes one step a batch, so this classical form needs a loop of one's own::

        state = None
        for x, y in zip(segments(inputs, 20), segments(targets, 20)):
            output, state = model(x, detached(state))
            loss(output, y).backward()
            optimizer.step()
            optimizer.zero_grad()

    Args:
        sequence: Time lies along ``dim``.
        length: Time steps a segment, 1 or more; the last one may be shorter.
        dim: Dimension of time.

    Reference:
        Williams and Peng, An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories,
        1990.
    """
    _check_length("segments", length)
    yield from sequence.split(length, dim)


def detached(state: Any) -> Any:
    """Return a recurrent state (a tensor, a nest of them, or None) cut off from what it was computed from."""
    if isinstance(state, (tuple, list)):
        return type(state)(detached(each) for each in state)
    return state.detach() if isinstance(state, Tensor) else state


class Truncated(nn.Module):
    """A recurrent module whose state carries values, but no gradients, from one segment of time to the next.

    Outputs stay as they were; only the backward pass is cut.

    Args:
        rnn: An ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU`` of one direction; it stands under ``.rnn``.
        length: Time steps a segment.
    """

    def __init__(self, rnn: nn.RNNBase, length: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.length = length

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run segment by segment; arguments and results are those of the module itself."""
        if not isinstance(x, Tensor):
            raise NotApplicableError(
                f"Truncated: expected a tensor of sequences, got {type(x).__name__}. "
                "Pad the sequences, do not pack them."
            )
        time = x.dim() - 2 if self.rnn.batch_first or x.dim() == 2 else 0
        outputs: list[Tensor] = []
        for part in x.split(self.length, time):
            output, state = self.rnn(part, state if not outputs else detached(state))
            outputs.append(output)
        return torch.cat(outputs, time), state


@remedy(
    Card(
        name="truncated_backpropagation",
        treats=(Symptom.EXPLODING,),
        site=Site.MODEL,
        summary="Cut the gradient through time at the edges of segments.",
        reference="Williams and Peng 1990; Sutskever 2013, Training Recurrent Neural Networks, sec. 2.8.6",
        hurts="Nothing can be learned across the edge of a segment, above all not what only the start of a long "
        "sequence tells.",
        not_for="Vanishing through time: what is cut has no gradient at all.",
        formula="h <- detach(h) after every k time steps",
    )
)
def truncated_backpropagation(setup: TrainingSetup, *, length: int = 20) -> TrainingSetup:
    """Cut backpropagation through time in every recurrent module; the model's outputs stay as they were.

    One optimizer step a batch, as everywhere in a :class:`TrainingSetup`; for a step a segment see :func:`segments`.

    Args:
        setup: The set-up to change.
        length: Time steps a segment, a whole number of 1 or more.

    Raises:
        NotApplicableError: If there is no ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``, or one runs in both directions.
    """
    _check_length("truncated_backpropagation", length)
    inside = {module.rnn for module in setup.model.modules() if isinstance(module, Truncated)}
    modules = [module for module in setup.model.modules() if isinstance(module, nn.RNNBase) and module not in inside]
    if not modules or any(module.bidirectional for module in modules):
        raise NotApplicableError(
            "truncated_backpropagation: expected nn.RNN, nn.LSTM or nn.GRU modules of one direction, found "
            f"{'one of two directions' if modules else 'none that is not cut already'}. Cells have to be cut in the "
            "model's own loop, with detached(state)."
        )
    model = setup.model
    for module in modules:
        model = replace_module(model, module, Truncated(module, int(length)))
    return setup.replace(model=model)


def _check_length(where: str, length: float) -> None:
    if length < 1 or length != int(length):
        raise UsageError(f"{where}: expected length to be a whole number of at least 1, got {length}. Start with 20.")
