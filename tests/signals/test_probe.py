"""The probe sees what training would see, and survives whatever a model does."""

from __future__ import annotations

import math
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from steadygrad.errors import SetupError
from steadygrad.records import LayerStats, Observation
from steadygrad.signals import probe
from steadygrad.training import TrainingSetup

from .networks import LABELS, Net, X, setup_of


def by_name(setup: TrainingSetup) -> dict[str, LayerStats]:
    return {layer.name: layer for layer in probe(setup)[1].layers}


def mlp(*activations: nn.Module, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [module for activation in activations for module in (nn.Linear(4, 4), activation)]
    return nn.Sequential(*layers, nn.Linear(4, 3))


def all_finite(observation: Observation) -> bool:
    return all(layer.output.nonfinite == 0 and layer.output_grad.nonfinite == 0 for layer in observation.layers)


def test_layers_stand_in_step_with_the_blueprint() -> None:
    blueprint, observation = probe(setup_of(mlp(nn.Tanh(), nn.ReLU())))
    assert [layer.name for layer in blueprint.layers] == [layer.name for layer in observation.layers]


def test_an_inplace_activation_leaves_the_statistics_of_the_layer_before() -> None:
    plain, inplace = (by_name(setup_of(mlp(nn.ReLU(inplace=flag)))) for flag in (False, True))
    assert inplace == plain


@pytest.mark.parametrize("activation", [F.relu, F.relu_, Tensor.relu_])
def test_a_functional_inplace_activation_has_statistics_of_its_own(activation: Any) -> None:
    torch.manual_seed(0)
    net = Net(lambda m, x: m.b(activation(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    found, expected = by_name(setup_of(net)), by_name(setup_of(mlp(nn.ReLU())))
    assert found["a"].output == expected["0"].output
    assert found["a"].output_grad == expected["0"].output_grad
    assert found["relu"].dead_fraction == expected["1"].dead_fraction
    assert found["relu"].output_grad == expected["1"].output_grad


def test_dead_and_saturated_shares_are_exact() -> None:
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
        head.bias.copy_(torch.tensor([0.0, -100.0, 100.0, -100.0]))
    net = Net(lambda m, x: m.b(torch.tanh(m.relu(m.a(x)))), a=head, relu=nn.ReLU(), b=nn.Linear(4, 3))
    found = by_name(setup_of(net))
    assert found["relu"].dead_fraction == 0.5
    expected = (torch.tanh(F.relu(head(X))).abs() >= 0.98742).double().mean().item()
    assert found["tanh"].saturated_fraction == pytest.approx(expected)
    assert found["a"].dead_fraction is None
    assert found["a"].saturated_fraction is None


def test_dead_channels_of_images_are_units() -> None:
    conv = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        conv.bias.zero_()
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    found = by_name(setup_of(net, train=(torch.rand(12, 1, 2, 2) + 0.1, LABELS)))
    assert found["1"].dead_fraction == 0.5


def test_frozen_and_unused_parameters_have_no_gradient() -> None:
    net = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(4, 4).requires_grad_(False), b=nn.Linear(4, 3), c=nn.Linear(4, 4))
    found = by_name(setup_of(net))
    assert found["a"].weight_grad is None
    assert found["a"].update_ratio is None
    assert found["b"].weight_grad.rms > 0
    assert found["c (own parameters)"].weight.numel == 20
    assert found["c (own parameters)"].weight_grad is None


def test_a_detached_loss_has_no_gradient_at_all() -> None:
    _, observation = probe(setup_of(mlp(nn.Tanh()), lambda output, target: F.cross_entropy(output, target).detach()))
    assert observation.grad_norm == 0.0
    assert all(layer.weight_grad is None and layer.output_grad is None for layer in observation.layers)


def test_a_model_that_is_wholly_frozen_is_looked_at_all_the_same() -> None:
    _, observation = probe(setup_of(mlp(nn.Tanh()).requires_grad_(False)))
    assert observation.grad_norm == 0.0
    assert observation.layers[0].output.rms > 0


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.SparseAdam], ids=["SGD", "SparseAdam"])
def test_sparse_embeddings(optimizer: Any) -> None:
    table = nn.Embedding(50, 4, sparse=True)
    net = Net(lambda m, x: F.linear(m.table(x), m.fixed), table=table, fixed=torch.eye(3, 4))
    setup = setup_of(net, train=(torch.arange(12) % 5, LABELS), optimizer=lambda p: optimizer(p, lr=0.1))
    (grad,) = torch.autograd.grad(F.cross_entropy(net(torch.arange(12) % 5), LABELS), table.weight)
    dense_rms = grad.to_dense().square().mean().sqrt().item()
    table_stats = by_name(setup)["table"]
    assert table_stats.weight_grad.numel == 200
    assert table_stats.weight_grad.rms == pytest.approx(dense_rms, rel=1e-5)
    assert table_stats.update_ratio > 0


def test_an_optimizer_that_refuses_sparse_gradients_is_blamed() -> None:
    net = Net(lambda m, x: F.linear(m.table(x), torch.ones(3, 4)), table=nn.Embedding(5, 4, sparse=True))
    setup = setup_of(net, train=(torch.arange(12) % 5, LABELS), optimizer=torch.optim.AdamW)
    with pytest.raises(SetupError, match=r"optimizer: step failed: RuntimeError: .*sparse"):
        probe(setup)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02), (torch.float64, 1e-4)])
