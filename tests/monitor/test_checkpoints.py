"""``check --from``: a network as it stood in a run, or in a file that somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from steadygrad.cli.main import main
from steadygrad.errors import DataFileError, SetupError
from steadygrad.monitor import Monitor, RunFolder
from steadygrad.monitor.checkpoints import checkpoint_at, load_checkpoint, save_checkpoint

from .networks import mlp, same, train

SCRIPT = """
import torch, torch.nn as nn, torch.nn.functional as F
def setup():
    torch.manual_seed(1)
    layers = []
    for _ in range(3):
        layers += [nn.Linear(12, 12), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(12, 3)), (torch.randn(32, 12), torch.arange(32) % 3), F.cross_entropy
"""


def watched_run(folder: Path) -> nn.Module:
    """A training whose network breaks on the way: from step 6 on its third layer is 0."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = RunFolder(folder, checkpoint_every=4)
    monitor = Monitor(model, optimizer, every=1, on_alarm=lambda finding: None, sinks=[run])
    run.begin(monitor)
    with monitor:
        train(model, optimizer, 6)
        with torch.no_grad():
            model[2].weight.zero_()
        train(model, optimizer, 6)
        with torch.no_grad():
            model[2].weight.zero_()
    run.finish(monitor, "finished")
    return model


def test_a_run_is_diagnosed_as_it_stood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = watched_run(tmp_path / "run")
    (tmp_path / "train.py").write_text(SCRIPT)
    target = f"{tmp_path}/train.py:setup"
    again = mlp(seed=1)
    load_checkpoint(again, checkpoint_at(tmp_path / "run", None))
    assert same(again, trained)
    assert main(["check", target, "--from", str(tmp_path / "run"), "--step", "5"]) == 0
    said = capsys.readouterr()
    assert "step-000000004" in said.err.replace("\n", "")
    assert main(["check", target, "--from", str(tmp_path / "run")]) == 1
    assert "SG10" in capsys.readouterr().out


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "model_state_dict": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "netG."])
def test_state_dicts_of_others(tmp_path: Path, prefix: str, wrap: object) -> None:
    trained, model = mlp(seed=3), mlp()
    state = {prefix + name: value for name, value in trained.state_dict().items()} | {"other.weight": torch.zeros(2)}
    torch.save(wrap(state), tmp_path / "last.pt")  # type: ignore[operator]
    load_checkpoint(model, tmp_path / "last.pt")
    assert same(model, trained)


def test_two_models_of_a_run(tmp_path: Path) -> None:
    first, second = mlp(seed=1), mlp(seed=2)
    path = save_checkpoint(tmp_path, {"G": first, "D": mlp(width=6)}, 7)
    load_checkpoint(second, path)
    assert same(first, second)


def test_what_does_not_fit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("ran",)

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DataFileError, match="Save model"):
        load_checkpoint(mlp(), tmp_path / "evil.pt")
    assert "ran" not in capsys.readouterr().out
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    with pytest.raises(DataFileError, match="without tensors"):
        load_checkpoint(mlp(), tmp_path / "empty.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(SetupError, match="Name the callable that builds the network"):
        load_checkpoint(mlp(), tmp_path / "other.pt")
    torch.save(mlp(width=6).state_dict(), tmp_path / "small.pt")
    with pytest.raises(SetupError, match="expected the network that was trained"):
        load_checkpoint(mlp(), tmp_path / "small.pt")
    with pytest.raises(DataFileError, match="got none"):
        checkpoint_at(tmp_path, 3)
    save_checkpoint(tmp_path, {"": mlp()}, 7)
    with pytest.raises(DataFileError, match="at step 3 or before, got those at steps 7"):
        checkpoint_at(tmp_path, 3)
    assert main(["check", "train.py:setup", "--step", "3"]) == 2
    assert "expected --from with the folder of a run" in capsys.readouterr().err.replace("\n", " ")
