"""A deep belief network whose top machine learns labels together with features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from steadygrad.boltzmann.archive import under
from steadygrad.boltzmann.dbn import DBN, begin_larger
from steadygrad.boltzmann.layers import resolve
from steadygrad.boltzmann.rbm import RBM
from steadygrad.boltzmann.sources import ArraySource, moments_of
from steadygrad.boltzmann.stack import Stack, up_down
from steadygrad.diagnosis.contrastive import judge_machine
from steadygrad.records import Finding

__all__ = ["LabelDBN"]

_BLOCK = 1024


class LabelDBN:
    """Layers pretrained without labels, and a top machine over the last one's means beside softmax label units.

    Attributes:
        lower: The layers below the top; None if the top lies on the data.
        top: The top machine.
        stack: The model as a whole.

    Reference:
        Hinton, Osindero, Teh, A Fast Learning Algorithm for Deep Belief Nets, 2006, fig. 1 and sec. 6.
    """

    def __init__(self, sizes: Sequence[int], classes: int, template: RBM, seed: int) -> None:
        self.classes = classes
        inner = sizes[:-1]
        self.lower = DBN(inner, rbm=template, random_state=seed) if len(inner) else None
        self.top: RBM = clone(template).set_params(n_components=int(sizes[-1]), random_state=seed)
        if self.lower is not None:
            begin_larger(self.top)
        self.stack: Stack

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.stack.top.weight.device

    @property
    def findings_(self) -> list[Finding]:
        """What the records of all layers show."""
        below = [] if self.lower is None else self.lower.findings_
        return below + judge_machine(self.top.history_, "top")

    def pretrain(self, source: ArraySource, labels: np.ndarray, template: RBM, verbose: bool) -> None:
        """Train greedily what has not been trained yet."""
        done = hasattr(self, "stack")
        if self.lower is not None:
            self.lower.set_params(warm_start=True, rbm=template, verbose=verbose).fit(source.array)
        joined = self._joined(source, labels)
        self._name_parts(joined)
        self.top.set_params(
            warm_start=True, n_epochs=template.n_epochs, callbacks=template.callbacks, verbose=verbose
        ).fit(joined)
        if not done:
            self._assemble()

    def partial_fit(self, source: ArraySource, labels: np.ndarray) -> None:
        """Train every layer on one chunk."""
        if self.lower is not None:
            self.lower.partial_fit(source.array)
        joined = self._joined(source, labels)
        if not hasattr(self, "stack"):
            self._name_parts(joined)
        self.top.partial_fit(joined)
        self._assemble()

    def tune(self, source: ArraySource, labels: np.ndarray, rate: float, seed: int) -> None:
        """Run one pass of the up-down algorithm."""
        learner = self.top._learner()
        copied = self.stack.to()
        working = Stack(copied.up, copied.down, learner.machine)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for numbers, batch in source.numbered(self.top.batch_size, seed):
                yield batch.to(self.device), torch.from_numpy(labels[numbers]).to(self.device)

        up_down(working, learner, batches(), rate, self.top.batch_size)
        self.top._keep(learner)
        self.stack = Stack(working.up, working.down, self.top.machine_)

    def features(self, stack: Stack, rows: Tensor) -> Tensor:
        """Return the means of the top hidden units for rows without a label, shape ``(rows, hidden)``."""
        states = stack.encode(rows)
        silent = torch.cat([states, states.new_zeros(len(states), self.classes)], 1)
        return stack.top.hidden.mean_(stack.top.hidden_field(silent))

    def logits(self, stack: Stack, rows: Tensor) -> Tensor:
        """Return minus the free energy of rows with each label, up to a constant, shape ``(rows, classes)``."""
        states = stack.encode(rows)
        top, width = stack.top, states.shape[1]
        silent = torch.cat([states, states.new_zeros(len(states), self.classes)], 1)
        field = top.hidden_field(silent)
        bias = top.visible.bias[width:]
        each = [bias[k] + top.hidden.cumulant(field + top.weight[width + k]) for k in range(self.classes)]
        return torch.stack(each, 1)

    def sample(self, rows: int, code: int | None, steps: int, seed: int) -> np.ndarray:
        """Return means of the data after Gibbs steps of the top, with label ``code`` held fast if given."""
        generator = torch.Generator(self.device).manual_seed(seed)
        machine = self.stack.top
        states = torch.from_numpy(self.top.sample(rows, 1, seed)).to(self.device)
        fixed = None if code is None else torch.eye(self.classes, device=self.device)[code]
        for _ in range(steps):
            if fixed is not None:
                states[:, -self.classes :] = fixed
            hidden = machine.hidden.sample_(machine.hidden_field(states), generator)
            states = machine.visible.sample_(machine.visible_field(hidden), generator)
        if self.lower is None:  # the data are units of the top itself: means, as elsewhere
            states = machine.visible.mean_(machine.visible_field(hidden))
        return self.stack.generate(states[:, : -self.classes], generator).cpu().numpy()

    def _joined(self, source: ArraySource, labels: np.ndarray) -> np.ndarray:
        parts = source.batches(_BLOCK)
        rows = [part.numpy() for part in parts] if self.lower is None else [self._below(part) for part in parts]
        return np.concatenate([np.concatenate(rows), labels], 1)

    def _below(self, rows: Tensor) -> np.ndarray:
        assert self.lower is not None
        return self.lower.transform(rows.numpy())

    def _name_parts(self, joined: np.ndarray) -> None:
        below = resolve("auto", moments_of(ArraySource(joined[:, : -self.classes])))
        self.top.set_params(visible=[*below, ("softmax", self.classes)])

    def _assemble(self) -> None:
        machines = [] if self.lower is None else [rbm.machine_ for rbm in self.lower.rbms_]
        self.stack = Stack.tied([*machines, self.top.machine_])

    def _content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        found: dict[str, Tensor] = {}
        about: dict[str, Any] = {"whole": hasattr(self, "stack")}
        begun = {"lower": hasattr(self.lower, "rbms_"), "top": hasattr(self.top, "machine_")}
        for side, part in (("lower", self.lower), ("top", self.top)):
            inside, about[side] = part._content() if part is not None and begun[side] else ({}, None)
            found |= {f"{side}.{name}": value for name, value in inside.items()}
        if about["whole"]:
            found |= {f"stack.{name}": value for name, value in self.stack.parameters.items()}
        return found, about

    def _take_content(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        if about["top"] is not None:
            self.top = RBM._from_content(under("top", tensors), about["top"])
        if about["lower"] is not None:
            self.lower = DBN._from_content(under("lower", tensors), about["lower"])
        if about["whole"]:
            self._assemble()
            for name, place in self.stack.parameters.items():
                place.copy_(tensors[f"stack.{name}"])
