"""Set-ups that are sick or healthy in known ways, made from published symptom families; each follows from its index."""

from .cases import SPLITS, Case, case
from .labels import Label, chance_and_reference, label_of, labels

__all__ = ["SPLITS", "Case", "Label", "case", "chance_and_reference", "label_of", "labels"]
