"""The gradient that comes back to a tensor is heard as the tensor's own graph gets it, whatever else hangs on it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadygrad.monitor import Monitor
from steadygrad.monitor.activation_tap import COLUMNS, ActivationTap, Watch
from steadygrad.monitor.hooks import UncopiedHook, on_grad

from .networks import batch, mlp


class Tagged(Tensor):
    """A tensor of another class."""


def nothing(tensor: Tensor) -> None: ...


def tripled(tensor: Tensor) -> None:
    tensor.register_hook(lambda grad: 3 * grad)


def removed(tensor: Tensor) -> None:
    tensor.register_hook(lambda grad: 3 * grad).remove()


def doubled_in_place(tensor: Tensor) -> None:
    tensor.mul_(2)


def retained(tensor: Tensor) -> None:
    tensor.retain_grad()


CASES = [
    (nothing, nothing, 1.0),
    (tripled, nothing, 3.0),
    (nothing, tripled, 3.0),
    (tripled, tripled, 9.0),
    (removed, removed, 1.0),
    (nothing, retained, 1.0),
]


@pytest.mark.parametrize(
    ("kind", "before", "after", "factor"),
    [*((kind, *case) for kind in (Tensor, Tagged) for case in CASES), (Tensor, nothing, doubled_in_place, 2.0)],
)
def test_gradient_is_heard_after_hooks_on_the_tensor(
    kind: type[Tensor], before: Callable[[Tensor], None], after: Callable[[Tensor], None], factor: float
) -> None:
    weight, heard = torch.randn(3, 3, requires_grad=True), []
    output = torch.ones(2, 3) @ weight
    if kind is not Tensor:
        output = output.as_subclass(kind)
    before(output)
    on_grad(output, UncopiedHook(heard.append))
    on_grad(output, UncopiedHook(heard.append))  # as a layer's output and as the model's
    after(output)
    grad = torch.randn(2, 3)
    (output * grad).sum().backward()
    assert len(heard) == 2
    for each in heard:
        torch.testing.assert_close(each.as_subclass(Tensor), factor * grad)
    torch.testing.assert_close(weight.grad, torch.ones(3, 2) @ (factor * grad))


def test_hook_on_a_leaf_goes_with_its_first_gradient() -> None:
    leaf, heard = torch.ones(3, requires_grad=True), []
    for _ in range(3):
        on_grad(leaf, UncopiedHook(heard.append))
        (2 * leaf).sum().backward()
    assert [grad.tolist() for grad in heard] == [[2.0] * 3] * 3
    assert not leaf._backward_hooks


def test_network_that_gives_its_parameter_gathers_no_hooks() -> None:
    class Image(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels = nn.Parameter(torch.ones(3, 3))

        def forward(self) -> Tensor:
            return self.pixels

    model = Image()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=2):
        for _ in range(5):
            optimizer.zero_grad()
            model().square().sum().backward()
            optimizer.step()
            assert not model.pixels._backward_hooks


def test_output_of_a_watched_network_is_saved_without_a_warning() -> None:
    model = mlp()
    with warnings.catch_warnings(), Monitor(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        warnings.simplefilter("error")
        file = io.BytesIO()
        output = model(batch()[0])
        torch.save(output, file)
        file.seek(0)
        assert torch.equal(torch.load(file), output)


class Twice(nn.Module):
    """One layer called twice: of its calls the last one counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.fc(x)))


def test_table_of_a_device_holds_the_same_numbers_as_the_host() -> None:
    model, x = Twice(), torch.randn(5, 4)
    tables = []
    for on_host in (True, False):
        tap = ActivationTap(model, Watch(due=True), on_fault=pytest.fail)
        tap._on_host = on_host
        model(x).square().sum().backward()
        taken = tap.take()
        tables.append(tap.table_of(taken.numpy() if isinstance(taken, Tensor) else taken))
        tap.detach()
    np.testing.assert_allclose(*tables, rtol=1e-6)
    assert not np.isnan(tables[0][0, COLUMNS.index("output_grad_rms")])
