from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import CATALOGUE, dropout
from steadygrad.signals import probe


def test_evaluation_answers_as_before_and_no_key_changes(make_setup, mlp) -> None:
    setup = make_setup(mlp())
    treated = dropout(p=0.5)(setup)
    assert list(treated.model.state_dict()) == list(setup.model.state_dict())
    x = setup.train[0]
    assert torch.equal(treated.model.eval()(x), setup.model(x))
    assert not torch.allclose(treated.model.train()(x), setup.model(x))


def test_it_drops_and_rescales_what_a_layer_reads(make_setup, mlp) -> None:
    model = dropout(p=0.25)(make_setup(mlp(nn.Sigmoid, hidden=1, width=400), shape=(400,))).model
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(400)[:3])
        model[2].bias.zero_()
    torch.manual_seed(0)
    h = torch.sigmoid(model[0](x := torch.randn(2000, 400)))[:, :3]
    out = model(x)
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(out[out != 0], (h / 0.75)[out != 0])


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.selu(self.inner(x)))


def test_functional_activations_are_reached_and_selu_gets_alpha_dropout(make_setup) -> None:
    model = dropout()(make_setup(Functional())).model
    assert isinstance(model.out.dropout, nn.AlphaDropout)
    assert not hasattr(model.inner, "dropout")  # reads the input


def test_places_that_have_dropout_are_left_alone(make_setup) -> None:
    body = [nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.ReLU()]
    plan = CATALOGUE["dropout"].plan(make_setup(nn.Sequential(*body, nn.Linear(8, 3))))
    assert str(plan) == "+ 5.dropout: Dropout(p=0.1, inplace=False)\n+ before 5: dropout(input)"
    setup = make_setup(nn.Sequential(*body, nn.Dropout(0.1), nn.Linear(8, 3)))
    with pytest.raises(NotApplicableError, match=r"that read a hidden activation without dropout, found none"):
        dropout()(setup)
    with pytest.raises(NotApplicableError, match=r"found none"):
        dropout()(dropout()(make_setup(nn.Sequential(*body, nn.Linear(8, 3)))))


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1])
def test_p_is_a_share(make_setup, mlp, p: float) -> None:
    with pytest.raises(UsageError, match=r"dropout: expected p above 0 and below 1"):
        dropout(p=p)(make_setup(mlp()))


def test_it_does_not_cure_vanishing(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid, hidden=12, width=64), shape=(64,))

    def reach(setup) -> float:
        _, seen = probe(setup)
        gradients = [stats.weight_grad.rms for stats in seen.layers if stats.weight_grad is not None]
        return gradients[0] / gradients[-1]

    torch.manual_seed(0)
    assert reach(setup) < 1e-8
    assert reach(dropout(p=0.5)(setup)) < 1e-7
