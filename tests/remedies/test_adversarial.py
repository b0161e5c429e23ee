from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.diagnosis import diagnose
from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import adversarial_samples, fgsm
from steadygrad.training import Training, call_model, evaluate, run_model


def inputs_of(model: nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def test_a_step_along_the_sign_raises_the_loss_more_than_any_random_one(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    x, y = setup.train
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(setup.model(x), y)
    (gradient,) = torch.autograd.grad(loss, x)
    attacked = fgsm(x, gradient, 0.05)
    torch.testing.assert_close((attacked - x).abs(), 0.05 * (gradient != 0), atol=1e-5, rtol=0)
    random = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    losses = [F.cross_entropy(setup.model(each), y).item() for each in (attacked, random)]
    assert losses[0] > max(losses[1], loss.item())


def test_the_second_half_of_a_training_batch_is_attacked_as_the_formula_says(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    treated = adversarial_samples(epsilon=0.1)(setup)
    x, y = batch = setup.train
    seen = inputs_of(treated.model)
    run_model(treated, treated.model, batch)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(setup.model(leaf), y), leaf)
    expected = fgsm(x, gradient, 0.1 * x.std(correction=0)).clamp(x.min(), x.max())
    assert torch.equal(seen[-1][:24], x[:24])
    torch.testing.assert_close(seen[-1][24:], expected[24:])
    assert all(parameter.grad is None for parameter in treated.model.parameters())


def test_pixels_stay_within_their_range(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    black_and_white = (setup.train[0] > 0).float()
    treated = adversarial_samples(epsilon=0.5)(setup.replace(train=(black_and_white, setup.train[1])))
    seen = inputs_of(treated.model)
    run_model(treated, treated.model, treated.train)
    assert not torch.equal(seen[-1], black_and_white)
    assert (seen[-1].min(), seen[-1].max()) == (0, 1)


def test_the_pass_that_attacks_leaves_no_trace(make_setup) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    setup = make_setup(body)
    outputs, buffers, states = [], [], []
    for each in (setup, adversarial_samples(epsilon=0.0)(setup)):
        model = copy.deepcopy(each.model)
        torch.manual_seed(1)
        outputs.append(run_model(each, model, each.train))
        buffers.append(list(model.buffers()))
        states.append(torch.get_rng_state())
    assert torch.equal(*outputs)
    assert torch.equal(*states)
    assert all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))


def test_evaluation_and_diagnosis_see_clean_samples_once(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    treated = adversarial_samples()(setup)
    seen = inputs_of(treated.model)
    evaluate(treated, treated.model, setup.train)
    assert [tensor.shape[0] for tensor in seen] == [48]
    assert torch.equal(seen[0], setup.train[0])
    assert diagnose(treated).observation == diagnose(setup).observation


def test_it_trains_and_pickles_and_replaces_itself(make_setup, mlp) -> None:
    treated = adversarial_samples(epsilon=0.2)(adversarial_samples()(make_setup(mlp())))
    assert treated.forward.forward is None
    assert pickle.loads(pickle.dumps(treated.forward)) == treated.forward
    own = adversarial_samples()(make_setup(mlp(), forward=call_model))
    runs = [Training(each, seed=0) for each in (adversarial_samples()(make_setup(mlp())), own)]
    for training in runs:
        training.advance(3)
    assert runs[0].losses == runs[1].losses


def test_refusals(make_setup, mlp) -> None:
    own = make_setup(mlp(), loss=None, forward=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    with pytest.raises(NotApplicableError, match=r"its forward returns the loss itself. Use fgsm in that forward"):
        adversarial_samples()(own)
    with pytest.raises(UsageError, match=r"expected epsilon of 0 or above, got -1"):
        adversarial_samples(epsilon=-1)(make_setup(mlp()))
