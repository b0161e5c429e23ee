from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import augmentation, random_shift, relative_noise, standardize_inputs
from steadygrad.training import Training, evaluate, run_model, seeded


def test_noise_is_in_units_of_the_inputs_own_deviation() -> None:
    x = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0)) * 50 + 7
    with seeded(0):
        noise = relative_noise(x, 0.1) - x
    assert noise.std().item() == pytest.approx(5.0, rel=0.02)
    assert abs(noise.mean().item()) < 0.1


def test_images_are_shifted_each_by_its_own_with_zeros_moving_in() -> None:
    images = torch.arange(1.0, 33).view(2, 1, 4, 4).repeat(30, 2, 1, 1)
    with seeded(0):
        shifted = random_shift(images, 1)
    seen = set()
    for image, result in zip(images, shifted, strict=True):
        padded = torch.nn.functional.pad(image, [1] * 4)
        at = [(d, r) for d in range(3) for r in range(3) if torch.equal(padded[:, d : d + 4, r : r + 4], result)]
        assert len(at) == 1
        seen.update(at)
    assert len(seen) == 9


class Seen(nn.Module):
    """A model that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.inputs = nn.Linear(8, 3), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x.detach().clone())
        return self.layer(x)


def test_training_is_varied_by_its_seed_and_evaluation_is_not(make_setup) -> None:
    setup = augmentation(noise=0.5)(make_setup(Seen()))
    runs = []
    for seed in (0, 0, 1):
        training = Training(setup, seed)
        training.advance(2)
        runs.append(training.model.inputs)
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0])
    training.model.inputs.clear()
    evaluate(setup, training.model, setup.train)
    assert torch.equal(training.model.inputs[0], setup.train[0])
    assert training.model.training


def test_only_floating_inputs_change_whatever_form_the_batch_has(make_setup) -> None:
    class Both(nn.Module):
        def forward(self, index: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return index, x

    index, x, y = torch.arange(4), torch.randn(4, 8), torch.randn(4)
    setup = make_setup(nn.Sequential(nn.Linear(8, 3)))
    setup = augmentation()(setup.replace(train={"index": index, "x": x, "y": y}))
    for batch in ((index, x, y), {"index": index, "x": x, "y": y}):
        same, varied = run_model(setup, Both(), batch)
        assert torch.equal(same, index)
        assert not torch.equal(varied, x)


def test_a_forward_of_ones_own_is_kept_and_statistics_are_of_clean_inputs(make_setup, mlp) -> None:
    setup = make_setup(mlp(), forward=lambda model, batch: 2 * model(batch[0]))
    treated = augmentation(noise=3.0)(augmentation(noise=1.0)(setup))
    assert treated.forward.forward is setup.forward
    clean, varied = (standardize_inputs()(each).model for each in (setup, treated))
    torch.testing.assert_close(varied.std_0, clean.std_0)
    assert pickle.loads(pickle.dumps(augmentation()(make_setup(mlp())).forward)).noise == 0.1


def test_refusals(make_setup, mlp) -> None:
    words = make_setup(nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 3)))
    words = words.replace(train=(torch.arange(48) % 5, words.train[1]))
    with pytest.raises(NotApplicableError, match=r"expected a floating tensor among the inputs of a batch, found none"):
        augmentation()(words)
    with pytest.raises(NotApplicableError, match=r"expected images of shape \(n, channels, height, width\)"):
        augmentation(shift=1)(make_setup(mlp()))
    with pytest.raises(UsageError, match=r"expected noise of 0 or above and shift a whole number"):
        augmentation(shift=0.5)(make_setup(mlp()))
