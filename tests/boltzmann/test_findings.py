"""Each rule on learning machines: a sick one that shows it, and a healthy twin that shows nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from steadygrad.boltzmann import DBN, RBM
from steadygrad.diagnosis.contrastive import judge_machine
from steadygrad.records import Severity

X = (load_digits().data > 7).astype(np.float32)
CD = {"method": "cd", "n_epochs": 6}
FEW = {"data": X[:60], "n_components": 120, "batch_size": 10, "n_epochs": 40, "learning_rate": 0.2}
FEW |= {"early_stopping": True, "validation_fraction": 0.3, "patience": 100}


def codes(data: np.ndarray = X[:800], **settings: object) -> list[str]:
    rbm = RBM(**{"n_components": 40, "n_epochs": 8, "batch_size": 20, "random_state": 0, **settings}).fit(data)
    return [finding.code for finding in rbm.findings_]


@pytest.mark.parametrize(
    ("code", "sick", "healthy"),
    [
        ("SG901", CD | {"learning_rate": 10.0}, CD | {"learning_rate": 0.1}),
        ("SG902", {"learning_rate": 1e-6}, {"learning_rate": {0: 0.1, 7: 1e-6}}),
        ("SG903", CD | {"sparsity_target": 0.001, "sparsity_cost": 20.0}, CD | {"sparsity_target": 0.1}),
        ("SG904", {"learning_rate": 4.0, "batch_size": 10, "n_epochs": 12}, {"learning_rate": 0.1, "batch_size": 10}),
        ("SG905", FEW, FEW | {"data": X, "n_components": 20, "batch_size": 100, "n_epochs": 10}),
    ],
)
def test_the_sick_are_found_and_their_twins_are_not(code: str, sick: dict, healthy: dict) -> None:
    assert code in codes(**sick)
    assert codes(**healthy) == []


def test_a_dbn_names_the_layer_that_is_ill() -> None:
    dbn = DBN((30, 20), rbm=RBM(method="cd", n_epochs=4, learning_rate=10.0, batch_size=20), random_state=0)
    findings = dbn.fit(X[:400]).findings_
    assert {"rbms_[0]"} <= {finding.layer for finding in findings} <= {"rbms_[0]", "rbms_[1]"}


def test_silence_of_most_units_is_an_error_and_nothing_is_said_of_no_records() -> None:
    record = {"learning_rate": 0.1, "update_ratio": 1e-3, "dead_units": 0.6, "stuck_units": 0.35, "saturated": 1.0}
    (finding,) = judge_machine([record] * 3, "top")
    assert (finding.code, finding.severity, finding.layer) == ("SG903", Severity.ERROR, "top")
    assert "95% of the hidden units never switch: 60% stay off and 35% on" in finding.message
    assert judge_machine([]) == []
