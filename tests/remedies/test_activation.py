from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, SteadygradWarning
from steadygrad.records import Role
from steadygrad.remedies import Step, activation, compose, initialization, residual
from steadygrad.remedies.functions import AnsweredFunctions
from steadygrad.signals import probe
from steadygrad.signals.layers import ACTIVATION_FUNCTIONS
from steadygrad.signals.meanfield import gain
from steadygrad.training import Training, evaluate
from steadygrad.training.datasets import load


def kinds(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if not isinstance(m, (nn.Sequential, nn.ModuleList))]


def test_hidden_activations_are_swapped_and_the_head_stays(make_setup, mlp) -> None:
    setup = make_setup(nn.Sequential(*mlp(nn.Sigmoid), nn.Sigmoid()))
    treated = activation(to="gelu")(setup)
    assert kinds(treated.model) == ["Linear", "GELU"] * 3 + ["Linear", "Sigmoid"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2)])
        self.weights = nn.Softmax(dim=-1)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.out(x * self.weights(x))


def test_nested_modules_are_found_and_softmax_stays(make_setup) -> None:
    treated = activation(to="silu")(make_setup(Attention()))
    assert [type(block[1]) for block in treated.model.blocks] == [nn.SiLU, nn.SiLU]
    assert isinstance(treated.model.weights, nn.Softmax)


def test_a_shared_module_stays_shared(make_setup) -> None:
    act = nn.Sigmoid()
    model = nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3)).eval()
    treated = activation(to="mish")(make_setup(model))
    assert treated.model[1] is treated.model[3]
    assert isinstance(treated.model[1], nn.Mish)
    assert not treated.model[1].training


def test_a_module_that_is_hidden_and_head_is_refused(make_setup) -> None:
    act = nn.Sigmoid()
    with pytest.raises(NotApplicableError, match=r"1 makes the model's output and stands between hidden layers too"):
        activation()(make_setup(nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 3), act)))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        return self.out(torch.tanh(self.second(x)).mul(self.second(x).relu_()))


def by_hand(model: Functional, x: torch.Tensor) -> torch.Tensor:
    swapped = model.swapped_activation
    x = swapped(model.first(x))
    return model.out(swapped(model.second(x)).mul(swapped(model.second(x))))


@pytest.mark.parametrize("to", ["gelu", "prelu"])
def test_functions_are_answered_by_the_new_activation(make_setup, to: str) -> None:
    setup = make_setup(Functional())
    plan = activation.plan(setup, to=to)
    assert "+ forward: calls of relu, tanh" in str(plan)
    model, x = copy.deepcopy(setup.model), setup.train[0]
    before, keys, entries = model(x), list(model.state_dict()), dict(vars(model))
    undo = plan.apply_(model)
    expected = by_hand(model, x)
    assert not torch.equal(expected, before)
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same.forward is same.__dict__["forward"]
        assert torch.equal(same(x), expected)
        assert all(parameter.grad is None for parameter in same.parameters())
    again = copy.deepcopy(model)
    again.swapped_activation.register_forward_hook(lambda *_: torch.zeros(1))  # a copy runs its own module
    assert torch.equal(model(x), expected)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    undo.undo()
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == keys
    assert dict(vars(model)) == entries


@pytest.mark.parametrize(("function", "whole"), [(F.elu, True), (F.tanh, False), (torch.sigmoid, False)])
def test_answered_functions_compile_and_export(make_setup, function, whole: bool) -> None:
    class Calling(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(function(self.second(F.relu(self.first(x)))))

    treated = activation(to="gelu")(make_setup(Calling()))
    model, x = treated.model, treated.train[0]
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=whole, backend="eager")
    assert torch.equal(compiled(x), model(x))
    exported = torch.export.export(model, (x,)).module()
    assert torch.equal(exported(x), model(x))


def test_every_place_that_calls_a_function_is_swapped_and_can_be_hooked(make_setup) -> None:
    class Block(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(super().forward(x))

    setup = make_setup(nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), Block(8, 8), Block(8, 8), nn.Linear(8, 3)))
    treated = compose(activation(to="relu"), residual())(setup)
    assert kinds(treated.model).count("ReLU") == 3
    layers = probe(treated)[0].layers
    assert {layer.kind for layer in layers if layer.role is Role.ACTIVATION} == {"ReLU"}


def test_a_function_that_is_hidden_and_head_is_refused(make_setup) -> None:
    class Both(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.out(torch.sigmoid(self.first(x))))

    with pytest.raises(NotApplicableError, match=r"sigmoid makes the model's output and stands between hidden"):
        activation()(make_setup(Both()))


@pytest.mark.parametrize("name", sorted(ACTIVATION_FUNCTIONS))
def test_every_function_can_be_answered(name: str) -> None:
    forward = AnsweredFunctions((name,), "child").of(nn.Identity())
    assert forward._functions
    assert pickle.loads(pickle.dumps(forward))._functions == forward._functions


def test_linear_networks_are_refused(make_setup) -> None:
    with pytest.raises(NotApplicableError, match=r"expected a network with hidden activations, found none"):
        activation()(make_setup(nn.Linear(8, 3)))


def test_transformer_layers_leave_their_fast_path(make_setup) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=nn.ReLU(), batch_first=True)
    setup = make_setup(nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)), shape=(5, 8))
    model = activation(to="tanh")(setup).model
    assert isinstance(model[0].activation, nn.Tanh)
    x = setup.train[0]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), model.train()(x))


