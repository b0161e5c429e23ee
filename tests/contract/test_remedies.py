"""Every remedy passes one suite; a new one is a line in ``CASES``."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from steadygrad.boltzmann.pretraining import pretraining
from steadygrad.errors import NotApplicableError
from steadygrad.remedies import CATALOGUE, Remedy, Site, compose, make
from steadygrad.training import Training, TrainingSetup, run_batch, seeded
from steadygrad.training.loop import make_optimizer

from .setups import classes, functions, half_frozen, images, incomplete, linear, reals, sequences, softmax

CASES: list[tuple[Remedy | Callable, Callable[..., TrainingSetup]]] = [
    (make("activation", to="gelu"), classes),
    (make("activation", to="leaky_relu"), images),
    (make("activation", to="prelu"), images),
    (make("activation", to="mish"), functions),
    (make("residual"), functions),
    (make("activation", to="selu"), classes),
    (make("auxiliary_loss", heads=2), classes),
    (make("auxiliary_loss", heads=1), images),
    *((make(name), classes) for name, factory in CATALOGUE.items() if factory.card.site is Site.GRADIENT),
    (make("centered_updates"), classes),
    (compose(make("initialization", method="isometric"), make("centered_updates", lr=0.3)), classes),
    (compose(make("initialization", method="isometric"), make("centered_updates")), sequences),
    (make("dropout"), classes),
    (make("dropout", p=0.3), images),
    (make("head", to="identity"), softmax),
    (make("inserted_activation"), linear),
    (make("less_dropout", p=0.05), classes),
    (make("longer_training"), classes),
    (make("width"), classes),
    (make("complete_rows"), incomplete),
    (make("depth", layers=2), classes),
    (make("unfreeze"), half_frozen),
    (make("initialization"), classes),
    (make("initialization"), images),
    (make("initialization", method="orthogonal"), classes),
    (make("initialization", method="he"), images),
    (make("initialization", method="xavier"), reals),
    (make("initialization", method="lecun", distribution="uniform"), reals),
    (make("initialization", method="small", distribution="truncated"), classes),
    (make("initialization", method="delta_orthogonal"), images),
    (make("initialization", method="isometric"), classes),
    (make("initialization", method="orthogonal_recurrent"), sequences),
    (compose(make("activation", to="relu"), make("initialization", method="looks_linear")), classes),
    (compose(make("activation"), make("residual"), make("initialization", method="zero_residual")), classes),
    (compose(make("recurrent"), make("initialization", method="forget_bias")), sequences),
    (compose(make("recurrent"), make("initialization", method="chrono")), sequences),
    (make("learning_rate", lr=0.01), classes),
    (make("loss", to="cross_entropy"), classes),
    (make("loss", to="mse"), reals),
    (make("normalization", kind="layer"), classes),
    (make("normalization", kind="batch"), images),
    (make("normalization", kind="group"), images),
    (make("normalization", kind="rms"), classes),
    (make("optimizer", name="adam", lr=0.01), classes),
    (make("residual"), classes),
    (make("residual", scale=0.5), images),
    (make("residual", kind="rezero"), classes),
    (make("residual", kind="layerscale"), images),
    (make("recurrent", kind="lstm"), sequences),
    (make("recurrent", kind="gru"), sequences),
    (make("standardize_inputs"), classes),
    (make("standardize_inputs"), images),
    (make("standardize_targets"), reals),
    (make("max_norm", bound=0.5), classes),
    (make("max_norm", over="layer"), images),
    (make("clip_weights", bound=0.3), classes),
    (make("l1_penalty"), classes),
    (make("weight_decay"), classes),
    (make("spectral_norm"), images),
    (make("orthogonal_weights"), classes),
    (make("weight_norm"), images),
    (make("weight_standardization"), images),
    (pretraining(epochs=1), classes),
    (make("pruning"), classes),
    (make("label_smoothing"), classes),
    (make("z_loss"), classes),
    (make("soft_cap"), images),
    (make("augmentation", shift=1), images),
    (make("adversarial_samples"), classes),
    (make("batch_size", samples=7), classes),
    (make("schedule", warmup=0.0), classes),
    (make("optimizer", name="nesterov", lr=0.01), images),
    (make("truncated_backpropagation", length=2), sequences),
    (compose(make("normalization"), make("residual"), make("initialization"), make("standardize_inputs")), classes),
    (compose(make("standardize_inputs"), make("activation"), make("residual"), make("clip_by_global_norm")), images),
]
NAMES = [f"{getattr(remedy, 'remedies', remedy)!s} on {setup.__name__}" for remedy, setup in CASES]
NAMES = [name if len(name) < 70 else f"composition {i}" for i, name in enumerate(NAMES)]
every_remedy = pytest.mark.parametrize(("remedy", "build"), CASES, ids=NAMES)


def fingerprint(setup: TrainingSetup) -> dict[str, object]:
    """Everything about a set-up that a remedy might touch, tensors as bytes."""
    model = setup.model
    found: dict[str, object] = {"repr": repr(model), "fields": [v for k, v in vars(setup).items() if k != "model"]}
    for name, tensor in [*model.named_parameters(), *model.named_buffers(), *enumerate(setup.train)]:
        found[f"bits {name}"] = (id(tensor), tensor.detach().numpy().tobytes(), tensor.requires_grad, tensor.grad)
    for name, module in model.named_modules():
        hooks = (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._backward_hooks))
        found[f"module {name}"] = (id(module), module.training, hooks, sorted(vars(module)))
    return found


def output(setup: TrainingSetup, model: nn.Module | None = None) -> torch.Tensor:
    model = copy.deepcopy(setup.model if model is None else model).eval()
    with torch.no_grad():
        return model(setup.train[0])


@every_remedy
def test_the_set_up_it_is_given_stays_bit_for_bit(remedy, build) -> None:
    setup = build()
    setup.model[0].train(False)
    before = fingerprint(setup)
    remedy(setup)
    assert fingerprint(setup) == before


@every_remedy
def test_it_follows_the_global_seed_alone(remedy, build) -> None:
    states = []
    for _ in range(2):
        with seeded(3):
            states.append(remedy(build()).model.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


@every_remedy
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_device_are_kept(remedy, build, dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16 and getattr(remedy, "card", None) is CATALOGUE["orthogonal_weights"].card:
        with pytest.raises(NotApplicableError, match=r"expected weights of 32 or 64 bits"):
            remedy(build(dtype))
        return
    treated = remedy(build(dtype))
    for tensor in treated.model.state_dict().values():
        assert tensor.dtype in (dtype, torch.int64)
        assert tensor.device.type == "cpu"
    assert output(treated).dtype is dtype


@every_remedy
def test_copies_pickles_and_state_dicts_answer_alike(remedy, build) -> None:
    setup = build()
    treated = remedy(setup)
    expected = output(treated)
    assert expected.isfinite().all()
    assert torch.equal(output(treated, copy.deepcopy(treated.model)), expected)
    assert torch.equal(output(treated, pickle.loads(pickle.dumps(treated.model))), expected)
    with seeded(5):
        other = remedy(build()).model
    other.load_state_dict(treated.model.state_dict())
    assert torch.equal(output(treated, other), expected)
    pickle.loads(pickle.dumps((treated.optimizer, treated.loss)))


@every_remedy
def test_old_parameters_are_all_still_there(remedy, build) -> None:
    setup = build()
    old = {name for name, _ in setup.model.named_parameters()}
    new = {plain_name(name) for name, _ in remedy(setup).model.named_parameters()}
    takes_layers_out = getattr(remedy, "card", None) is CATALOGUE["depth"].card
    assert new < old if takes_layers_out else old <= new


def plain_name(name: str) -> str:
    """Return a parameter's name without what wrappers and parametrizations add."""
    name = re.sub(r"parametrizations\.(\w+)\.original\d?", r"\1", name)
    return name.removeprefix("model.").replace("rnn.rnn.", "rnn.")


