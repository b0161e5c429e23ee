"""Gradients of gradients, and models that are also called within ``torch.func``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steadygrad.monitor import Monitor

from .networks import batch, layer_norms, mlp, shown, true_grads


def test_gradients_that_have_a_graph_of_their_own() -> None:
    """A gradient penalty: its inner pass hands gradients on that require gradients, ``create_graph`` leaves such."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch()
    x.requires_grad_()
    with Monitor(model, optimizer, every=1) as monitor:
        for _ in range(2):
            optimizer.zero_grad()
            output = model(x)
            (inner,) = torch.autograd.grad(output.sum(), x, create_graph=True)
            loss = F.cross_entropy(output, y) + inner.square().sum()
            truth = true_grads(model, loss)
            loss.backward(create_graph=True)
            assert all(parameter.grad.requires_grad for parameter in model.parameters() if parameter.grad is not None)
            optimizer.step()
    assert shown(monitor, "grad_norm") == pytest.approx(layer_norms(truth), rel=1e-5)
    assert not any(value != value for value in shown(monitor, "output_grad_rms").values())


@pytest.mark.parametrize("per_sample", [False, True])
def test_calls_within_torch_func_are_passed_over(per_sample: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch()

    def loss_by(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    gradient = torch.func.grad(loss_by)
    with Monitor(model, optimizer, every=1) as monitor:
        parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
        for _ in range(2):  # also as the first call of all
            if per_sample:
                torch.func.vmap(gradient, (None, 0, 0))(parameters, x[:, None], y[:, None])
            else:
                gradient(parameters, x, y)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            truth = true_grads(model, loss)
            loss.backward()
            optimizer.step()
    assert shown(monitor, "grad_norm") == pytest.approx(layer_norms(truth), rel=1e-5)
    assert not any(value != value for value in shown(monitor, "output_rms").values())