def test_models_of_any_floating_dtype(dtype: torch.dtype, tolerance: float) -> None:
    expected = by_name(setup_of(mlp(nn.Tanh())))
    found = by_name(setup_of(mlp(nn.Tanh()).to(dtype), train=(X.to(dtype), LABELS)))
    for name, stats in expected.items():
        assert found[name].output.rms == pytest.approx(stats.output.rms, rel=tolerance)
        assert found[name].output_grad.rms == pytest.approx(stats.output_grad.rms, rel=tolerance)
        if stats.update_ratio is not None:
            assert found[name].update_ratio == pytest.approx(stats.update_ratio, rel=tolerance)


def test_an_update_that_bfloat16_rounds_away_is_zero() -> None:
    setup = setup_of(
        mlp(nn.Tanh()).bfloat16(),
        train=(X.bfloat16(), LABELS),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-5),
    )
    found = by_name(setup)["0"]
    assert found.weight_grad.rms > 0
    assert found.update_ratio == 0.0


def test_gradients_far_below_float32_norms_do_not_read_zero() -> None:
    setup = setup_of(mlp(nn.Tanh()), lambda output, target: 1e-30 * F.cross_entropy(output, target))
    plain = setup_of(mlp(nn.Tanh()))
    for found, expected in zip(probe(setup)[1].layers, probe(plain)[1].layers, strict=True):
        assert found.output_grad.rms == pytest.approx(1e-30 * expected.output_grad.rms, rel=1e-4)
    assert probe(setup)[1].grad_norm == pytest.approx(1e-30 * probe(plain)[1].grad_norm, rel=1e-4)


