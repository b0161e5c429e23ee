from __future__ import annotations

import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import label_smoothing, loss
from steadygrad.training import Training, evaluate

WEIGHT = torch.tensor([1.0, 2.0, 0.5])


def through_a_function(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, target)


@pytest.mark.parametrize(
    ("plain", "reference"),
    [
        (F.cross_entropy, partial(F.cross_entropy, label_smoothing=0.1)),
        (partial(F.cross_entropy, weight=WEIGHT), partial(F.cross_entropy, weight=WEIGHT, label_smoothing=0.1)),
        (nn.CrossEntropyLoss(weight=WEIGHT), nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1)),
        (through_a_function, partial(F.cross_entropy, label_smoothing=0.1)),
    ],
)
def test_it_equals_torchs_own(make_setup, mlp, plain, reference) -> None:
    setup = make_setup(mlp(), loss=plain)
    smoothed = pickle.loads(pickle.dumps(label_smoothing(amount=0.1)(setup).loss))
    output, target = setup.model(setup.train[0]), setup.train[1]
    torch.testing.assert_close(smoothed(output, target), reference(output, target))
    assert not torch.allclose(plain(output, target), reference(output, target))


def test_probabilities_and_places_are_smoothed_too(make_setup, mlp) -> None:
    setup = make_setup(mlp(), loss=through_a_function)
    smoothed = label_smoothing(amount=0.2)(setup).loss
    output = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(smoothed(output, F.one_hot(target, 3).float()), smoothed(output, target))
    places, targets = output.view(1, 4, 3).movedim(-1, 1), target.view(1, 4)
    torch.testing.assert_close(smoothed(places, targets), smoothed(output, target))


@pytest.mark.parametrize("amount", [0.0, 0.2])
def test_two_classes_are_smoothed_as_the_formula_says_and_learned(make_setup, mlp, amount: float) -> None:
    setup = loss(to="bce_with_logits")(make_setup(mlp(outputs=1), batch_size=48))
    x = setup.train[0]
    setup = setup.replace(train=(x, (x[:, :1] > 0).float()))
    smoothed = label_smoothing(amount=amount)(setup)
    output, target = setup.model(x), setup.train[1]
    mixed = (1 - amount / 2) * setup.loss(output, target) + amount / 2 * setup.loss(output, 1 - target)
    torch.testing.assert_close(smoothed.loss(output, target), mixed)
    training = Training(smoothed, seed=0)
    training.advance(600)
    assert evaluate(smoothed, training.model, smoothed.train)[1] > 0.9


def test_a_second_amount_replaces_the_first(make_setup, mlp) -> None:
    for plain in (F.cross_entropy, nn.CrossEntropyLoss(), through_a_function):
        setup = make_setup(mlp(), loss=plain)
        once = label_smoothing(amount=0.1)(setup).loss
        twice = label_smoothing(amount=0.1)(label_smoothing(amount=0.4)(setup)).loss
        output, target = setup.model(setup.train[0]), setup.train[1]
        assert torch.equal(twice(output, target), once(output, target))


def test_refusals(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"expected a cross-entropy of output and target, got mse_loss"):
        label_smoothing()(
            make_setup(mlp(outputs=1), loss=lambda output, target: F.mse_loss(output[:, 0], target * 1.0))
        )
    own = make_setup(mlp(), loss=None, forward=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))
    with pytest.raises(NotApplicableError, match=r"expected a cross-entropy"):
        label_smoothing()(own)
    with pytest.raises(UsageError, match=r"expected amount at least 0 and below 1, got 1"):
        label_smoothing(amount=1)(make_setup(mlp()))
