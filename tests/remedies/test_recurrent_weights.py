from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.remedies import chrono_, forget_bias_, identity_recurrent_, initialization, orthogonal_recurrent_


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in parameters(module).items() if not torch.equal(value, before[name])}


def test_identity_as_published() -> None:
    torch.manual_seed(0)
    module = nn.RNN(50, 40, num_layers=2, nonlinearity="relu", bidirectional=True)
    identity_recurrent_(module)
    for name, value in parameters(module).items():
        if "weight_hh" in name:
            assert torch.equal(value, torch.eye(40))
        elif "weight_ih" in name:
            assert value.std().item() == pytest.approx(0.001, rel=0.05)
        else:
            assert not value.any()
    identity_recurrent_(module, scale=0.5)
    assert torch.equal(module.weight_hh_l0.detach(), 0.5 * torch.eye(40))
    for other in (nn.RNN(4, 4), nn.LSTM(4, 4)):
        with pytest.raises(NotApplicableError, match=r"expected an nn.RNN with nonlinearity='relu', got (RNN|LSTM)"):
            identity_recurrent_(other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_orthogonal_gate_by_gate(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.GRU(5, 6, dtype=dtype)
    before = parameters(module)
    orthogonal_recurrent_(module)
    for gate in module.weight_hh_l0.split(6):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6, dtype=dtype), atol=2e-2, rtol=0)
    assert changed(module, before) == {"weight_hh_l0"}


@pytest.mark.parametrize("module", [nn.LSTM(5, 6, num_layers=2, bidirectional=True, proj_size=3), nn.LSTMCell(5, 6)])
def test_forget_bias_is_the_sum_of_both_biases(module: nn.Module) -> None:
    before = parameters(module)
    forget_bias_(module, 2.0)
    names = [name for name in before if name.startswith("bias_ih")]
    assert changed(module, before) == {n for name in names for n in (name, name.replace("ih", "hh"))}
    for name in names:
        total = module.get_parameter(name) + module.get_parameter(name.replace("ih", "hh"))
        assert torch.equal(total[6:12], torch.full((6,), 2.0))
        kept = torch.cat([module.get_parameter(name)[:6], module.get_parameter(name)[12:]])
        assert torch.equal(kept, torch.cat([before[name][:6], before[name][12:]]))


def test_an_lstm_with_this_bias_keeps_its_state_by_the_sigmoid_of_it() -> None:
    module = nn.LSTMCell(2, 3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    forget_bias_(module, 1.0)
    _, c = module(torch.zeros(1, 2), (torch.zeros(1, 3), torch.ones(1, 3)))
    torch.testing.assert_close(c, torch.full((1, 3), torch.sigmoid(torch.tensor(1.0)).item()))


def test_chrono_draws_the_published_distribution() -> None:
    torch.manual_seed(0)
    module = nn.LSTM(2, 4000)
    before = parameters(module)
    chrono_(module, longest=100)
    i, f, g, o = (module.bias_ih_l0 + module.bias_hh_l0).detach().split(4000)
    assert torch.equal(i, -f)
    times = f.exp()
    assert 1 <= times.min() < 1.5
    assert 98 < times.max() <= 99.001
    assert times.mean().item() == pytest.approx(50, rel=0.03)
    old = (before["bias_ih_l0"] + before["bias_hh_l0"]).split(4000)
    assert torch.equal(g, old[2])
    assert torch.equal(o, old[3])


def test_chrono_opens_the_gate_by_which_a_gru_keeps_its_state() -> None:
    torch.manual_seed(0)
    module = nn.GRUCell(2, 500)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    chrono_(module, longest=50)
    kept = module(torch.zeros(1, 2), torch.ones(1, 500))
    lasts = 1 / (1 - kept)  # steps until the state has fallen by e
    assert lasts.min() >= 2
    assert 45 < lasts.max() < 51


def test_refusals() -> None:
    with pytest.raises(NotApplicableError, match=r"forget_bias: expected an LSTM, got GRU"):
        forget_bias_(nn.GRU(2, 3))
    with pytest.raises(NotApplicableError, match=r"expected gates with biases, got LSTM\(2, 3, bias=False\)"):
        forget_bias_(nn.LSTM(2, 3, bias=False))
    with pytest.raises(NotApplicableError, match=r"chrono: expected an LSTM or GRU, got RNN"):
        chrono_(nn.RNN(2, 3), 10)
    with pytest.raises(UsageError, match=r"chrono: expected a longest delay above 2 time steps, got 2"):
        chrono_(nn.LSTM(2, 3), 2)


class Last(nn.Module):
    def __init__(self, cells: nn.Module) -> None:
        super().__init__()
        self.cells, self.out = cells, nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x)[0][:, -1])


def reach(model: nn.Module) -> float:
    """How much of the gradient at the last step arrives at the first one, 100 steps before."""
    x = torch.randn(16, 100, 6, generator=torch.Generator().manual_seed(1)).mul_(0.3).requires_grad_()
    F.cross_entropy(model(x), torch.arange(16) % 3).backward()
    sizes = x.grad.norm(dim=(0, 2))
    return (sizes[0] / sizes[-1]).item()


@pytest.mark.parametrize(
    ("cells", "method", "least"),
    [
        (nn.RNN(6, 32, nonlinearity="relu", batch_first=True), "identity_recurrent", 0.1),
        (nn.RNN(6, 32, nonlinearity="tanh", batch_first=True), "orthogonal_recurrent", 1e-5),
        (nn.LSTM(6, 32, batch_first=True), "chrono", 1e-3),
        (nn.GRU(6, 32, batch_first=True), "chrono", 1e-3),
    ],
)
def test_the_gradient_survives_a_hundred_steps(make_setup, cells: nn.Module, method: str, least: float) -> None:
    torch.manual_seed(0)
    cells.reset_parameters()
    setup = make_setup(Last(cells), shape=(100, 6))
    assert reach(setup.model) < 1e-12
    assert reach(initialization(method=method)(setup).model) > least


def test_chrono_takes_the_length_of_the_sequences(make_setup) -> None:
    torch.manual_seed(0)
    setup = make_setup(Last(nn.LSTM(6, 32, batch_first=True)), shape=(7, 6))
    _, f, _, _ = initialization(method="chrono")(setup).model.cells.bias_ih_l0.detach().split(32)
    assert 4 < f.exp().max() <= 6.001
    _, f, _, _ = initialization(method="chrono", longest=400)(setup).model.cells.bias_ih_l0.detach().split(32)
    assert 300 < f.exp().max() < 400


def test_feed_forward_networks_are_refused(make_setup, mlp) -> None:
    with pytest.raises(NotApplicableError, match=r"expected recurrent layers for method='chrono', found none"):
        initialization(method="chrono")(make_setup(mlp()))
