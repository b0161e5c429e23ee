"""Let frozen parameters learn."""

from __future__ import annotations

from steadygrad.errors import NotApplicableError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training.setup import TrainingSetup

__all__ = ["unfreeze"]


@remedy(
    Card(
        name="unfreeze",
        treats=(Symptom.DISCONNECTED,),
        site=Site.MODEL,
        summary="Let every parameter learn.",
        reference="torch.Tensor.requires_grad_",
        hurts="What a frozen network has learned elsewhere is changed.",
        cost="the gradients of the parameters that were frozen",
        not_for="Gradients that are detached on the way.",
        formula="requires_grad <- True",
    )
)
def unfreeze(setup: TrainingSetup) -> TrainingSetup:
    """Make every floating parameter require a gradient.

    Raises:
        NotApplicableError: If all of them do already.
    """
    frozen = [p for p in setup.model.parameters() if p.is_floating_point() and not p.requires_grad]
    if not frozen:
        raise NotApplicableError("unfreeze: expected frozen parameters, found none. Something else keeps them still.")
    for parameter in frozen:
        parameter.requires_grad_()
    return setup
