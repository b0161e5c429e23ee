"""Run the trainings of one stage after the other: where, with what progress, until when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from steadygrad.doctor.trials import Answer, Patients
from steadygrad.errors import UnsendableError
from steadygrad.training import Executor, Serial

__all__ = ["Progress", "Runner"]

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, optimizer steps done in it, and steps it will take at most."""

Task = TypeVar("Task")


@dataclass
class Runner:
    """Runs stages of trainings; falls back to this process where the set-up cannot be sent to another.

    Attributes:
        executor: Where trainings run.
        progress: Told as trainings end.
        deadline: When a stage that may be cut short stops, on the clock of ``time.monotonic``.
        notes: What a reader should know about how it went.
    """

    executor: Executor
    progress: Progress | None = None
    deadline: float = math.inf
    notes: list[str] = field(default_factory=list)

    def run(
        self,
        stage: str,
        function: Callable[[Patients, Task], Answer],
        patients: Patients,
        tasks: Sequence[Task],
        steps: int,
        cut: bool = False,
    ) -> list[Answer]:
        """Return one answer a task, in order; fewer if the stage may be cut short and the time is over.

        At least one task is run.

        Args:
            stage: What is being done, in words.
            function: What runs a task.
            patients: The set-ups that all tasks share.
            tasks: What to run.
            steps: Optimizer steps a task takes at most.
            cut: Whether the stage may be cut short.
        """
        answers: list[Answer] = []
        self._tell(stage, 0, steps * len(tasks))
        try:
            for answer in self.executor.map(function, patients, tasks):
                answers.append(answer)
                self._tell(stage, steps * len(answers), steps * len(tasks))
                if cut and len(answers) < len(tasks) and time.monotonic() >= self.deadline:
                    self.notes.append(f"The time was over while {stage}: {len(answers)} of {len(tasks)} done.")
                    break
        except UnsendableError as error:
            self.executor = Serial()
            self.notes.append(f"Trainings ran in this process: the set-up cannot be sent to another one ({error}).")
            return self.run(stage, function, patients, tasks, steps, cut)
        return answers

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)