@pytest.mark.parametrize(
    ("to", "function"),
    [
        ("relu", F.relu),
        ("leaky_relu", F.leaky_relu),
        ("prelu", lambda x: F.leaky_relu(x, 0.25)),
        ("elu", F.elu),
        ("selu", F.selu),
        ("celu", F.celu),
        ("gelu", F.gelu),
        ("silu", lambda x: x * torch.sigmoid(x)),
        ("mish", lambda x: x * torch.tanh(F.softplus(x))),
        ("relu6", lambda x: x.clamp(0, 6)),
        ("hardtanh", lambda x: x.clamp(-1, 1)),
        ("hardsigmoid", lambda x: (x / 6 + 0.5).clamp(0, 1)),
        ("hardswish", lambda x: x * (x / 6 + 0.5).clamp(0, 1)),
        ("softplus", lambda x: (1 + x.exp()).log()),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_every_activation_is_its_formula(make_setup, mlp, to: str, function) -> None:
    setup = make_setup(mlp(nn.Hardshrink))
    model = activation(to=to)(setup).model
    x = torch.linspace(-8, 8, 41)
    torch.testing.assert_close(model[1](x), function(x))
    assert kinds(model)[1::2] == [type(model[1]).__name__] * 3


def test_new_parameters_follow_the_dtype_of_the_model(make_setup, mlp) -> None:
    setup = make_setup(mlp().double())
    setup = setup.replace(train=(setup.train[0].double(), setup.train[1]))
    assert activation(to="prelu")(setup).model[1].weight.dtype is torch.float64


def test_a_step_is_exact_and_borrows_the_slope_of_a_line() -> None:
    x = torch.tensor([-5.0, -0.3, 0.0, 1e-7, 0.7, 5.0], requires_grad=True)
    y = Step()(x)
    assert torch.equal(y, torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]))
    y.sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    assert gain(Step()) == pytest.approx(2**0.5)


def with_digits(setup):
    digits = load("digits")
    return setup.replace(
        train=digits.train, validation=digits.test, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3), batch_size=64
    )


def test_a_step_warns_learns_by_its_borrowed_slope_and_never_by_its_own(make_setup, mlp) -> None:
    setup = with_digits(make_setup(mlp(nn.Sigmoid, hidden=2, width=64, outputs=10)))
    with pytest.warns(SteadygradWarning, match=r"a step has slope 0 and by itself never trains") as w:
        treated = activation(to="step")(setup)
    assert w[0].filename == __file__
    training = Training(treated, seed=0)
    training.advance(200)
    assert evaluate(treated, training.model, treated.validation)[1] > 0.85

    for module in treated.model:
        if isinstance(module, Step):
            module.forward = lambda x: (x > 0).to(x.dtype)
    F.cross_entropy(treated.model(digits := setup.train[0][:64]), setup.train[1][:64]).backward()
    assert treated.model[0].weight.grad is None
    assert len(digits) == 64


def test_a_step_counts_as_an_activation(make_setup, mlp) -> None:
    blueprint, _ = probe(make_setup(mlp(Step)))
    assert [layer.activation for layer in blueprint.layers if layer.role == "linear"] == ["Step"] * 3 + [None]


def test_selu_takes_dropout_along(make_setup) -> None:
    model = nn.Sequential(
        nn.Dropout(0.1), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3), nn.Softmax(dim=1)
    )
    setup = make_setup(model)
    assert kinds(activation(to="selu")(setup).model)[:4] == ["Dropout", "Linear", "SELU", "AlphaDropout"]
    assert activation(to="selu")(setup).model[3].p == 0.2
    assert kinds(activation(to="gelu")(setup).model)[3] == "Dropout"


def test_the_selu_recipe_keeps_mean_and_variance_through_fifty_layers(make_setup, mlp) -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 128)
    setup = make_setup(mlp(nn.ReLU, hidden=50, width=128), shape=(128,))
    recipe = compose(activation(to="selu"), initialization(method="lecun"))
    out = recipe(setup).model[:-1](x)
    assert abs(out.mean().item()) < 0.1
    assert out.var().item() == pytest.approx(1, abs=0.3)
    assert initialization(method="lecun")(setup).model[:-1](x).std() < 1e-6  # ReLU wants twice the variance


def test_gradients_reach_the_depth_with_an_activation_that_does_not_saturate(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid, hidden=20, width=64), shape=(64,))

    def reach(setup) -> float:
        _, seen = probe(setup)
        weights = [stats.weight_grad.rms for stats in seen.layers if stats.weight_grad is not None]
        return weights[0] / weights[-1]

    assert reach(setup) < 1e-12
    assert reach(compose(activation(to="relu"), initialization(method="he"))(setup)) > 0.02
    assert reach(activation(to="relu")(setup)) < 1e-3  # the weights were right for neither


def test_hard_sigmoids_vanish_sooner_than_sigmoids(make_setup, mlp) -> None:
    def first_gradient(to: str) -> float:
        treated = initialization(method="he")(activation(to=to)(make_setup(mlp(hidden=20, width=64), shape=(64,))))
        _, seen = probe(treated)
        return next(stats.weight_grad.rms for stats in seen.layers if stats.weight_grad is not None)

    torch.manual_seed(0)
    assert first_gradient("hardsigmoid") < 0.5 * first_gradient("sigmoid")
