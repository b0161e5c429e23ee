"""The static facts of a set-up, and what could not be looked into."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import SetupError
from steadygrad.records import Role, TargetKind
from steadygrad.signals import read_blueprint
from steadygrad.training import TrainingSetup

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def setup_of(model: nn.Module, loss: Any = F.cross_entropy, target: Any = LABELS, **settings: Any) -> TrainingSetup:
    return TrainingSetup(model, loss, settings.pop("train", (X, target)), **settings)


def test_layers_know_their_fans_followers_and_parameters() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    )
    setup = setup_of(model, train=(torch.randn(12, 1, 4, 4), LABELS))
    conv, norm, dropout, relu, _, head = read_blueprint(setup).layers
    assert (conv.fan_in, conv.fan_out, conv.activation, conv.normalized, conv.parameters) == (9, 72, "ReLU", True, 80)
    assert (norm.role, norm.activation, norm.normalized, norm.fan_in) == (Role.NORMALIZATION, "ReLU", False, None)
    assert (dropout.role, relu.role, relu.follows) == (Role.OTHER, Role.ACTIVATION, (2,))
    assert (head.fan_in, head.fan_out, head.activation, head.trainable) == (32, 3, None, True)


def test_frozen_layers_are_not_trainable() -> None:
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 3))
    assert [layer.trainable for layer in read_blueprint(setup_of(model)).layers] == [False, True]


@pytest.mark.parametrize(
    ("tail", "head", "layer"),
    [
        ([], None, "0"),
        ([nn.Sigmoid()], "Sigmoid", "1"),
        ([nn.Softmax(-1), nn.Dropout(0.5), nn.Flatten()], "Softmax", "1"),
    ],
)
def test_the_head_is_what_made_the_output(tail: list[nn.Module], head: str | None, layer: str) -> None:
    blueprint = read_blueprint(setup_of(nn.Sequential(nn.Linear(4, 3), *tail)))
    assert blueprint.head == head
    assert blueprint.layers[blueprint.head_layer].name == layer


def test_a_functional_head_is_seen() -> None:
    blueprint = read_blueprint(setup_of(nn.Linear(4, 3), forward=lambda model, batch: model(batch[0]).softmax(-1)))
    assert blueprint.head == "softmax"


@pytest.mark.parametrize(
    ("target", "loss", "kind"),
    [
        (LABELS, F.cross_entropy, TargetKind.CLASS_INDEX),
        (F.one_hot(LABELS, 3).float(), F.mse_loss, TargetKind.BINARY),
        (X[:, :3] * 5, F.mse_loss, TargetKind.REAL),
    ],
)
def test_target_and_loss_are_named(target: Tensor, loss: Any, kind: TargetKind) -> None:
    blueprint = read_blueprint(setup_of(nn.Linear(4, 3), loss, target))
    assert (blueprint.loss, blueprint.target_kind) == (loss.__name__, kind)
    assert blueprint.loss_shapes == ((12, 3), tuple(target.shape))
    assert (blueprint.target.low, blueprint.target.high) == (target.min().item(), target.max().item())


def test_a_loss_of_the_users_own_is_not_named_but_its_sources_are() -> None:
    setup = setup_of(nn.Sequential(nn.Linear(4, 1), nn.Tanh()), lambda output, target: (output**2).mean())
    blueprint = read_blueprint(setup)
    assert (blueprint.loss, blueprint.head) == (None, "Tanh")


def test_a_forward_that_returns_its_loss_has_no_output_but_a_head() -> None:
    setup = TrainingSetup(nn.Linear(4, 3), None, (X, LABELS), forward=lambda m, b: F.cross_entropy(m(b[0]), b[1]))
    blueprint = read_blueprint(setup)
    assert (blueprint.output, blueprint.loss, blueprint.head_layer) == (None, "cross_entropy", 0)


def test_inputs_and_entries_differ_where_the_model_scales() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x / 100)

    blueprint = read_blueprint(setup_of(Scaled(), train=(X * 100, LABELS), batch_size=12))
    assert blueprint.inputs[0].std == pytest.approx(100 * X.std(correction=0).item(), rel=1e-4)
    assert blueprint.entries[0].std == pytest.approx(X.std(correction=0).item(), rel=1e-4)


def test_inputs_are_read_before_the_model_changes_them_in_place() -> None:
    class Clamped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.clamp_(min=0))

    blueprint = read_blueprint(setup_of(Clamped(4, 3), train=[(X.clone(), LABELS)]))
    assert blueprint.inputs[0].low == X.min().item() < 0
    assert blueprint.entries[0].low == 0.0


def test_every_weight_layer_without_a_source_has_an_entry() -> None:
    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([self.a(x), self.b(3 * x)], 1))

    blueprint = read_blueprint(setup_of(TwoTowers()))
    assert [layer.name for layer in blueprint.layers if not layer.follows] == ["a", "b"]
    assert blueprint.entries[1].high == pytest.approx(3 * blueprint.entries[0].high)
    assert len(blueprint.entries) == 2


@pytest.mark.parametrize(
    ("factory", "name", "settings"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), "SGD", {"lr": 0.5, "momentum": 0.9}),
        (lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.25)), "AdamW", {"lr": 0.25, "weight_decay": 0.01}),
    ],
)
def test_the_optimizer_is_read(factory: Any, name: str, settings: dict[str, float]) -> None:
    blueprint = read_blueprint(setup_of(nn.Linear(4, 3), optimizer=factory, steps=77))
    assert (blueprint.optimizer, blueprint.steps) == (name, 77)
    assert settings.items() <= blueprint.optimizer_settings.items()


def test_without_an_optimizer_there_is_none() -> None:
    blueprint = read_blueprint(setup_of(nn.Linear(4, 3)))
    assert (blueprint.optimizer, blueprint.optimizer_settings, blueprint.parameters) == (None, {}, 15)


def test_batch_and_steps_are_counted() -> None:
    assert read_blueprint(setup_of(nn.Linear(4, 3), batch_size=5)).batch == 5


def test_parameters_used_outside_of_calls_are_listed_and_told() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gain = nn.Linear(4, 3), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * self.fc(x)

    blueprint = read_blueprint(setup_of(Gain()))
    assert [layer.name for layer in blueprint.layers] == ["fc", "Gain (own parameters)"]
    assert "Gain (own parameters)" in blueprint.unseen[0]


def test_layers_that_run_untracked_are_told() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.a(x)
            return self.b(x)

    (note,) = read_blueprint(setup_of(Half())).unseen
    assert "1 trainable layers run without recording gradients" in note
    assert note.endswith("not seen: a")


@pytest.mark.parametrize("compiler", [torch.jit.script, lambda m: torch.jit.trace(m, X)], ids=["script", "trace"])
def test_script_modules_are_told(compiler: Callable[[nn.Module], nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = nn.Sequential(compiler(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 3))
    blueprint = read_blueprint(setup_of(model))
    assert blueprint.unseen[0] == "0: a script module; what happens inside is not seen"
    assert [layer.name for layer in blueprint.layers] == ["1", "0.0 (own parameters)"]


@pytest.mark.parametrize("called", [True, False], ids=["called before", "not called yet"])
@pytest.mark.parametrize("part", ["whole", "part", "in place"])
def test_compiled_models_are_seen_as_they_were_written(part: str, called: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 3))
    expected = read_blueprint(setup_of(model))
    if part == "whole":
        compiled = torch.compile(model, backend="eager")
    elif part == "part":
        compiled = model
        model[1] = torch.compile(model[1], backend="eager")
    else:
        compiled = model
        model.compile(backend="eager")
    if called:
        compiled(X)
    blueprint = read_blueprint(setup_of(compiled))
    assert [layer.name for layer in blueprint.layers] == ["0", "1.0", "1.1", "2"]
    assert blueprint == expected
    assert isinstance(compiled.get_submodule("1.1"), nn.Linear)


def test_a_model_in_evaluation_mode_is_read_as_it_trains() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(1.0)).eval()
    assert read_blueprint(setup_of(model)).output.high == 0.0
    assert not model.training
    assert not model[1].training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_does_not_matter(mode: Any) -> None:
    setup = setup_of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))
    expected = read_blueprint(setup)
    with mode():
        assert read_blueprint(setup) == expected


def test_a_model_that_fails_says_on_what() -> None:
    with pytest.raises(
        SetupError, match=r"model: forward failed on \(float32\[12, 4\], int64\[12\]\): RuntimeError: mat1"
    ):
        read_blueprint(setup_of(nn.Linear(5, 3)))
