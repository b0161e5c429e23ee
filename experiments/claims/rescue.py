"""The most common experiment: does a remedy make a network learn that learns nothing as it is?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, normal, on_digits, stack
from experiments.claims.verdict import Condition, Verdict, gains
from steadygrad.remedies import compose, make
from steadygrad.training import TrainingSetup, seeded

CURED = 0.3
CRITERION = (
    f"The network with the remedy is more than {CURED:g} more often right on held-out digits than the same network "
    "without it (chance is 0.1; a training that diverges counts 0), each after 150 steps of 128 at that one of the "
    "learning rates 0.01, 0.1 and 1 that is best on training data."
)

Change = Callable[[TrainingSetup], TrainingSetup]
Remedy = tuple[str, Mapping[str, Any]]

SIGMOID = "8 sigmoid layers"
SMALL = "8 ReLU layers from N(0, 0.01²)"
EXPLODING = "6 ReLU layers from N(0, 1)"
PATIENTS: dict[str, Callable[[int], nn.Sequential]] = {
    SIGMOID: partial(stack, nn.Sigmoid, 8),
    SMALL: partial(stack, nn.ReLU, 8, fill=normal(0.01)),
    EXPLODING: partial(stack, nn.ReLU, 6, fill=normal(1.0)),
}


@dataclass(frozen=True)
class Rescue:
    """Networks that learn nothing, and remedies of which each is tried on each of them.

    Attributes:
        patients: Names of ``PATIENTS``.
        remedies: By what to call them: a name of the catalogue with its settings, several of these, or a function
            that changes the set-up.
    """

    patients: Sequence[str]
    remedies: Mapping[str, Remedy | list[Remedy] | Change]

    def claim(self, sentence: str, articles: tuple[str, ...]) -> Claim:
        """Return the claim that these remedies cure these networks."""
        return Claim(sentence, articles, CRITERION, self.measure, self.judge)

    def measure(self, seed: int, quick: bool) -> dict[str, float]:
        """Return the accuracy of every patient without and with each remedy."""
        measured = {}
        for patient in self.patients:
            measured[f"{patient}, untreated"] = _untreated(patient, seed, quick)
            for label, remedy in self.remedies.items():
                setup = _treated(on_digits(PATIENTS[patient](seed)), remedy, seed)
                measured[f"{patient}, {label}"] = accuracy(best_training(setup, seed, quick))
        return measured

    def judge(self, outcomes: Outcomes) -> Verdict:
        """Ask of every patient and remedy whether it is cured."""
        return Verdict(
            tuple(
                Condition(
                    f"{label} on {patient}", gains(outcomes, f"{patient}, {label}", f"{patient}, untreated"), CURED
                )
                for patient in self.patients
                for label in self.remedies
            )
        )


def _treated(setup: TrainingSetup, remedy: Remedy | list[Remedy] | Change, seed: int) -> TrainingSetup:
    """Return the set-up with a remedy; what the remedy draws comes from the seed."""
    with seeded(seed):
        if callable(remedy):
            return remedy(setup)
        several = remedy if isinstance(remedy, list) else [remedy]
        return compose(*(make(name, **settings) for name, settings in several))(setup)


@cache
def _untreated(patient: str, seed: int, quick: bool) -> float:
    return accuracy(best_training(on_digits(PATIENTS[patient](seed)), seed, quick))
