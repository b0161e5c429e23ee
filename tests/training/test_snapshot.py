"""A look leaves everything as it was, bit for bit, however it ends."""

from __future__ import annotations

import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import SetupError
from steadygrad.signals import probe, read_blueprint
from steadygrad.training import TrainingSetup, preserved, preserved_random_state, seeded

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


class Busy(nn.Module):
    """A model that changes everything it has while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.fc = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("tilted", torch.ones(1).expand(5))
        self.calls, self.history, self.tags, self.recent = 0, [1], {"a"}, deque([1, 2], maxlen=3)
        self.cache: dict[str, Any] = {"nested": {"list": [0]}}
        self.memory, self.pair = torch.zeros(4), (torch.zeros(2), [])
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(self.calls)
        self.tags.add("b")
        self.recent.append(9)
        self.cache["new"] = x
        self.cache["nested"]["list"].append(1)
        self.memory.add_(1)
        self.pair[0].add_(1)
        self.pair[1].append(1)
        self.seen += x.sum() * self.fc.weight.sum()  # the buffer now has a graph
        self.late = x
        self.register_buffer("later", x.mean())
        self.frozen.requires_grad_(True)
        self.fc.training = False
        noise = torch.rand(4, generator=self.generator) + torch.rand(4)
        random.random(), np.random.rand()
        return self.fc(self.drop(self.frozen(self.norm(x))) + noise)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def trace(value: Any) -> Any:
    """Describe everything in a model: identities of objects and bits of tensors."""
    if isinstance(value, nn.Module):
        return id(value), trace(value.__dict__)
    if isinstance(value, Tensor):
        grad = None if not value.is_leaf or value.grad is None else (id(value.grad), bits(value.grad))
        return id(value), value.data_ptr(), bits(value), value.requires_grad, value.is_leaf, grad, value.stride()
    if isinstance(value, dict):
        return id(value), [(key, trace(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return id(value), [trace(item) for item in value]
    if isinstance(value, set):
        return id(value), sorted(map(str, value))
    if isinstance(value, torch.Generator):
        return id(value), bits(value.get_state())
    return id(value)


def random_states() -> Any:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tobytes(), *rest), bits(torch.get_rng_state())


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = trace(model), random_states()
    yield
    assert (trace(model), random_states()) == before


@pytest.fixture
def model() -> Busy:
    torch.manual_seed(0)
    made = Busy()
    made.fc.weight.grad = torch.full_like(made.fc.weight, 5.0)
    made.eval()
    made.norm.train()
    made.fc.register_forward_hook(lambda *_: None)
    made.fc.weight.register_hook(lambda grad: None)
    return made


def setup_of(model: nn.Module, **settings: Any) -> TrainingSetup:
    arguments: dict[str, Any] = {
        "loss": F.cross_entropy,
        "train": (X, LABELS),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    }
    return TrainingSetup(model, **(arguments | settings))


@pytest.mark.parametrize("look", [probe, read_blueprint])
def test_a_look_leaves_everything_as_it_was(model: Busy, look: Callable[[TrainingSetup], Any]) -> None:
    with unchanged(model):
        look(setup_of(model))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["model", "loss", "optimizer", "step", "forward", "hook"])
def test_a_look_that_fails_leaves_everything_as_it_was(model: Busy, where: str, error: type[BaseException]) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error("on purpose")

    class Failing(torch.optim.SGD):
        step = fail

    settings: dict[str, dict[str, Any]] = {
        "loss": {"loss": fail},
        "optimizer": {"optimizer": fail},
        "step": {"optimizer": Failing},
        "forward": {"forward": lambda model, batch: (model(batch[0]), fail())},
    }
    if where == "model":
        model.fc.forward = fail
    if where == "hook":
        model.fc.weight.register_hook(fail)
    expected = SetupError if error is ValueError else error
    with unchanged(model), pytest.raises(expected, match="on purpose"):
        probe(setup_of(model, **settings.get(where, {})))


def test_the_probe_does_not_fire_the_users_accumulation_hooks(model: Busy) -> None:
    fired: list[Tensor] = []
    model.fc.weight.register_post_accumulate_grad_hook(fired.append)
    probe(setup_of(model))
    assert fired == []


def test_parameters_that_were_replaced_come_back(model: Busy) -> None:
    with unchanged(model), preserved(model):
        model.fc.weight = nn.Parameter(torch.zeros(3, 4))
        model.norm.running_mean = torch.ones(4)
        model.half()
        del model.drop
        model.cache.clear()
        model.register_forward_hook(lambda *_: None)


def test_storage_that_was_exchanged_comes_back(model: Busy) -> None:
    with unchanged(model), preserved(model):
        model.fc.weight.data = torch.zeros(7, 7)
        model.fc.bias.data = model.fc.bias.data.clone()


def test_the_values_before_are_at_hand(model: Busy) -> None:
    expected = model.fc.weight.detach().clone()
    with preserved(model) as before:
        with torch.no_grad():
            model.fc.weight.zero_()
        assert torch.equal(before[id(model.fc.weight)], expected)
        assert model.fc.weight.grad is None


def test_the_graph_of_a_cached_output_is_left_alone() -> None:
    model = nn.Linear(4, 3)
    model.last = model(X)
    with unchanged(model):
        probe(setup_of(model))
    model.last.sum().backward()
    assert model.weight.grad is not None


def test_a_loss_that_is_a_module_is_preserved_too() -> None:
    class Centered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(self.norm(output), target)

    loss, model = Centered(), nn.Linear(4, 3)
    with unchanged(loss):
        probe(setup_of(model, loss=loss))


@pytest.mark.parametrize("parametrize", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.orthogonal])
def test_parametrized_models_are_preserved(parametrize: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(parametrize(nn.Linear(4, 4)), nn.Linear(4, 3))
    with unchanged(model):
        probe(setup_of(model))


def test_script_modules_are_preserved() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)))
    model = nn.Sequential(scripted, nn.Linear(4, 3)).eval()
    before = {name: bits(tensor) for name, tensor in model.state_dict().items()}
    probe(setup_of(model))
    assert {name: bits(tensor) for name, tensor in model.state_dict().items()} == before
    assert not any(module.training for module in model.modules())


def test_compiled_models_are_preserved_and_run_on() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    with unchanged(model):
        probe(setup_of(compiled))
    assert compiled(X).shape == (12, 3)


def test_recurrent_weights_keep_their_flat_storage() -> None:
    model = nn.LSTM(4, 3, batch_first=True)
    with unchanged(model):
        probe(setup_of(model, loss=lambda output, target: output[0].sum(), train=(X[:, None], LABELS)))


def test_a_sparse_buffer_is_preserved() -> None:
    model = nn.Linear(4, 3)
    model.register_buffer("links", torch.eye(4).to_sparse())
    with preserved(model):
        model.links.mul_(7)
    assert torch.equal(model.links.to_dense(), torch.eye(4))


def test_a_tensor_made_in_inference_mode_is_no_obstacle() -> None:
    model = nn.Linear(4, 3)
    with torch.inference_mode():
        model.cache = torch.ones(3)
    with unchanged(model):
        probe(setup_of(model))


def test_lazy_parameters_have_to_be_shaped_first() -> None:
    with pytest.raises(SetupError, match="expected parameters with a shape, got lazy ones"):
        preserved(nn.LazyLinear(3)).__enter__()


def test_random_states_come_back_with_those_of_generators() -> None:
    generator = torch.Generator().manual_seed(1)
    before = random_states(), bits(generator.get_state())

    def draw_and_stop() -> None:
        torch.rand(3), np.random.rand(), random.random(), torch.rand(3, generator=generator)
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"), preserved_random_state(generator):
        draw_and_stop()
    assert (random_states(), bits(generator.get_state())) == before


def test_a_seed_makes_a_block_repeatable_and_leaves_no_trace() -> None:
    generator = torch.Generator()

    def draw() -> tuple[float, ...]:
        with seeded(7, generator):
            return torch.rand(()).item(), np.random.rand(), random.random(), torch.rand((), generator=generator).item()

    before = random_states()
    assert draw() == draw()
    assert random_states() == before
