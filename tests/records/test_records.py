from __future__ import annotations

import math
import subprocess
import sys

import pytest

from steadygrad.records import (
    Blueprint,
    Diagnosis,
    Finding,
    Observation,
    Prescription,
    Proof,
    Run,
    Severity,
    Step,
    Symptom,
    Trial,
)


def runs(*scores: float) -> tuple[Run, ...]:
    return tuple(Run(seed, 10, score) for seed, score in enumerate(scores))


def test_spread_is_mean_and_sample_deviation() -> None:
    assert Proof.spread(runs(0.8, 0.9, 1.0)) == pytest.approx((0.9, 0.1))
    assert Proof.spread(runs(0.8)) == (0.8, 0.0)


def test_spread_of_a_run_that_diverged_or_of_none() -> None:
    mean, deviation = Proof.spread(runs(0.8, -math.inf))
    assert mean == -math.inf
    assert math.isnan(deviation)
    assert all(math.isnan(value) for value in Proof.spread(()))


def test_a_trial_scores_as_its_last_run() -> None:
    assert Trial(Prescription(), runs(0.5, 0.7)).score == 0.7
    assert Trial(Prescription()).score == -math.inf


def test_prescriptions_read_as_what_they_do() -> None:
    steps = (Step("activation", {"to": "gelu"}), Step("learning_rate", {"lr": 0.0316228}), Step("residual"))
    assert str(Prescription(steps)) == "activation(to='gelu') + learning_rate(lr=0.03162) + residual()"
    assert str(Prescription()) == "leave as it is"


def diagnosis(*findings: Finding) -> Diagnosis:
    return Diagnosis(findings, Observation(1.0, (), 1.0), Blueprint(()))


def finding(severity: Severity, layer: str | None = None, confidence: float = 1.0) -> Finding:
    return Finding("SG101", Symptom.VANISHING, severity, "message", "advice", layer, {}, confidence)


def test_notes_leave_a_network_healthy() -> None:
    assert diagnosis(finding(Severity.NOTE, "3")).healthy
    assert not diagnosis(finding(Severity.WARNING)).healthy


def test_the_guilty_layer_is_the_first_that_a_warning_names() -> None:
    found = diagnosis(finding(Severity.ERROR), finding(Severity.WARNING, "5", 0.4), finding(Severity.WARNING, "6"))
    assert (found.guilty, found.confidence) == ("5", 0.4)
    innocent = diagnosis(finding(Severity.NOTE, "5"))
    assert (innocent.guilty, innocent.confidence) == (None, None)


def test_records_import_nothing_heavy() -> None:
    code = (
        "import sys, types; package = types.ModuleType('steadygrad'); package.__path__ = [sys.argv[1]];"
        "sys.modules['steadygrad'] = package; import steadygrad.records; print(*sys.modules)"
    )
    import steadygrad

    done = subprocess.run(
        [sys.executable, "-c", code, steadygrad.__path__[0]], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "steadygrad.records.trial" in loaded
    assert loaded.isdisjoint({"torch", "rich", "sklearn"})
