"""Keep a cure on disk: the prescription as JSON, the trained weights as safetensors, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path

from steadygrad.doctor.apply import apply
from steadygrad.doctor.treatment import Treatment
from steadygrad.errors import DataFileError, NotApplicableError, UsageError
from steadygrad.records import Prescription, Step, to_json, whole_file, write_whole
from steadygrad.training import TrainingSetup, blamed

__all__ = ["load_cured", "save_cured"]

PRESCRIPTION, WEIGHTS = "prescription.json", "weights.safetensors"
FORMAT = 1


def save_cured(treatment: Treatment, folder: str | Path) -> None:
    """Write the prescription and the weights of the first proven training into a folder, which is made if missing.

    Raises:
        SetupError: If the weights cannot be written as safetensors.
        UsageError: If there is no cure to save, or the folder cannot be made.
    """
    from safetensors.torch import save_model  # loaded only where it is needed

    if treatment.prescription is None or treatment.weights is None:
        raise UsageError(f"save_cured: expected a treatment with a cure, got one that is {treatment.verdict.value}.")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"save_cured: expected a folder that can be made, got {str(folder)!r}: {reason}.") from error
    with whole_file(folder / WEIGHTS) as draft, blamed("save_cured: the weights cannot be written"):
        save_model(treatment.model, str(draft))
    write_whole(folder / PRESCRIPTION, to_json({"format": FORMAT, "prescription": treatment.prescription}))


def load_cured(folder: str | Path, setup: TrainingSetup) -> TrainingSetup:
    """Rebuild a cured set-up from the one that was treated: surgery, optimizer and loss, then the trained weights.

    Args:
        folder: What :func:`save_cured` or ``steadygrad treat --save`` wrote.
        setup: The set-up as it came.

    Raises:
        DataFileError: If a file is missing, damaged, or does not fit the set-up's model.
    """
    from safetensors.torch import load_model

    folder = Path(folder)
    try:
        cured = apply(_prescription(folder / PRESCRIPTION), setup)
    except (NotApplicableError, UsageError) as error:
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(
            f"load_cured: expected a prescription that fits this set-up in {folder / PRESCRIPTION}, but {error}"
        ) from error
    try:
        load_model(cured.model, folder / WEIGHTS)
    except Exception as error:  # safetensors raises classes of its own, torch RuntimeError
        raise DataFileError(
            f"load_cured: expected weights of this model in {folder / WEIGHTS}, got {_line(error)} "
            "Pass the set-up that was treated."
        ) from error
    return cured


def _prescription(path: Path) -> Prescription:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not {FORMAT}, the one of this version")
        steps = content["prescription"]["steps"]
        made = tuple(Step(step["remedy"], dict(step["settings"]), tuple(step["answers"])) for step in steps)
        return Prescription(made, content["prescription"]["rationale"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(
            f"load_cured: expected a prescription in {path}, got {_line(error)} "
            "Name the folder that save_cured or steadygrad treat --save wrote."
        ) from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0].removesuffix('.')}."