@every_remedy
def test_the_result_trains(remedy, build) -> None:
    treated = remedy(build())
    training = Training(treated, seed=0)
    training.advance(2)
    assert not training.diverged
    changed = [
        not torch.equal(a, b) for a, b in zip(training.model.parameters(), treated.model.parameters(), strict=True)
    ]
    assert any(changed)


@every_remedy
def test_it_runs_under_autocast(remedy, build) -> None:
    treated = remedy(build())
    if any(isinstance(module, nn.LSTM) for module in treated.model.modules()) and not _has_bfloat16_lstm():
        pytest.skip("torch has no bfloat16 LSTM for this processor")
    with torch.autocast("cpu", torch.bfloat16):
        step = run_batch(treated, treated.model, treated.train)
    step.loss.backward()
    assert step.loss.isfinite()


def _has_bfloat16_lstm() -> bool:
    try:
        with torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(2, 2)(torch.zeros(1, 1, 2))
    except RuntimeError:
        return False
    return True


class Loop:
    """A training loop as users write it, on a treated set-up of its own."""

    def __init__(self, remedy, build, zero_output: bool = False) -> None:
        setup = build()
        if zero_output:
            weight = [parameter for parameter in setup.model.parameters() if parameter.dim() > 1][-1]
            nn.init.zeros_(weight)
        with seeded(0):
            self.setup = remedy(setup)
        self.model = self.setup.model.train()
        self.optimizer = make_optimizer(self.setup, self.model)
        self.scheduler = self.setup.scheduler(self.optimizer) if self.setup.scheduler else None

    def loss(self, step: int) -> torch.Tensor:
        with seeded(step):
            return run_batch(self.setup, self.model, self.setup.train).loss

    def advance(self, steps: range, backward: Callable = torch.Tensor.backward, step: Callable | None = None) -> None:
        for number in steps:
            self.optimizer.zero_grad()
            backward(self.loss(number))
            (step or self.optimizer.step)()
            if self.scheduler is not None:
                self.scheduler.step()

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


