"""Alarms reach the log, the caller or an exception; sinks never hurt; a log cut anywhere reads up to the cut."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from steadygrad.errors import AlarmError, DataFileError, MissingDependencyError, SteadygradWarning
from steadygrad.monitor import JsonLines, Monitor, TensorBoard, WandB, read_log
from steadygrad.records import Finding

from .networks import batch, mlp, same, train


def sick() -> nn.Module:
    """Vanishing gradients: check says SG101."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(12):
        layers += [nn.Linear(12, 12), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(12, 3))


def watched(model: nn.Module, steps: int = 3, **settings: object) -> Monitor:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, **settings) as monitor:  # type: ignore[arg-type]
        train(model, optimizer, steps)
    return monitor


def test_the_rules_of_check_see_a_training(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "steadygrad"):
        monitor = watched(sick())
    found = {finding.code: finding.layer for finding in monitor.findings}
    assert found["SG101"] is not None
    assert found["SG101"] in monitor.history.layers
    assert "step 0: SG101 the gradient falls" in caplog.text
    assert watched(mlp()).findings == []


def test_a_finding_is_told_once() -> None:
    told: list[Finding] = []
    monitor = watched(sick(), steps=60, every=5, on_alarm=told.append)
    assert [finding.code for finding in told].count("SG101") == 1
    assert told == monitor.findings


def test_raising_stops_the_training_after_a_whole_step() -> None:
    model = sick()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[0].bias.clone()
    with pytest.raises(AlarmError, match="step 0: SG10"), Monitor(model, optimizer, on_alarm="raise"):
        train(model, optimizer, 3)
    assert not torch.equal(model[-1].bias, before)


def test_a_raising_callback_is_told_once_and_the_training_goes_on() -> None:
    def broken(_: object) -> None:
        raise KeyError("theirs")

    plain, model = mlp(), mlp()
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 5)
    with pytest.warns(SteadygradWarning, match="broken to take an event, got KeyError") as caught:
        monitor = watched(model, steps=5, every=1, sinks=[broken])
    assert len(caught) == 1
    assert same(plain, model)
    assert len(monitor.history) == 5


def test_a_log_brings_the_history_back(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "run.jsonl")
    monitor = watched(sick(), steps=20, every=2, sinks=[log])
    log.close()
    history, events, bad = read_log(log.path)
    assert bad == 0
    assert history.steps.tolist() == monitor.history.steps.tolist()
    for statistic in ("grad_norm", "output_rms", "update_ratio"):
        np.testing.assert_allclose(history.column(statistic), monitor.history.column(statistic), rtol=1e-5)
    assert [event["code"] for event in events] == [finding.code for finding in monitor.findings]


def test_a_log_cut_anywhere_reads_up_to_the_cut(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "run.jsonl")
    watched(mlp(), steps=10, every=1, sinks=[log])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-40])  # killed within the last line; nothing was closed
    history, _, bad = read_log(log.path)
    assert (history.steps.tolist(), bad) == (list(range(9)), 1)
    log.path.write_bytes(b"\xff\xfe no log")
    with pytest.raises(DataFileError, match="1 lines that are none"):
        read_log(log.path)


@pytest.mark.parametrize("layers", [False, True])
def test_tensorboard_shows_totals_and_layers_on_demand(tmp_path: Path, layers: bool) -> None:
    sink = TensorBoard(tmp_path, layers=layers)
    monitor = watched(sick(), steps=5, every=1, sinks=[sink])
    sink.close()
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    tags = shown.Tags()["scalars"]
    norms = [event.value for event in shown.Scalars("steadygrad/grad_norm")]
    np.testing.assert_allclose(norms, monitor.history.column("grad_norm", of="step"), rtol=1e-5)
    assert "steadygrad/output_rms/smallest" in tags
    assert ("steadygrad/grad_norm/24" in tags) == layers
    assert any("findings" in tag for tag in shown.Tags()["tensors"])
    last = shown.Histograms("steadygrad/log10 grad_rms of layers")[-1].histogram_value
    column = monitor.history.column("grad_rms")[-1]
    weighted = column[~np.isnan(column)]
    assert (last.num, last.min) == (len(weighted), pytest.approx(np.log10(weighted.min())))


def test_tensorboard_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "steadygrad\[tensorboard\]"'):
        TensorBoard(tmp_path)


class Standin:
    """What the sink asks of a run of W&B."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.axes: dict[str, str | None] = {}

    def define_metric(self, name: str, *, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, data: dict[str, Any]) -> None:
        self.rows.append(data)


@pytest.mark.parametrize("layers", [False, True])
def test_wandb_gets_totals_and_findings_and_layers_on_demand(layers: bool) -> None:
    run = Standin()
    monitor = watched(sick(), steps=5, every=1, sinks=[WandB(run, layers=layers)])
    assert run.axes == {"steadygrad/step": None, "steadygrad/*": "steadygrad/step"}
    looks = [row for row in run.rows if "steadygrad/grad_norm" in row]
    assert [row["steadygrad/step"] for row in looks] == monitor.history.steps.tolist()
    norms = [row["steadygrad/grad_norm"] for row in looks]
    np.testing.assert_allclose(norms, monitor.history.column("grad_norm", of="step"), rtol=1e-5)
    assert ("steadygrad/grad_norm/24" in looks[0]) == layers
    told = {name.rpartition("/")[2] for row in run.rows for name in row if name.startswith("steadygrad/finding/")}
    assert told == {finding.code for finding in monitor.findings}
    assert told


@pytest.mark.slow
def test_a_real_run_of_wandb_takes_what_the_sink_logs(tmp_path: Path) -> None:
    import wandb

    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True)) as run:
        monitor = watched(sick(), steps=5, every=1, sinks=[WandB(run)])
        said = dict(run.summary)
    assert said["steadygrad/step"] == 4
    last = monitor.history.column("grad_norm", of="step")[-1]
    assert said["steadygrad/grad_norm"] == pytest.approx(last, rel=1e-5)
    assert {f"steadygrad/finding/{finding.code}" for finding in monitor.findings} <= said.keys()


def test_no_bare_nan_is_written(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "run.jsonl")
    log(
        {
            "event": "look",
            "step": 0,
            "loss": float("nan"),
            "layers": {"grad_norm": [float("inf"), None]},
            "names": ["a", "b"],
        }
    )
    for line in log.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"bare {name}"))
    history, _, _ = read_log(log.path)
    assert np.isnan(history.column("loss", of="step")[0])
    assert history.column("grad_norm")[0, 0] == np.inf


def test_a_log_stays_under_its_size_and_grows_thin(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "run.jsonl", limit=20_000)
    for step in range(5_000):
        log({"event": "look", "step": step, "loss": 1.0, "layers": {"grad_norm": [1.0]}, "names": ["a"]})
    assert log.path.stat().st_size <= 20_000
    history, _, _ = read_log(log.path)
    assert np.diff(history.steps[:20]).max() == 1
    assert history.steps[-1] > 1_000


def test_a_full_disk_ends_the_log_and_not_the_training() -> None:
    plain, model = mlp(), mlp()
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 5)
    log = JsonLines(Path("/dev/full"))
    with pytest.warns(SteadygradWarning, match="No space left on device"):
        monitor = watched(model, steps=5, every=1, sinks=[log])
    assert same(plain, model)
    assert len(monitor.history) == 5
    x, _ = batch()
    assert model(x).isfinite().all()