def test_half_precision_sums_do_not_overflow() -> None:
    table = nn.Linear(4, 300).half()
    with torch.no_grad():
        table.weight.fill_(0)
        table.bias.fill_(6e4)
    setup = setup_of(table, lambda output, target: output.float().mean(), train=(X.half(), LABELS))
    assert probe(setup)[1].layers[0].output.rms == pytest.approx(6e4, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "broken"),
    [
        (lambda x: torch.log(x - x), "output"),  # -inf forward
        (lambda x: torch.sqrt(x - x), "output_grad"),  # 0 * inf backward
        (lambda x: torch.where(x > 0, x / x.clamp(min=0).sub(0), x), "output_grad"),
    ],
    ids=["log 0", "sqrt 0", "where"],
)
def test_nonfinite_values_are_findings_not_errors(make: Any, broken: str) -> None:
    net = Net(lambda m, x: m.b(make(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    found = by_name(setup_of(net))
    stats = found["b"].output if broken == "output" else found["a"].output_grad
    assert stats.nonfinite > 0
    assert found["a"].output.nonfinite == 0


def test_a_loss_that_is_nan_makes_no_step_but_shows_the_gradients() -> None:
    _, observation = probe(setup_of(mlp(nn.Tanh()), lambda output, target: output.sum() * math.nan))
    assert math.isnan(observation.loss)
    assert observation.layers[0].update_ratio is None
    assert observation.layers[0].weight_grad.nonfinite == 16


def test_several_inputs() -> None:
    net = Net(
        lambda m, a, b: m.out(m.left(a) * m.right(b)), left=nn.Linear(4, 5), right=nn.Linear(2, 5), out=nn.Linear(5, 3)
    )
    blueprint, _ = probe(setup_of(net, train=(X, X[:, :2], LABELS)))
    assert [scale.shape for scale in blueprint.inputs] == [(12, 4), (12, 2)]
    assert blueprint.layers[2].follows == (0, 1)


@pytest.mark.parametrize("name", ["target", "targets", "label", "labels", "y"])
def test_dict_batches_go_in_by_keyword_without_the_target(name: str) -> None:
    net = Net(lambda m, *, left, right: m.a(left + right), a=nn.Linear(4, 3))
    blueprint, observation = probe(setup_of(net, train={"left": X, name: LABELS, "right": X}))
    assert (blueprint.batch, blueprint.target.high) == (12, 2.0)
    assert observation.loss > 0


@pytest.mark.parametrize(
    "pack",
    [
        lambda loss, logits: SimpleNamespace(loss=loss, logits=logits),
        lambda loss, logits: OrderedDict(loss=loss, logits=logits),
    ],
    ids=["object", "dict"],
)
def test_models_that_return_their_own_loss(pack: Any) -> None:
    def run(m: Any, inputs: Tensor, labels: Tensor) -> Any:
        logits = m.a(inputs)
        return pack(F.cross_entropy(logits, labels), logits)

    torch.manual_seed(0)
    net = Net(run, a=nn.Linear(4, 3))
    train = {"inputs": X, "labels": LABELS}
    blueprint, observation = probe(setup_of(net, None, train, forward=lambda model, batch: model(**batch)))
    assert observation.loss == pytest.approx(F.cross_entropy(net.a(X), LABELS).item(), rel=1e-5)
    assert observation.output.numel == 36
    assert (blueprint.loss, blueprint.output.shape) == ("cross_entropy", (12, 3))


def test_outputs_in_a_tuple_are_measured_by_their_first_tensor() -> None:
    net = Net(lambda m, x: m.rnn(x), rnn=nn.LSTM(4, 3, batch_first=True))
    setup = setup_of(
        net,
        lambda output, target: F.cross_entropy(output[0][:, -1], target),
        train=(X[:, None].repeat(1, 5, 1), LABELS),
    )
    assert by_name(setup)["rnn"].output.numel == 12 * 5 * 3
    assert probe(setup)[1].output.numel == 12 * 5 * 3


def test_tied_weights_are_measured_once_and_stepped_once() -> None:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    net = nn.Sequential(first, nn.Tanh(), second, nn.Linear(4, 3))
    found = by_name(setup_of(net))
    assert found["0"].weight_grad == found["2"].weight_grad
    assert found["0"].update_ratio == found["2"].update_ratio
    assert found["0"].update_ratio == pytest.approx(0.1 * found["0"].weight_grad.rms / found["0"].weight.rms, rel=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    ],
)
def test_weights_that_are_made_of_parameters_are_measured_as_the_forward_pass_uses_them(wrap: Any) -> None:
    net = mlp(nn.Tanh())
    wrap(net[0])
    with torch.no_grad():
        for parameter in net[0].parameters():
            parameter.mul_(3.0)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found = by_name(setup_of(net))["0"].weight
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    net(X)  # in training mode, as the probe's pass
    net.eval()
    used = (net[0](torch.eye(4)) - net[0].bias).double()
    assert found.rms == pytest.approx(used.square().mean().sqrt().item(), rel=1e-5)
    assert found.numel == 16


def test_lbfgs_needs_a_closure_and_is_not_stepped() -> None:
    _, observation = probe(setup_of(mlp(nn.Tanh()), optimizer=torch.optim.LBFGS))
    assert observation.layers[0].weight_grad.rms > 0
    assert observation.layers[0].update_ratio is None


def edited(factor: float) -> Any:
    """An optimizer whose hook edits gradients in place."""

    def edit(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(factor)

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(edit)
        return optimizer

    return make


def test_an_optimizers_hooks_shape_the_step_and_not_the_gradient() -> None:
    plain = by_name(setup_of(mlp(nn.Tanh())))
    halved = by_name(setup_of(mlp(nn.Tanh()), optimizer=edited(0.5)))
    assert halved["0"].weight_grad == plain["0"].weight_grad
    assert halved["0"].update_ratio == pytest.approx(plain["0"].update_ratio / 2, rel=1e-4)


def test_gradients_that_share_memory_are_edited_apart() -> None:
    net = Net(lambda m, x: m.a + m.b + x, a=nn.Parameter(torch.ones(12, 4)), b=nn.Parameter(torch.ones(12, 4)))
    setup = setup_of(net, lambda output, target: output.sum(), optimizer=edited(0.5))
    (own,) = probe(setup)[1].layers
    assert own.weight_grad.rms == 1.0
    assert own.update_ratio == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_keep_their_gradients(reentrant: bool) -> None:
    torch.manual_seed(0)
    plain = Net(
        lambda m, x: m.c(m.b(m.a(x))), a=nn.Linear(4, 4), b=nn.Sequential(nn.Linear(4, 4), nn.Tanh()), c=nn.Linear(4, 3)
    )
    expected = by_name(setup_of(plain))
    plain.run = lambda m, x: m.c(checkpoint(m.b, m.a(x), use_reentrant=reentrant))
    blueprint, observation = probe(setup_of(plain))
    for found in observation.layers:
        assert found.weight_grad == expected[found.name].weight_grad
        assert found.update_ratio == expected[found.name].update_ratio
    assert (observation.layers[1].output_grad is None) is reentrant
    assert bool(blueprint.unseen) is reentrant


def test_a_wrapped_forward_pass_with_its_own_gradient_penalty() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(output.sum(), net.a.weight, create_graph=True)
        return F.cross_entropy(output, target) + grad.square().sum()

    net = Net(lambda m, x: m.b(torch.tanh(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    _, observation = probe(setup_of(net, loss))
    assert all_finite(observation)


def test_inputs_that_require_a_gradient_keep_no_hook() -> None:
    x = X.clone().requires_grad_()
    net = nn.Sequential(nn.Identity(), nn.Linear(4, 3))
    probe(setup_of(net, train=[(x, LABELS)]))
    assert x.grad is None
    assert not x._backward_hooks


def test_one_sample_has_no_spread() -> None:
    _, observation = probe(setup_of(mlp(nn.Tanh()), train=(X[:1], LABELS[:1])))
    assert observation.output_signal is None
    assert observation.layers[0].output.numel == 4
