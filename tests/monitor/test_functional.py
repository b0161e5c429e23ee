"""Gradients of gradients, models called within ``torch.func``, backward passes under other names, reentrant ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from steadygrad.monitor import Monitor

from .networks import batch, layer_norms, mlp, shown, total, true_grads


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


def test_gradients_of_torch_func_that_are_not_finite_are_told_and_the_watch_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch()

    def loss_by(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    with Monitor(model, optimizer, every=1, on_nonfinite="skip") as monitor:
        for factor in (1.0, float("nan"), 1.0):
            parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
            for name, grad in torch.func.grad(loss_by)(parameters, x, y).items():
                model.get_parameter(name).grad = grad * factor
            optimizer.step()
    assert "step 1: a gradient is not finite; no call that could be made again" in caplog.text
    assert len(monitor.history) == 3
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("passes", [1, 2])
def test_a_backward_pass_that_was_named_before_the_monitor_came(passes: int) -> None:
    backward = torch.autograd.backward  # as `from torch.autograd import backward` keeps it
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        for _ in range(4):
            optimizer.zero_grad()
            for seed in range(passes):
                x, y = batch(seed=seed)
                backward(F.cross_entropy(model(x), y))
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
    assert total(monitor, "grad_norm", 0) == pytest.approx(1e-3, rel=1e-2)  # taken for unclipped
    assert total(monitor, "grad_norm") == pytest.approx(norm.item(), rel=1e-5)
    assert total(monitor, "grad_norm_used") == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("times", [1, 2])
def test_what_arrives_around_a_backward_pass_within_another_is_read(times: int) -> None:
    """Reentrant checkpoints make one for each of their parts; clipping afterwards tells arrived from used."""
    model, (x, y) = mlp(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x.requires_grad_()
    with Monitor(model, optimizer, every=1) as monitor:
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(times):
                middle = checkpoint(model[2:5], model[:2](x), use_reentrant=True)
                loss = F.cross_entropy(model[5:](middle), y)
                truth = {name: times * grad for name, grad in true_grads(model, F.cross_entropy(model(x), y)).items()}
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            optimizer.step()
    assert shown(monitor, "grad_norm") == pytest.approx(layer_norms(truth), rel=1e-5)
    assert total(monitor, "grad_norm_used") == pytest.approx(1e-3, rel=1e-2)
