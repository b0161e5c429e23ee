"""From a prescription to a treated set-up."""

from __future__ import annotations

from steadygrad.records import Prescription
from steadygrad.remedies import compose, make
from steadygrad.training import TrainingSetup, blamed, copied, seeded

__all__ = ["apply"]


def apply(prescription: Prescription, setup: TrainingSetup, seed: int = 0) -> TrainingSetup:
    """Return a treated copy of a set-up, its weights drawn afresh from ``seed``.

    The set-up itself, what its model and loss hold, and all random states stay as they are. An empty prescription gives
    the set-up as it was, with fresh weights of the same scale (the same weights if ``setup.redraw`` is None).

    Raises:
        NotApplicableError: If a remedy does not fit this set-up.
        SetupError: If the set-up cannot be copied, or fails while a remedy looks at it.
        UsageError: If a remedy or a setting is unknown.

    Example:
        >>> import torch, steadygrad as sg
        >>> x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
        >>> setup = sg.TrainingSetup(torch.nn.Linear(8, 2), torch.nn.functional.cross_entropy, (x, y), torch.optim.Adam)
        >>> clipped = sg.apply(sg.Prescription((sg.Step("clip_by_global_norm", {"max_norm": 1.0}),)), setup)
        >>> clipped.optimizer.transforms
        (functools.partial(<function clip_by_global_norm at 0x...>, max_norm=1.0),)
    """
    remedies = compose(*(make(step.remedy, **step.settings) for step in prescription.steps))
    with seeded(seed):
        fresh = copied(setup).replace(seed=seed)
        if setup.redraw is not None:
            with blamed("redraw: failed"):
                setup.redraw(fresh.model)
        return remedies(fresh)
