"""From a batch to output, target and loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadygrad.errors import SetupError, UsageError
from steadygrad.training import TrainingSetup, blamed, describe, input_tensors, output_tensor, run_batch

X, Y = torch.ones(3, 2), torch.zeros(3)


class Echo(nn.Module):
    """Gives back what it is called with."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args or kwargs


def run(batch: Any, **settings: Any) -> Any:
    setup = TrainingSetup(Echo(), **({"loss": lambda output, target: torch.zeros(()), "train": [batch]} | settings))
    return run_batch(setup, setup.model, batch)


@pytest.mark.parametrize(
    ("batch", "output", "target"),
    [
        ((X, Y), (X,), Y),
        ([X, X, Y], (X, X), Y),
        ((X,), (X,), None),
        (X, (X,), None),
        ({"a": X, "label": Y}, {"a": X}, Y),
        (SimpleNamespace(x=X), None, None),
    ],
    ids=["pair", "three", "one", "tensor", "dict", "object"],
)
def test_the_target_stays_out_of_the_model(batch: Any, output: Any, target: Any) -> None:
    step = run(batch)
    assert step.output == (output if output is not None else (batch,))
    assert step.target is target


def test_a_loss_of_one_entry_is_a_scalar() -> None:
    assert run((X, Y), loss=lambda output, target: torch.ones(1, 1)).loss.shape == ()


def test_a_forward_gets_the_whole_batch() -> None:
    step = run({"a": X, "y": Y}, loss=None, forward=lambda model, batch: batch["a"].sum())
    assert (step.output, step.target is Y, step.loss.item()) == (None, True, 6.0)


@pytest.mark.parametrize(
    "packed", [SimpleNamespace(loss=torch.ones(()), logits=X), {"loss": torch.ones(()), "logits": X}]
)
def test_a_forward_may_pack_its_loss(packed: Any) -> None:
    step = run((X, Y), loss=None, forward=lambda model, batch: packed)
    assert step.output is X
    assert step.loss.item() == 1.0


@pytest.mark.parametrize("given", [None, 1.0, X, (torch.ones(()), X)], ids=["nothing", "number", "matrix", "tuple"])
def test_what_is_no_loss_is_told(given: Any) -> None:
    with pytest.raises(SetupError, match="loss: expected a scalar tensor, got "):
        run((X, Y), loss=lambda output, target: given)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (X, X),
        (torch.ones(2, dtype=torch.long), None),
        ((None, torch.ones(2, dtype=torch.long), [X]), X),
        ({"a": None, "b": X}, X),
        (SimpleNamespace(logits=X), X),
        (None, None),
    ],
)
def test_one_floating_tensor_stands_for_the_output(output: Any, expected: Tensor | None) -> None:
    assert output_tensor(output) is expected


def test_inputs_are_all_tensors_but_the_target() -> None:
    assert input_tensors((X, "words", Y)) == [X]
    assert input_tensors({"a": X, "y": Y}) == [X]
    assert input_tensors(X) == [X]


def test_values_are_described_by_dtype_and_shape() -> None:
    assert describe((X, {"y": Y.long()}, None, "s")) == "(float32[3, 2], {y: int64[3]}, NoneType, str)"
    assert describe(list(range(9))) == "(int, int, int, int, ...)"


def test_blame_names_the_place_and_the_first_line() -> None:
    with (
        pytest.raises(SetupError, match=r"^place: failed on float32\[3, 2\]: ValueError: first$") as caught,
        blamed("place: failed", X),
    ):
        raise ValueError("first\nsecond")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [UsageError("ours"), KeyboardInterrupt("ours")])
def test_blame_lets_our_own_errors_and_interrupts_pass(error: BaseException) -> None:
    with pytest.raises(type(error), match=r"^ours$"), blamed("place: failed"):
        raise error
