"""A fitted machine or network in TensorBoard: the course and weights of each layer, findings, filters and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steadygrad.boltzmann.portrait import findings_of, machines_of, pictures_of, tuning_of
from steadygrad.report.tensorboard import PREFIX, writer_class

__all__ = ["write_board"]


def write_board(network: Any, folder: Path, steps: int = 500) -> None:
    """Write what was recorded of a fitted ``RBM``, ``DBN``, ``DBNClassifier`` or ``DBNRegressor``, steps being epochs.

    Args:
        network: What was fitted.
        folder: Where TensorBoard looks for its event files; made if it does not exist.
        steps: Gibbs steps of the samples.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
    """
    machines = machines_of(network)
    courses = {name: rbm.history_ for name, rbm in machines.items()} | {"fine_tuning": tuning_of(network)}
    with writer_class()(str(folder)) as writer:
        for name, records in courses.items():
            for record in records:
                for key in record.keys() - {"epoch"}:
                    writer.add_scalar(f"{PREFIX}/{key}/{name}", record[key], int(record["epoch"]))
        for name, rbm in machines.items():
            writer.add_histogram(f"{PREFIX}/weights as pretrained/{name}", rbm.machine_.weight, rbm.epochs_)
        for finding in findings_of(network):
            words = f"**{finding.code}** {finding.layer}: {finding.message}. {finding.advice}"
            writer.add_text(f"{PREFIX}/findings", words)
        for title, (pixels, words) in pictures_of(network, steps).items():
            writer.add_image(f"{PREFIX}/{title.lower()}", pixels, dataformats="HW")
            writer.add_text(f"{PREFIX}/{title.lower()}", words)
