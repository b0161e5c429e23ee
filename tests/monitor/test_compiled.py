"""Compiled models: parameters are always right; activations if the monitor came before the first call, else unseen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from steadygrad.monitor import Monitor

from .networks import batch, layer_norms, mlp, shown, true_grads

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: torch.nn.Module) -> tuple[torch.nn.Module, list[int]]:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(len(graph.graph.nodes))
        return aot_eager(graph, inputs)

    return torch.compile(model, backend=backend), graphs


def one_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = batch()
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_attached_before_the_first_call_everything_is_seen_in_one_graph() -> None:
    plain = mlp()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.0)
    with Monitor(plain, optimizer, every=1) as expected:
        one_step(plain, optimizer)
    model = mlp()
    fast, graphs = compiled(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(fast, optimizer, every=2) as monitor:
        for _ in range(5):
            one_step(fast, optimizer)
    assert monitor.history.steps.tolist() == [0, 2, 4]
    assert len(graphs) == 2, "one graph for steps with a look, one for those without"
    for statistic in ("grad_norm", "output_rms", "output_signal", "output_grad_rms", "output_abs_max"):
        assert shown(monitor, statistic) == pytest.approx(shown(expected, statistic), rel=1e-4), statistic
    assert monitor.unseen == ()


def test_attached_after_the_first_call_activations_are_reported_as_unseen() -> None:
    model = mlp()
    fast, _ = compiled(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    one_step(fast, optimizer)
    x, y = batch()
    truth = layer_norms(true_grads(model, F.cross_entropy(model(x), y)))
    with Monitor(fast, optimizer, every=1) as monitor:
        one_step(fast, optimizer)
    assert shown(monitor, "grad_norm") == pytest.approx(truth, rel=1e-4)
    assert shown(monitor, "output_rms") == {}
    (note,) = monitor.unseen
    assert "compiled before the monitor was attached" in note


def test_what_was_compiled_between_looks_is_reported_as_unseen() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=2) as monitor:
        one_step(model, optimizer)
        assert monitor.unseen == ()
        fast, _ = compiled(model)
        for _ in range(2):
            one_step(fast, optimizer)
        assert len(monitor.history) == 2
    (note,) = monitor.unseen
    assert "compiled between looks" in note