@every_remedy
def test_grad_scaler_and_closure_give_the_numbers_of_a_plain_loop(remedy, build) -> None:
    plain, scaled, closed = (Loop(remedy, build) for _ in range(3))
    plain.advance(range(3))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)  # a power of two: scaling rounds nothing
    scaled.advance(
        range(3),
        lambda loss: scaler.scale(loss).backward(),
        lambda: (scaler.step(scaled.optimizer), scaler.update()),
    )
    for number in range(3):

        def closure(number: int = number) -> torch.Tensor:
            closed.optimizer.zero_grad()
            loss = closed.loss(number)
            loss.backward()
            return loss

        closed.optimizer.step(closure)
        if closed.scheduler is not None:
            closed.scheduler.step()
    for other in (scaled, closed):
        for found, expected in zip(other.weights(), plain.weights(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@every_remedy
def test_a_saved_training_resumes_exactly(remedy, build) -> None:
    one, other = Loop(remedy, build), Loop(remedy, build)
    one.advance(range(2))
    other.model.load_state_dict(copy.deepcopy(one.model.state_dict()))
    other.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    if one.scheduler is not None:
        other.scheduler.load_state_dict(copy.deepcopy(one.scheduler.state_dict()))
    for loop in (one, other):
        loop.advance(range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.weights(), other.weights(), strict=True))


@every_remedy
def test_an_output_layer_of_zeros_learns(remedy, build) -> None:
    if getattr(remedy, "card", None) is CATALOGUE["centered_updates"].card:
        with pytest.raises(NotApplicableError, match=r"expected a signal in each layer"):
            Loop(remedy, build, zero_output=True)
        return
    loop = Loop(remedy, build, zero_output=True)
    loop.advance(range(3))
    weights = [weight for weight in loop.weights() if weight.dim() > 1]
    assert all(weight.isfinite().all() for weight in weights)
    assert (weights[-1] != 0).any()


@every_remedy
def test_a_pass_over_nan_leaves_no_trace(remedy, build) -> None:
    treated = remedy(build())
    expected = output(treated)
    model = treated.model.eval()
    x = treated.train[0]
    with torch.no_grad():
        model(torch.full_like(x, torch.nan))
        assert torch.equal(model(x), expected)


SURGERY = {"activation", "auxiliary_loss", "dropout", "normalization", "residual"}


@pytest.mark.parametrize(
    ("remedy", "build"),
    [case for case in CASES if isinstance(case[0], Remedy) and case[0].card.name in SURGERY] + CASES[-2:],
)
def test_hooks_compile_in_one_graph(remedy, build) -> None:
    treated = remedy(build())
    model = treated.model.eval()
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(treated.train[0]), model(treated.train[0]))


def test_the_table_misses_no_remedy() -> None:
    tried = {remedy.card.name for remedy, _ in CASES if isinstance(remedy, Remedy)}
    assert tried == set(CATALOGUE)


def test_only_remedies_of_model_and_data_copy_the_model() -> None:
    for remedy, build in CASES:
        if isinstance(remedy, Remedy):
            setup = build()
            shared = remedy(setup).model is setup.model
            assert shared == (remedy.card.site not in (Site.MODEL, Site.DATA))
