"""The module that made the first NaN is named, forward or backward, while the parameters are still clean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.cli.main import main
from steadygrad.errors import AlarmError, DataFileError, UsageError
from steadygrad.monitor import Monitor
from steadygrad.monitor.capsule import replay

from .networks import batch, mlp, same


class Residual(nn.Module):
    """A branching network; ``forward`` or ``backward`` breaks in block 1 once ``broken`` is set."""

    def __init__(self, breaks: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(12, 12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)]) for _ in range(3))
        self.drop, self.breaks, self.broken = nn.Dropout(0.3), breaks, False

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.stem(x))
        for number, (first, second) in enumerate(self.blocks):
            inner = torch.tanh(first(x))
            if self.broken and number == 1 and self.breaks == "backward":
                inner = (inner * 0).abs().sqrt() + inner
            if self.broken and number == 1 and self.breaks == "forward":
                inner = inner + torch.log(inner - 10).detach()
            x = x + second(inner)
        return self.head(x)


def run(model: nn.Module, steps: int = 4, breaks_at: int = 2, bad_loss: bool = False, **settings: object) -> Monitor:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=10, **settings) as monitor:  # type: ignore[arg-type]
        for step in range(steps):
            x, y = batch(seed=step)
            if hasattr(model, "broken"):
                model.broken = step == breaks_at
            loss = F.cross_entropy(model(x), y)
            if bad_loss and step == breaks_at:
                loss = loss + (loss - loss.detach()).abs().sqrt()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return monitor


@pytest.mark.parametrize(
    ("breaks", "code", "layer"), [("forward", "SG203", "blocks.1.1"), ("backward", "SG204", "blocks.1.1")]
)
def test_the_producer_is_named_in_a_residual_network(breaks: str, code: str, layer: str) -> None:
    model = Residual(breaks)
    monitor = run(model, on_nonfinite="skip")
    assert [(finding.code, finding.layer) for finding in monitor.findings] == [(code, layer)]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_loss_is_named_where_it_made_it() -> None:
    model = mlp()
    monitor = run(model, bad_loss=True, on_nonfinite="skip")
    assert [(finding.code, finding.layer) for finding in monitor.findings] == [("SG205", None)]
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_skipping_is_as_if_the_step_had_not_been() -> None:
    broken, whole = Residual("backward"), Residual("backward")
    for model, steps in ((broken, 3), (whole, 2)):
        torch.manual_seed(3)
        run(model, steps=steps, on_nonfinite="skip")
    assert same(broken, whole)


def test_raising_leaves_the_parameters_clean() -> None:
    model = Residual("backward")
    with pytest.raises(AlarmError, match="step 2: a gradient is not finite; the parameters are as before"):
        run(model, on_nonfinite="raise")
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_an_alarm_between_looks_raises_in_its_own_step() -> None:
    steps_made: list[int] = []
    model = Residual("backward")
    model.register_forward_hook(lambda *_: steps_made.append(1))
    with pytest.raises(AlarmError, match="step 2: SG204"):
        run(model, on_alarm="raise", steps=6)
    assert len(steps_made) <= 4, "the step, and the one made again to find its producer"


def test_going_on_as_asked_changes_nothing() -> None:
    watched, plain = Residual("backward"), Residual("backward")
    torch.manual_seed(3)
    run(watched)
    torch.manual_seed(3)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    for step in range(4):
        x, y = batch(seed=step)
        plain.broken = step == 2
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    assert same(watched, plain)
    assert not watched.stem.weight.isfinite().all()


def test_attention_is_seen_through() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.attention, self.head = nn.Linear(12, 16), nn.MultiheadAttention(16, 2), nn.Linear(16, 3)
            self.broken = False

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            mask = torch.full((len(x), len(x)), float("-inf")) if self.broken else None  # every key is masked
            return self.head(self.attention(x, x, x, attn_mask=mask)[0])

    monitor = run(Attends(), on_nonfinite="skip")
    assert [(finding.code, finding.layer) for finding in monitor.findings] == [("SG203", "attention")]


def test_a_capsule_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Residual("backward")
    monitor = run(model, on_nonfinite="skip", capsules=tmp_path)
    (folder,) = tmp_path.iterdir()
    fresh = Residual("backward")
    fresh.broken = True
    findings, facts = replay(folder, fresh)
    assert findings == [f for f in monitor.findings if f.code == "SG204"]
    assert facts["step"] == 2
    fresh.broken = False
    assert replay(folder, fresh)[0] == []
    script = tmp_path / "user.py"
    script.write_text(
        "import sys, torch, torch.nn as nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.stem = nn.Linear(12, 12); self.head = nn.Linear(12, 3)\n"
        "        self.blocks = nn.ModuleList(nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)]) for _ in range(3))\n"
        "    def forward(self, x):\n"
        "        x = self.stem(x)\n"
        "        for k, (a, b) in enumerate(self.blocks):\n"
        "            z = torch.tanh(a(x)); x = x + b((z * 0).abs().sqrt() + z if k == 1 else z)\n"
        "        return self.head(x)\n"
        "def setup():\n"
        "    return Net(), (torch.zeros(4, 12), torch.zeros(4).long()), nn.functional.cross_entropy\n"
    )
    assert main(["replay", str(folder), f"{script}:setup"]) == 1
    assert "now:  SG204 blocks.1.1" in capsys.readouterr().out


def test_wrong_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on_nonfinite to be"):
        Monitor(mlp(), on_nonfinite="panic")
    with pytest.raises(DataFileError, match="expected a capsule"):
        replay(tmp_path, mlp())
