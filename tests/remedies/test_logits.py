from __future__ import annotations

import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from steadygrad.diagnosis import diagnose
from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import soft_cap, z_loss
from steadygrad.remedies.logits import SoftCapped, WithZLoss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, TARGET = torch.randn(5, 3, generator=GENERATOR) * 40, torch.tensor([0, 1, 2, 0, 1])


def test_the_z_loss_is_the_mean_square_of_log_z_over_classes_wherever_they_lie(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    penalized = pickle.loads(pickle.dumps(z_loss(weight=0.5)(setup).loss))
    expected = F.cross_entropy(LOGITS, TARGET) + 0.5 * LOGITS.exp().sum(1).log().square().mean()
    torch.testing.assert_close(penalized(LOGITS, TARGET), expected)
    torch.testing.assert_close(penalized(LOGITS.T[None], TARGET[None]), expected)
    tokens = z_loss(weight=0.5)(setup.replace(loss=lambda o, t: F.cross_entropy(o.flatten(0, -2), t.flatten()))).loss
    torch.testing.assert_close(tokens(LOGITS[None], TARGET[None]), expected)
    square = LOGITS[:3].T[None]  # as many places as classes: they lie where torch's loss has them
    torch.testing.assert_close(penalized(square, TARGET[None, :3]), penalized(LOGITS[:3], TARGET[:3]))


@pytest.mark.parametrize(
    ("loss", "ignored"),
    [
        (F.cross_entropy, -100),
        (torch.nn.CrossEntropyLoss(ignore_index=2), 2),
        (partial(F.cross_entropy, ignore_index=2), 2),
        (SoftCapped(torch.nn.CrossEntropyLoss(ignore_index=-1), 1e9), -1),
    ],
)
def test_the_z_loss_leaves_out_what_the_loss_ignores(loss, ignored: int) -> None:
    penalized = WithZLoss(loss, 0.5)
    logits, target = LOGITS.clone(), TARGET.clamp(max=1)
    logits[3], target[3] = math.inf, ignored
    kept = [0, 1, 2, 4]
    torch.testing.assert_close(penalized(logits, target), penalized(logits[kept], target[kept]))
    torch.testing.assert_close(penalized(logits.T[None], target[None]), penalized(logits[kept], target[kept]))


def test_the_cap_bounds_logits_keeps_their_order_and_leaves_small_ones(make_setup, mlp) -> None:
    capped = pickle.loads(pickle.dumps(soft_cap(cap=30.0)(make_setup(mlp())).loss))
    torch.testing.assert_close(capped(LOGITS, TARGET), F.cross_entropy(30 * torch.tanh(LOGITS / 30), TARGET))
    small = LOGITS / 1e4
    torch.testing.assert_close(capped(small, TARGET), F.cross_entropy(small, TARGET))
    huge = torch.tensor([[math.inf, -1e30, 0.0]], requires_grad=True)
    loss = capped(huge, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(60.0)
    assert huge.grad.isfinite().all()


@pytest.mark.parametrize("remedy", [z_loss, soft_cap])
def test_a_diagnosis_reads_the_same_network_behind_it(make_setup, mlp, remedy) -> None:
    setup = make_setup(mlp())
    before, after = diagnose(setup), diagnose(remedy()(setup))
    assert after.blueprint.layers == before.blueprint.layers
    assert after.blueprint.loss == "cross_entropy"
    assert [finding.code for finding in after.findings] == [finding.code for finding in before.findings]


def test_a_second_setting_replaces_the_first(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    assert z_loss(weight=1.0)(z_loss(weight=0.1)(setup)).loss == z_loss(weight=1.0)(setup).loss
    assert soft_cap(cap=5.0)(soft_cap(cap=50.0)(setup)).loss == soft_cap(cap=5.0)(setup).loss


def test_refusals(make_setup, mlp) -> None:
    real = make_setup(mlp(outputs=1), loss=lambda output, target: F.mse_loss(output[:, 0], target * 1.0))
    with pytest.raises(
        NotApplicableError, match=r"z_loss: expected a loss of logits and target \(cross_entropy\), got mse"
    ):
        z_loss()(real)
    with pytest.raises(NotApplicableError, match=r"soft_cap: expected a loss of logits and target"):
        soft_cap()(real)
    with pytest.raises(UsageError, match=r"z_loss: expected weight of 0 or above, got -1"):
        z_loss(weight=-1)(make_setup(mlp()))
    with pytest.raises(UsageError, match=r"soft_cap: expected cap above 0 and finite, got 0"):
        soft_cap(cap=0)(make_setup(mlp()))
