"""Transforms on an optimizer: put on, reported, saved, taken off, refused."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies import (
    CATALOGUE,
    GradientTransform,
    Site,
    adaptive_clip,
    attach,
    attachment_of,
    chain,
    clip_by_global_norm,
    clip_by_parameter_norm,
    clip_by_running_norm,
    clip_spikes,
    learning_rate,
    make,
    max_norm,
    optimizer,
    skip_nonfinite,
)
from steadygrad.training import Training, TrainingSetup


def pair(kind=torch.optim.SGD, **settings) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.zeros(2))
    return weight, kind([weight], lr=1.0, **settings)


def step(weight: nn.Parameter, opt: torch.optim.Optimizer, *gradient: float) -> None:
    weight.grad = torch.tensor(gradient)
    opt.step()


def test_detached_the_optimizer_is_as_before() -> None:
    weight, opt = pair(fused=True)
    before = {key: copy.copy(value) for key, value in vars(opt).items()}
    attachment = attach(opt, clip_by_global_norm(1.0))
    step(weight, opt, 3.0, 4.0)
    attachment.detach()
    attachment.detach()
    assert vars(opt).keys() == before.keys()
    assert all(len(vars(opt)[key]) == len(value) for key, value in before.items() if key.endswith("hooks"))
    assert "steadygrad" not in opt.state_dict()
    assert attachment_of(opt) is None
    step(weight, opt, 3.0, 4.0)
    torch.testing.assert_close(weight.data, -torch.tensor([3.6, 4.8]))


def test_fused_optimizers_get_the_factor_and_clipped_gradients_are_seen_afterwards() -> None:
    weight, opt = pair(fused=True)
    attach(opt, clip_by_global_norm(1.0))
    seen = []
    opt.register_step_pre_hook(lambda o, *_: seen.append((o.grad_scale.item(), weight.grad.tolist())))
    step(weight, opt, 3.0, 4.0)
    assert seen == [(pytest.approx(5.0), [3.0, 4.0])]
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
    assert not hasattr(opt, "grad_scale")


def test_factors_too_small_for_float32_reach_fused_optimizers_too() -> None:
    weight, opt = pair(fused=True)
    attach(opt, clip_by_global_norm(1e-10))
    step(weight, opt, 3e30, 4e30)
    torch.testing.assert_close(weight.data, -torch.tensor([0.6e-10, 0.8e-10]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("kind", "fused"),
    [(kind, False) for kind in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "Adamax")]
    + [(kind, True) for kind in ("SGD", "Adam", "AdamW", "Adagrad")],
)
def test_a_skipped_step_leaves_every_optimizer_as_it_was(kind: str, fused: bool) -> None:
    weight, opt = pair(getattr(torch.optim, kind), weight_decay=0.1, **({"fused": True} if fused else {}))
    attachment = attach(opt, chain(skip_nonfinite(), clip_by_global_norm(1.0)))
    step(weight, opt, 3.0, 4.0)
    value, state = weight.detach().clone(), copy.deepcopy(opt.state_dict()["state"])
    step(weight, opt, math.nan, 4.0)
    assert torch.equal(weight, value)
    torch.testing.assert_close(opt.state_dict()["state"], state)
    assert weight.grad[1] == 4  # the gradient is there again
    assert [deed.acted for deed in attachment.report()] == [1, 1]


def test_the_report_says_how_often_and_how_hard() -> None:
    weight, opt = pair()
    attachment = attach(opt, chain(clip_by_parameter_norm(50.0), clip_by_global_norm(5.0)))
    assert attachment.report()[0].suggestion is None
    for norm in range(1, 11):
        step(weight, opt, 0.6 * norm, 0.8 * norm)
    first, second = attachment.report()
    assert (first.name, first.acted, first.smallest_factor, first.mean_factor) == (
        "clip_by_parameter_norm",
        0,
        1.0,
        1.0,
    )
    assert (second.name, second.steps, second.acted) == ("clip_by_global_norm", 10, 5)
    assert second.smallest_factor == pytest.approx(0.5)
    assert second.mean_factor == pytest.approx(sum(5 / n for n in range(6, 11)) / 5)
    assert second.percentiles[50] == pytest.approx(5.5)
    assert second.suggestion == pytest.approx(9.55)
    assert str(second).startswith("clip_by_global_norm: acted on 5 of 10 steps (50.0%), factor 0.646 on average, 0.5")


def test_lbfgs_is_clipped_in_its_closure() -> None:
    losses = {}
    for bound in (None, 1e-3):
        weight = nn.Parameter(torch.full((2,), 5.0))
        opt = torch.optim.LBFGS([weight], lr=0.1, max_iter=3)
        if bound:
            attachment = attach(opt, clip_by_global_norm(bound))

        def closure() -> torch.Tensor:
            opt.zero_grad()  # noqa: B023  # called at once
            loss = weight.square().sum()  # noqa: B023
            loss.backward()
            return loss

        opt.step(closure)
        losses[bound] = weight.square().sum().item()
    assert losses[None] < 49 < losses[1e-3] < 50
    assert attachment.report()[0].steps == 3


def test_parameters_added_later_are_clipped_too() -> None:
    weight, opt = pair()
    attach(opt, make_all())
    step(weight, opt, 3.0, 4.0)
    late = nn.Parameter(torch.zeros(2))
    opt.add_param_group({"params": [late], "lr": 1.0})
    late.grad = torch.tensor([30.0, 40.0])
    step(weight, opt, 0.0, 0.0)
    assert late.norm().item() == pytest.approx(1.0)


def make_all() -> GradientTransform:
    return chain(adaptive_clip(1e6), clip_spikes(), clip_by_running_norm(warmup=1), clip_by_global_norm(1.0))


def test_states_of_other_chains_are_refused_and_older_ones_are_taken() -> None:
    _, plain = pair()
    _, opt = pair()
    attach(opt, clip_by_global_norm(1.0))
    opt.load_state_dict(plain.state_dict())
    saved = opt.state_dict()
    plain.load_state_dict(saved)
    attachment = attach(plain, chain(clip_by_global_norm(1.0)))
    with pytest.raises(
        UsageError, match=r"expected the state of chain\(clip_by_global_norm\), got that of clip_by_glo"
    ):
        plain.load_state_dict(saved)
    assert attachment.report()[0].steps == 0


def test_optimizers_are_let_go_of_and_pickles_lose_the_transform() -> None:
    _, opt = pair()
    attach(opt, clip_by_global_norm(1.0))
    assert attachment_of(pickle.loads(pickle.dumps(opt))) is None
    assert attachment_of(copy.deepcopy(opt)) is not None
    reference = weakref.ref(opt)
    del opt
    gc.collect()
    assert reference() is None


def test_refusals() -> None:
    weight, opt = pair()
    with pytest.raises(UsageError, match=r"attach: expected a torch optimizer, got list"):
        attach([opt], clip_by_global_norm(1.0))
    with pytest.raises(UsageError, match=r"attach: expected a gradient transform, got float"):
        attach(opt, 1.0)
    attach(opt, clip_by_global_norm(1.0))
    with pytest.raises(UsageError, match=r"without a transform, got one with clip_by_global_norm"):
        attach(opt, clip_by_global_norm(1.0))
    with pytest.raises(NotApplicableError, match=r"expected an optimizer that can skip a step"):
        attach(torch.optim.LBFGS([weight]), chain(skip_nonfinite()))
    with pytest.raises(NotApplicableError, match=r"got differentiable=True"):
        attach(torch.optim.SGD([weight], lr=1.0, differentiable=True), clip_by_global_norm(1.0))
    for mark in ("_in_backward_optimizers", "_fsdp_flattened"):
        foreign = nn.Parameter(torch.zeros(2))
        setattr(foreign, mark, [])
        with pytest.raises(NotApplicableError, match=r"whose gradients are here at the optimizer's step"):
            attach(torch.optim.SGD([foreign], lr=1.0), clip_by_global_norm(1.0))


def test_as_a_remedy_it_stays_on_whatever_else_changes_the_optimizer(make_setup, mlp) -> None:
    setup = make("clip_by_global_norm", max_norm=5.0)(make_setup(mlp()))
    others = (optimizer(name="adam"), learning_rate(lr=0.1), max_norm(bound=2.0), make("clip_by_value"))
    for remedy in (*others, make("clip_by_global_norm", max_norm=0.1), learning_rate(lr=0.2)):
        setup = remedy(setup)
    built = pickle.loads(pickle.dumps(setup.optimizer))(setup.model.parameters())
    assert [deed.name for deed in attachment_of(built).report()] == ["clip_by_value", "clip_by_global_norm"]
    assert isinstance(built, torch.optim.Adam)
    assert built.param_groups[0]["lr"] == 0.2
    F.cross_entropy(setup.model(setup.train[0]), setup.train[1]).backward()
    built.step()
    assert attachment_of(built).report()[1].acted == 1
    assert nn.utils.get_total_norm(p.grad for p in setup.model.parameters()).item() == pytest.approx(0.1, rel=1e-5)


def exploding(make_setup, mlp) -> TrainingSetup:
    model = mlp(nn.ReLU, hidden=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0)
    return make_setup(model)


def test_the_exploding_network_diverges_untreated(make_setup, mlp) -> None:
    training = Training(exploding(make_setup, mlp), seed=0)
    training.advance(100)
    assert training.diverged


@pytest.mark.parametrize(
    "name",
    [n for n, f in CATALOGUE.items() if f.card.site is Site.GRADIENT and Symptom.EXPLODING in f.card.treats],
)
def test_what_is_said_to_treat_exploding_keeps_it_on_course(name: str, make_setup, mlp) -> None:
    training = Training(make(name)(exploding(make_setup, mlp)), seed=0)
    training.advance(100)
    assert training.recent_loss() < training.losses[0] / 10


def test_clipping_changes_nothing_where_gradients_vanish(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid, hidden=12))
    plain, clipped = Training(setup, seed=0), Training(make("clip_by_global_norm", max_norm=5.0)(setup), seed=0)
    for training in (plain, clipped):
        training.advance(20)
    assert plain.losses == clipped.losses


def test_settings_out_of_range_are_refused_at_once(make_setup, mlp) -> None:
    with pytest.raises(UsageError, match=r"clip_by_value: expected max_value above 0 and finite, got -1"):
        make("clip_by_value", max_value=-1.0)(make_setup(mlp()))
    with pytest.raises(UsageError, match=r"adaptive_clip: expected one of its settings, got 'exclude'"):
        make("adaptive_clip", exclude=1.0)
    with pytest.raises(NotApplicableError, match=r"clip_by_value: expected a set-up with an optimizer, got None"):
        make("clip_by_value")(make_setup(mlp(), optimizer=None))
