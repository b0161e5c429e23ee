"""Leave out the samples that no training can use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from steadygrad.errors import NotApplicableError
from steadygrad.records import Symptom
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.training import is_arrays
from steadygrad.training.setup import Data, TrainingSetup

__all__ = ["complete_rows"]


@remedy(
    Card(
        name="complete_rows",
        treats=(Symptom.DATA, Symptom.NONFINITE),
        site=Site.DATA,
        summary="Leave out samples whose inputs or targets hold NaN or infinity.",
        formula="keep row i if all of x_i and y_i is finite",
        not_for="Values that arise while training.",
        hurts="If values are missing for a reason, what is left is no fair sample: impute them then.",
        reference="Little and Rubin 2019, Statistical Analysis with Missing Data, sec. 3.2 (complete-case analysis)",
    )
)
def complete_rows(setup: TrainingSetup) -> TrainingSetup:
    """Keep the complete rows of the training and of the validation data.

    Raises:
        NotApplicableError: If all are complete, or none, or the data are not tensors or arrays.
    """
    train, validation = _complete(setup.train), setup.validation and _complete(setup.validation)
    if train is setup.train and validation is setup.validation:
        raise NotApplicableError("complete_rows: expected rows with NaN or infinity, found none.")
    return setup.replace(train=train, validation=validation)


def _complete(data: Data) -> Data:
    if not is_arrays(data):
        raise NotApplicableError(
            "complete_rows: expected data as tensors or arrays, got batches. Leave incomplete samples out there."
        )
    named = dict(data) if isinstance(data, Mapping) else dict(enumerate(data))
    columns = [torch.as_tensor(column) for column in named.values()]
    kept = torch.stack([_finite(column) for column in columns]).all(0)
    if bool(kept.all()):
        return data
    if not bool(kept.any()):
        raise NotApplicableError("complete_rows: expected complete rows, but every one holds NaN or infinity.")
    rest = {name: column[kept] for name, column in zip(named, columns, strict=True)}
    return rest if isinstance(data, Mapping) else tuple(rest.values())


def _finite(column: Tensor) -> Tensor:
    return column.isfinite().flatten(1).all(1) if column.dim() > 1 else column.isfinite()
