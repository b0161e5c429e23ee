"""Watch a training that goes on as if nothing watched it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from steadygrad.diagnosis import clipping_report, judge_history
from steadygrad.errors import AlarmError, SteadygradWarning, UsageError
from steadygrad.monitor.activation_tap import Watch
from steadygrad.monitor.alarms import Alarms, Sink
from steadygrad.monitor.compiled_stats import readers
from steadygrad.monitor.delivery import Delivery
from steadygrad.monitor.incidents import Incidents
from steadygrad.monitor.listeners import listen, unlisten
from steadygrad.monitor.looks import Look, Places, Slots
from steadygrad.monitor.named import by_name, innermost
from steadygrad.monitor.optimizer_tap import OptimizerTap
from steadygrad.monitor.step_read import StepRead
from steadygrad.monitor.watched import WatchedModel
from steadygrad.records import Finding, History, Observation

__all__ = ["Monitor"]

SPIKES = ("SG503",)  # judged at every look; all rules take their time, and are asked at growing distances
FIRST_GAP, LAST_JUDGED, LAST_GAP = 10, 50, 100  # steps: first between judgements and looks, last between either
HELD = 7  # looks that wait for the next one, where one follows the other and nobody is to be told at once
GROWTH = 10  # from the hundredth step on looks stand a tenth of the steps made apart
# Losses that torch's own functions leave undivided; a loss that was divided ends in another function.
MEANS = frozenset(
    f"{name}Backward0"
    for name in ("NllLoss", "NllLoss2D", "MseLoss", "Mean", "BinaryCrossEntropyWithLogits", "HuberLoss")
)


class Monitor:
    """Watch models and optimizers: norms, updates, activations by layer and step, alarms, the layer that broke.

    The training is bit for bit the one without it. Attach it after ``fully_shard`` and before the first call of a
    compiled model. What it cannot see it names in :attr:`unseen`; its own faults end in one warning.

    Args:
        model: The network; for several a list, or a dict by the name they shall have.
        optimizer: Its optimizer, or several.
        every: Look at every so many optimizer steps, the first one included; by default at every tenth at first, and
            rarer as the training goes on, down to every hundredth from step 1,000 on.
        on_alarm: ``"log"`` logs a finding, ``"raise"`` raises :class:`AlarmError` on findings of severity error, a
            callable gets the finding.
        sinks: Callables that get every look and every finding as plain data.
        on_nonfinite: Before a step whose gradient is not finite, after the producer is named: ``"continue"`` steps on,
            ``"skip"`` leaves the step out, ``"raise"`` raises :class:`AlarmError`. On a CPU every step is checked.
        capsules: Folder for broken steps, to be made again by ``steadygrad replay``; at most three.

    Example:
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Monitor(model, optimizer, every=1) as monitor:
        ...     for _ in range(3):
        ...         loss = model(torch.ones(8, 4)).square().mean()
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        >>> monitor.history.column("update_ratio").shape
        (3, 1)
    """

    def __init__(
        self,
        model: nn.Module | Iterable[nn.Module] | Mapping[str, nn.Module],
        optimizer: Optimizer | Iterable[Optimizer] | Mapping[str, Optimizer] = (),
        every: int | None = None,
        on_alarm: str | Callable[[Finding], None] = "log",
        sinks: Sequence[Sink] = (),
        on_nonfinite: str = "continue",
        capsules: Path | None = None,
    ) -> None:
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise UsageError(f"Monitor: expected every to be a whole number of at least 1, got {every!r}.")
        if on_alarm not in ("log", "raise") and not callable(on_alarm):
            raise UsageError(f'Monitor: expected on_alarm to be "log", "raise" or a function, got {on_alarm!r}.')
        self.every, self._alarms = every, Alarms(on_alarm, sinks)
        self._history = History()
        self._hold = HELD if on_alarm == "log" and not sinks else 0
        self.models: dict[str, nn.Module] = by_name(model, nn.Module, "model")
        self._optimizers = [innermost(each) for each in by_name(optimizer, Optimizer, "optimizer").values()]
        self._attached = self._faulty = False
        self._watch = Watch()
        self._incidents = Incidents(on_nonfinite, capsules, self._alarms, self._watch)
        self._delivery, self._places = Delivery(), Places()
        self._watched: list[WatchedModel] = []
        self._taps: list[OptimizerTap] = []
        self._next_look: dict[int, int] = {}
        self._slots: dict[int, Slots] = {}
        self._look: Look | None = None
        self._sent: set[int] = set()  # optimizers whose numbers of the look under way are on their way
        self._sent_step = -1
        self._loss: Tensor | None = None
        self._backwards = self._undivided = 0
        self._early_schedules: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        self._made = self._next_judgement = 0

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, *_: Any) -> None:
        self.detach()

    def attach(self) -> Self:
        """Start watching, or go on watching after :meth:`detach`, which ends it.

        Raises:
            UsageError: If it is attached already.
        """
        if self._attached:
            raise UsageError("Monitor: expected a monitor that is not attached, this one is. Detach it first.")
        self._attached = True
        self._watch.due = True
        listen(self)
        for name, model in self.models.items():
            self.add_model(model, name)
        for optimizer in self._optimizers:
            self.add_optimizer(optimizer)
        return self

    def detach(self) -> None:
        """Take every hook away, finish the last look and judge it."""
        if not self._attached:
            return
        self._attached = False
        self._watch.due = False
        unlisten(self)
        for tap in self._taps:
            tap.detach()
        for watched in self._watched:
            watched.detach()
        if not self._faulty:
            self._guard(lambda: self._delivery.poll(wait=True))
            self._guard(self._close_look)
            self._guard(self._judge)
        self._made = self.steps
        self._watched.clear()
        self._taps.clear()
        self._slots.clear()

    def add_model(self, model: nn.Module, name: str = "") -> None:
        """Watch one more model; its layers are named ``name.layer``."""
        self.models[name] = model
        prefix = f"{name}." if name else ""
        self._watched.append(WatchedModel(model, prefix, self._places, self._watch, self._fault))
        self._history.add_layers(self._places.names)

    def add_optimizer(self, optimizer: Optimizer, in_step: bool = False) -> None:
        """Watch one more optimizer; ``in_step`` says that its step is under way, its gradients have arrived unseen."""
        optimizer = innermost(optimizer)
        if optimizer not in self._optimizers:
            self._optimizers.append(optimizer)
        tap = OptimizerTap(
            optimizer,
            delivery=self._delivery,
            also=lambda: self._also(tap),
            on_read=lambda read, *tables: self._on_read(tap, read, *tables),
            agree=self._incidents.agree,
            on_broken=self._on_broken,
            on_fault=self._fault,
            on_step=self._on_step,
            layer_of=lambda parameter: self._places.row_of.get(id(parameter), id(parameter)),
            weighs=self._places.weighs,
            skip_on_device=self._incidents.skips,
            steps=self._made,
            due=True,
            blind=in_step,
        )
        self._taps.append(tap)

    @property
    def history(self) -> History:
        """All looks so far; may be set to an empty one of another limit."""
        self._guard(self._delivery.poll)
        return self._history

    @history.setter
    def history(self, history: History) -> None:
        self._history = history

    def observation(self, step: int) -> Observation:
        """Return the look at ``step``.

        Raises:
            UsageError: If there was none.
        """
        return self.history.at(step)

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, first to last."""
        self._guard(self._delivery.poll)
        return self._alarms.findings

    @property
    def steps(self) -> int:
        """Optimizer steps made since attaching; of several optimizers, those of the fastest."""
        return max((tap.steps for tap in self._taps), default=self._made)

    @property
    def clipping(self) -> dict[str, float]:
        """Percentiles of the gradient norm before clipping, the share of looks clipped, and a threshold to try."""
        return clipping_report(self.history)

    @property
    def unseen(self) -> tuple[str, ...]:
        """What could not be seen in the looks so far, in words."""
        notes: list[str] = []
        history = self.history
        if len(history):
            unread = np.isnan(history.column("output_rms"))
            never = unread.all(axis=0)
            for missing, why in (
                (never, "They were never called as modules while gradients were recorded, or were compiled before the "
                        "monitor was attached"),
                (unread[-1] & ~never, "The last look missed them: nothing called them, or they were compiled between "
                                      "looks; attach the monitor to the compiled model before its first step"),
            ):  # fmt: skip
                names = [name for name, is_missing in zip(history.layers, missing, strict=True) if is_missing]
                if names:
                    some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
                    notes.append(f"the outputs of {len(names)} layers: {some}. {why}")
        if any(isinstance(model, nn.parallel.DistributedDataParallel) for model in self.models.values()):
            notes.append("clipping: under DistributedDataParallel gradients arrive before they are averaged over ranks")
        return tuple(notes)

    def on_backward(self, tensors: Any) -> None:
        """Hear of a backward pass: its loss, if it starts from one number."""
        if self._watch.muted or not self._watch.due:
            return
        self._backwards += 1
        tensors = tuple(tensors)
        for tap in self._taps:
            if tap.due:
                self._guard(tap.before_backward)
        if len(tensors) == 1 and tensors[0].numel() == 1:
            self._loss = tensors[0].detach()
            made_by = tensors[0].grad_fn
            self._undivided += made_by is not None and made_by.name() in MEANS

    def after_backward(self) -> None:
        """Hear that a backward pass has ended."""
        if self._watch.due and not self._watch.muted:
            for tap in self._taps:
                self._guard(tap.after_backward)

    def on_scaler(self, scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
        """Hear that a loss scaler is about to step."""
        for tap in self._taps:
            if tap.optimizer is optimizer and scaler.is_enabled():
                scale = scaler._scale  # get_scale() would wait for a GPU
                if scale is not None:
                    self._guard(partial(tap.expect, scale.detach().clone()))

    def on_scaled(self, scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
        """Hear that a loss scaler has stepped, or not."""
        for tap in self._taps:
            if tap.optimizer is optimizer and scaler.is_enabled() and not tap.stepped:
                self._guard(tap.skipped)

    def on_schedule(self, scheduler: LRScheduler) -> None:
        """Hear that a learning-rate scheduler is about to make a step."""
        optimizer = innermost(scheduler.optimizer)
        seen = any(tap.steps for tap in self._taps if tap.optimizer is optimizer)  # plain SGD keeps no state
        if not seen and not optimizer.state and not getattr(optimizer, "_opt_called", False):
            self._early_schedules[optimizer] = self._early_schedules.get(optimizer, 0) + 1

    def _also(self, tap: OptimizerTap) -> list[Any]:
        """Return what to bring to the host with a look of ``tap``: loss, counts, tables of its models."""
        if not self._sent or id(tap) in self._sent:  # the first of the optimizers that share a look
            self._sent, self._sent_step = set(), max(self.steps, self._sent_step + 1)
        self._sent.add(id(tap))
        if len(self._sent) == len(self._taps):
            self._sent = set()
        step = self._sent_step
        self._next_look[id(tap)] = step + (self.every or _gap(step))
        loss: Any = math.nan if self._loss is None else self._loss
        if self._loss is None or self._loss.is_cpu:  # the user's, who may change it
            loss = float(loss)
        stale, early = tap.leftover.found, self._early_schedules.get(tap.optimizer, 0)
        counts = [step, self._backwards, self._undivided, stale, early, tap.outside]
        self._loss, self._backwards, self._undivided, tap.outside = None, 0, 0, math.nan
        return [loss, counts, *(watched.outputs.take() for watched in self._models_of(tap))]

    def _models_of(self, tap: OptimizerTap) -> list[WatchedModel]:
        return [watched for watched in self._watched if watched.belongs_to(tap)]

    def _on_read(self, tap: OptimizerTap, read: StepRead, *arrays: Any) -> None:
        loss, counts, *tables = arrays
        step, *counted = counts
        if self._look is not None and self._look.step != step:
            self._close_look()
        if self._look is None:
            self._look = Look.empty(step, len(self._places.names))
        look = self._look
        slots = self._slots_of(tap)
        look.grow(slots.layers)
        look.add_step(read, slots)
        look.add_totals(read.scale, float(loss), *counted)
        for watched, taken in zip(self._models_of(tap), tables, strict=False):
            look.add_outputs(watched.rows, watched.outputs.table_of(taken), read.scale)
        look.reported.add(id(tap))
        if len(look.reported) == len(self._taps):
            self._close_look()

    def _slots_of(self, tap: OptimizerTap) -> Slots:
        """Return where the reads of ``tap`` go; parameters that belong to no model get rows of their own."""
        slots = self._slots.get(id(tap))
        if slots is None or len(slots.sizes) < len(tap.parameters) or slots.layers < len(self._places.names):
            for parameter in tap.parameters:
                if id(parameter) not in self._places.row_of:
                    name = f"parameter of {type(tap.optimizer).__name__} {tuple(parameter.shape)}"
                    self._places.add_parameter(parameter, name)
            self._history.add_layers(self._places.names)
            slots = self._slots[id(tap)] = Slots(tap.parameters, self._places)
        return slots

    def _close_look(self) -> None:
        look, self._look = self._look, None
        if look is None:
            return
        look.finish()
        self._history.append(look.step, look.totals, look.values)
        if self._alarms.has_sinks:
            self._alarms.look(look.event(self._places.names))
        if look.step >= self._next_judgement:
            self._next_judgement = look.step + min(max(look.step, FIRST_GAP), LAST_JUDGED)
            self._judge()
        else:
            self._alarms.judge(judge_history(self._history, SPIKES), look.step, SPIKES)

    def _judge(self) -> None:
        """Apply all rules to the last look."""
        if not len(self._history):
            return
        step = int(self._history.steps[-1])
        findings, observation = judge_history(self._history), self._history.at(step)
        for watched in self._watched:
            findings += watched.wiring.judge(observation)
        self._alarms.judge(findings, step)

    def _on_step(self, tap: OptimizerTap) -> None:
        steps = self.steps
        due = steps >= self._next_look.get(id(tap), 0)
        if due or tap.due:
            tap.begin_round(due)
            self._watch.due = any(tap.due for tap in self._taps)
            self._watch.readers = self._watch.readers or (readers() if tap.compiled else None)
            for watched in self._watched:
                watched.outputs.arm(self._watch.due)
            self._delivery.poll(hold=self._hold if self._watch.due else 0)
        else:
            self._delivery.poll()
            tap.wake = self._next_look[id(tap)] if tap.on_host and len(self._taps) == 1 else 0
        self._alarms.raise_if_asked()

    def _on_broken(self, tap: OptimizerTap, here: bool) -> None:
        self._guard(self._delivery.poll)
        self._guard(lambda: self._incidents.investigate(tap, self._models_of(tap), here, self.steps))
        tap.wake = 0  # an alarm may wait for the end of the step
        self._incidents.act(tap, self.steps)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._fault(error)

    def _fault(self, error: BaseException) -> None:
        """Let an alarm through; for anything else warn once and watch no more."""
        if isinstance(error, AlarmError):
            raise error
        if not self._faulty:
            self._faulty = True
            self._guard(self.detach)
            warnings.warn(
                f"Monitor: expected to watch on, got {type(error).__name__}: {error}. The training goes on unwatched.",
                SteadygradWarning,
                stacklevel=2,
            )


def _gap(steps: int) -> int:
    """Return how many steps stand between looks by default, after so many steps."""
    return min(max(steps // GROWTH, FIRST_GAP), LAST_GAP)
