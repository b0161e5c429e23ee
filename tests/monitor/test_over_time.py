"""Every rule over time on a training known to show its symptom, and on a healthy one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steadygrad.diagnosis import judge, judge_history
from steadygrad.errors import MissingDependencyError
from steadygrad.monitor import Monitor
from steadygrad.monitor.listeners import OWN_STEP
from steadygrad.records import Blueprint, History, Observation, Severity

from .networks import batch, mlp, train


def history(looks: int = 60, **columns: object) -> History:
    """A healthy training of two layers, with some columns replaced by functions of the look."""
    noise = np.random.default_rng(0)
    made = History(["first", "second"])
    for look in range(looks):
        norm = float(np.exp(0.1 * noise.standard_normal()))
        totals = {"loss": 2.0 * 0.97**look, "grad_norm": norm, "grad_norm_used": norm, "lr": 0.1, "skipped": 0.0}
        totals |= {
            "early_schedules": 0.0,
            "backwards": 1.0,
            "undivided": 1.0,
            "stale": 0.0,
            "weight_change_outside": 0.0,
        }
        values: dict[str, object] = {
            "grad_norm": [norm, norm],
            "update_ratio": [1e-3, 1e-3],
            "dead_fraction": [0.3, 0.3],
        }
        values["grad_norm_used"] = values["grad_norm"]
        for name, function in columns.items():
            value = function(look)  # type: ignore[operator]
            (values if np.ndim(value) else totals)[name] = value
        made.append(look * 10, totals, values)
    return made


def codes(made: History) -> list[str]:
    return [finding.code for finding in judge_history(made)]


def test_a_healthy_training_shows_nothing() -> None:
    assert codes(history()) == []
    assert judge_history(History(["fc"])) == []


SICK = {
    "SG503": {"grad_norm": lambda k: 1.0 if k < 59 else 30.0},
    "SG504": {"grad_norm": lambda k: 1.08**k, "grad_norm_used": lambda k: 1.08**k},
    "SG505": {"loss": lambda k: 1.0 + 0.5 * (-1) ** k},
    "SG506": {"loss": lambda k: 2.3 + 0.001 * (-1) ** k},
    "SG507": {"dead_fraction": lambda k: [0.3, 0.3 if k < 20 else 0.95]},
    "SG508": {"update_ratio": lambda k: [1e-3, 1e-3 if k < 40 else 1e-9]},
    "SG509": {"grad_norm_used": lambda k: 0.1},
    "SG510": {"loss_scale": lambda k: 2.0 ** (16 - min(k, 16))},
    "SG511": {"update_ratio": lambda k: [1e-3, 0.0]},
    "SG513": {"stale": lambda k: 1.0},
    "SG514": {"weight_change_outside": lambda k: -0.02},
    "SG515": {"backwards": lambda k: 4.0, "undivided": lambda k: 4.0},
    "SG517": {"output_grad_subnormal": lambda k: [0.1, 0.8]},
    "SG518": {"early_schedules": lambda k: 1.0},
    "SG516": {"skipped": lambda k: float(k % 2)},
}


@pytest.mark.parametrize("code", SICK)
def test_each_symptom_is_found_alone(code: str) -> None:
    assert codes(history(**SICK[code])) == [code]


@pytest.mark.parametrize(("code", "layer"), [("SG507", "second"), ("SG508", "second"), ("SG511", "second")])
def test_the_layer_is_named(code: str, layer: str) -> None:
    (finding,) = judge_history(history(**SICK[code]))
    assert finding.layer == layer
    assert finding.severity >= Severity.WARNING


def test_a_schedule_that_ends_at_zero_is_no_collapse() -> None:
    columns = {"update_ratio": SICK["SG508"]["update_ratio"], "lr": lambda k: 0.1 if k < 40 else 1e-7}
    assert codes(history(**columns)) == []


def test_one_observation_alone_tells_rules_over_time_nothing() -> None:
    assert judge(Blueprint(()), Observation(1.0, (), 1.0), select=["SG503", "SG516"]).findings == ()


@pytest.mark.parametrize(("unscale_first", "expected"), [(False, True), (True, False)])
def test_clipping_before_unscale_in_a_real_training(unscale_first: bool, expected: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(12):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            if unscale_first:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            scaler.step(optimizer)
            scaler.update()
    assert ("SG512" in [finding.code for finding in monitor.findings]) == expected


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(("kind", "code"), [("never zeroed", "SG513"), ("shrunk", "SG514"), ("zeroed in place", None)])
def test_misuse_in_a_real_training(kind: str, code: str | None, every: int) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=every) as monitor:
        for step in range(24):
            x, y = batch(seed=step)
            if kind != "never zeroed":
                optimizer.zero_grad(set_to_none=False)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if kind == "shrunk":
                for parameter in model.parameters():
                    parameter.data.mul_(0.99)
    found = {finding.code for finding in monitor.findings}
    assert found & {"SG513", "SG514"} == ({code} if code else set())


def test_bfloat16_updates_lost_to_rounding() -> None:
    model = mlp().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(12):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x.bfloat16()).float(), y).backward()
            optimizer.step()
    assert "SG511" in [finding.code for finding in monitor.findings]


@pytest.mark.parametrize(("scale", "expected"), [(1e-6, True), (1.0, False)])
def test_float16_underflow_in_a_real_training(scale: float, expected: bool) -> None:
    model = mlp().half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(12):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            (1e3 * scale * F.cross_entropy(model(x.half()).float(), y)).backward()
            optimizer.step()
    assert ("SG517" in [finding.code for finding in monitor.findings]) == expected


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]] = {
    "plateau": torch.optim.lr_scheduler.ReduceLROnPlateau,
    "restarts": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5),
}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers_with_a_step_of_their_own_are_heard(kind: str, early: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [owner.step for owner in OWN_STEP]
    with Monitor(model, optimizer, every=1) as monitor:
        scheduler = SCHEDULERS[kind](optimizer)
        advance = partial(scheduler.step, 1.0) if kind == "plateau" else scheduler.step
        for step in range(12):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if early:
                advance()
            optimizer.step()
            if not early:
                advance()
    assert ("SG518" in [finding.code for finding in monitor.findings]) == early
    assert [owner.step for owner in OWN_STEP] == before, "all is put back"


@pytest.mark.parametrize("early", [True, False])
def test_a_scheduler_before_the_optimizer_in_a_real_training(early: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
        for step in range(12):
            x, y = batch(seed=step)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if early and step == 0:
                with pytest.warns(UserWarning, match="before `optimizer.step"):  # torch's own
                    scheduler.step()
            elif early:
                scheduler.step()
            optimizer.step()
            if not early:
                scheduler.step()
    assert ("SG518" in [finding.code for finding in monitor.findings]) == early


def test_a_history_as_a_table_and_a_file(tmp_path: Path) -> None:
    import pandas

    made = history()
    made.to_parquet(tmp_path / "history.parquet")
    read = pandas.read_parquet(tmp_path / "history.parquet")
    assert read.equals(made.to_pandas())
    assert read.loc[(590, "second"), "grad_norm"] == made.column("grad_norm")[-1, 1]


def test_pandas_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "steadygrad\[pandas\]"'):
        history().to_pandas()


def test_the_report_on_clipping() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 20, before_step=lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
    report = monitor.clipping
    assert report["clipped"] == 1.0
    norms = monitor.history.column("grad_norm", of="step")
    assert report["suggested"] == pytest.approx(np.percentile(norms, 90))
    assert "SG509" in [finding.code for finding in monitor.findings]
