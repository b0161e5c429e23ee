"""What a treatment found, tried and proved."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from steadygrad import report
from steadygrad.diagnosis import RULES
from steadygrad.errors import UsageError
from steadygrad.records import Diagnosis, Part, Prescription, Proof, Trial, Verdict, to_json, to_plain, write_whole
from steadygrad.training import TrainingSetup

__all__ = ["Treatment"]


@dataclass(frozen=True, eq=False)
class Treatment:
    """The whole course of a treatment.

    Attributes:
        diagnosis: What was found in the set-up as it came; nothing worse than a note where the verdict is healthy.
        trials: Everything that was tried, the set-up as it came first.
        verdict: What it came to.
        setup: The cured set-up, ready to train; the one that came if nothing helped or nothing was needed.
        prescription: What was changed; None if nothing.
        proof: The paired trainings on fresh seeds; None if there was nothing to prove.
        diagnosis_after: What is still found in the cured set-up before training.
        weights: State dict of the first treated training of the proof; None without a cure.
        notes: What else a reader should know.
        parts: What each step of the prescription brings, those included that were dropped; empty if not measured.
        doubts: What remains unsure.
        cost: Optimizer steps spent before the proof, the forecast and the shallow network included.
    """

    diagnosis: Diagnosis
    trials: tuple[Trial, ...]
    verdict: Verdict
    setup: TrainingSetup
    prescription: Prescription | None = None
    proof: Proof | None = None
    diagnosis_after: Diagnosis | None = None
    weights: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    doubts: tuple[str, ...] = ()
    cost: int = 0

    @property
    def model(self) -> nn.Module:
        """A copy of the cured model with the weights that the first treated training of the proof ended with."""
        model = copy.deepcopy(self.setup.model)
        if self.weights is not None:
            model.load_state_dict(self.weights)
        return model

    def to_dict(self) -> dict[str, Any]:
        """Return everything but set-up and weights as plain data."""
        names = (
            "verdict",
            "prescription",
            "notes",
            "parts",
            "doubts",
            "cost",
            "trials",
            "proof",
            "diagnosis",
            "diagnosis_after",
        )
        return {name: to_plain(getattr(self, name)) for name in names}

    def save(self, path: str | Path) -> None:
        """Write a report: a page that opens in any browser (``.html``) or plain data (``.json``).

        Raises:
            UsageError: If the path ends otherwise or its folder does not exist.
        """
        path = Path(path)
        if path.suffix not in (".html", ".json"):
            raise UsageError(f"save: expected a path that ends in .html or .json, got {str(path)!r}.")
        if not path.parent.is_dir():
            raise UsageError(f"save: expected an existing folder, got {str(path.parent)!r}. Make it first.")
        write_whole(path, self._page() if path.suffix == ".html" else to_json(self.to_dict()))

    def _repr_html_(self) -> str:
        return self._page()

    def _page(self) -> str:
        return report.treatment_page(
            self.diagnosis,
            self.diagnosis_after,
            self.trials,
            self.proof,
            self.verdict,
            self.prescription,
            self.notes,
            RULES,
            self.parts,
            self.doubts,
        )
