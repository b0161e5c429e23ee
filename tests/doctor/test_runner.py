from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from steadygrad.doctor.runner import Runner
from steadygrad.doctor.trials import Answer, Patients
from steadygrad.errors import UnsendableError
from steadygrad.records import Prescription
from steadygrad.training import Serial

from .patients import setup_of

PATIENTS = Patients(setup_of())


def answer(patients: Patients, cost: int) -> Answer:
    return Answer(Prescription(), cost=cost)


class Narrow:
    """An executor through which what is shared does not fit, as it turns out after a first result."""

    def map(self, function: Any, shared: Any, items: Any) -> Iterator[Any]:
        yield function(shared, items[0])
        raise UnsendableError("TypeError: cannot pickle a lock")


def test_what_cannot_be_sent_starts_again_in_this_process_for_good() -> None:
    runner = Runner(Narrow())
    for _ in range(2):
        assert [each.cost for each in runner.run("trying", answer, PATIENTS, [1, 2, 3], 10)] == [1, 2, 3]
    assert isinstance(runner.executor, Serial)
    assert runner.notes == [
        "Trainings ran in this process: the set-up cannot be sent to another one (TypeError: cannot pickle a lock)."
    ]


def test_only_a_stage_that_may_be_cut_is_cut() -> None:
    runner = Runner(Serial(), deadline=time.monotonic() - 1)
    assert len(runner.run("trying", answer, PATIENTS, [1, 2, 3], 10)) == 3
    assert runner.notes == []
    assert len(runner.run("trying", answer, PATIENTS, [1, 2, 3], 10, cut=True)) == 1
    assert runner.notes == ["The time was over while trying: 1 of 3 done."]


def test_a_stage_that_is_done_is_not_called_cut() -> None:
    runner = Runner(Serial(), deadline=time.monotonic() - 1)
    assert len(runner.run("trying", answer, PATIENTS, [1], 10, cut=True)) == 1
    assert runner.run("trying", answer, PATIENTS, [], 10, cut=True) == []
    assert runner.notes == []
