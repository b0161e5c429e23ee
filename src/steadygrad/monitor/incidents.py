"""What is done about a step whose gradient is not finite, while the parameters still are: by all ranks the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist

from steadygrad.errors import AlarmError, NotApplicableError, UsageError
from steadygrad.monitor.activation_tap import Watch
from steadygrad.monitor.alarms import Alarms, logger
from steadygrad.monitor.capsule import capsule_size, save_capsule
from steadygrad.monitor.forensics import Call, find_producer
from steadygrad.monitor.optimizer_tap import OptimizerTap
from steadygrad.monitor.sharded import group_of, have_ranks
from steadygrad.monitor.watched import WatchedModel
from steadygrad.records import Finding

__all__ = ["Incidents"]

MOST = 3


class Incidents:
    """Name the producer of a non-finite gradient, keep the step on disk, and go on, skip or raise as asked.

    Args:
        on_nonfinite: ``"continue"``, ``"skip"`` or ``"raise"``.
        capsules: Folder for the broken steps; None keeps none.
        alarms: Told of findings.
        watch: Muted while a batch is run again.

    Raises:
        UsageError: If ``on_nonfinite`` is none of the three.
    """

    def __init__(self, on_nonfinite: str, capsules: Path | None, alarms: Alarms, watch: Watch) -> None:
        if on_nonfinite not in ("continue", "skip", "raise"):
            expected = '"continue", "skip" or "raise"'
            raise UsageError(f"Monitor: expected on_nonfinite to be {expected}, got {on_nonfinite!r}.")
        self._action, self._capsules, self._alarms, self._watch = on_nonfinite, capsules, alarms, watch
        self._count = 0

    @property
    def skips(self) -> bool:
        """Whether a step with a gradient that is not finite is left out."""
        return self._action == "skip"

    def agree(self, tap: OptimizerTap, broken: bool) -> bool:
        """Return whether a gradient is not finite on any rank, where ranks have to do the same.

        They have where a step may be left out, and where a forward pass gathers shards. It is one collective a step.
        """
        ranks = have_ranks() and dist.get_world_size() > 1
        same = self._action != "continue" or group_of(tap.parameters) is not None
        if not (ranks and same and tap.on_host):  # elsewhere nothing is checked
            return broken
        flag = torch.tensor(float(broken))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def investigate(self, tap: OptimizerTap, models: Iterable[WatchedModel], here: bool, step: int) -> None:
        """Run the batch again and name the producer; ``here`` says that the gradient is not finite on this rank."""
        if not here and group_of(tap.parameters) is None:
            logger.error("step %d: a gradient is not finite on another rank", step)
            return
        self._count += 1
        if self._count > MOST:
            return
        calls = [(watched, call) for watched in models if (call := watched.keeper.last) is not None]
        if not calls:
            logger.error("step %d: a gradient is not finite; no call that could be made again was seen", step)
        for watched, call in calls:
            self._watch.muted = True
            try:
                findings = find_producer(watched.model, call)
            finally:
                self._watch.muted = False
            for finding in findings:
                self._alarms.tell(finding, step)
            if not findings:
                logger.error("step %d: a gradient is not finite; the batch made again gives finite ones", step)
            if self._capsules is not None:
                self._save(self._capsules / f"step-{step}", watched, call, step, findings)

    def act(self, tap: OptimizerTap, step: int) -> None:
        """Do as asked.

        Raises:
            AlarmError: If that was asked.
        """
        if self._action == "raise":
            raise AlarmError(f"step {step}: a gradient is not finite; the parameters are as before this step")
        if self._action == "skip":
            for parameter in tap.parameters:
                parameter.grad = None  # torch's optimizers leave a parameter without a gradient alone

    def _save(self, folder: Path, watched: WatchedModel, call: Call, step: int, findings: list[Finding]) -> None:
        try:
            logger.error("step %d: writing %s, %.1f MB", step, folder, capsule_size(watched.model, call) / 1e6)
            save_capsule(folder, watched.model, call, step, findings)
        except (OSError, NotApplicableError) as error:
            logger.error("step %d: no capsule: %s", step, error)
