"""The restricted Boltzmann machine as a scikit-learn estimator."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor

from steadygrad.boltzmann.archive import settings_from, settings_of, under
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.estimator import Callback, draw_seed, progress, whole
from steadygrad.boltzmann.gibbs import CD, PCD, Chains, Tempering, gibbs
from steadygrad.boltzmann.layers import Spec, check_range, new_machine, resolve, start_visible, units
from steadygrad.boltzmann.learning import Learner, Rules, Schedule, activity, check_schedule, value_at
from steadygrad.boltzmann.likelihood import LogZ, pseudo_log_likelihood
from steadygrad.boltzmann.precision import resolve_device, resolve_precision
from steadygrad.boltzmann.scoring import Scored
from steadygrad.boltzmann.sources import ArraySource, Moments, Source, moments_of
from steadygrad.boltzmann.units import Bernoulli
from steadygrad.diagnosis.contrastive import judge_machine
from steadygrad.errors import SetupError, UsageError
from steadygrad.records import Finding

__all__ = ["RBM"]

METHODS = ("cd", "pcd", "pt")
_FIRST_RATE = 0.1
_STREAM_RATE = 0.05
_RECENT = 10  # batches whose hidden units are looked at after an epoch
_TURNED = 100  # held-out rows whose pseudo-likelihood is taken after an epoch
_EPOCH_SEEDS = 7919  # apart, so that epochs of neighboring seeds do not share an order


@dataclass(eq=False, repr=False)
class RBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Scored):
    """Restricted Boltzmann machine.

    Data are numpy arrays (memory-mapped ones too), sparse matrices, tensors, or any re-iterable of batches.

    Args:
        n_components: Hidden units.
        visible: ``"bernoulli"`` for entries in [0, 1], ``"gaussian"`` (learned variances) for real ones, ``"softmax"``
            for one category one-hot, or parts side by side: ``[("bernoulli", 784), ("softmax", 10)]``. ``"auto"``
            takes Bernoulli units if all entries lie in [0, 1], else Gaussian ones.
        hidden: ``"bernoulli"`` or ``"relu"`` (noisy rectified linear units; no likelihood).
        method: ``"cd"``, contrastive divergence; ``"pcd"``, persistent chains; ``"pt"``, parallel tempering.
        k: Gibbs steps an update.
        replicas: Temperatures of ``"pt"``.
        learning_rate: A number, or numbers by epoch with straight lines between. None: 0.1 falling to 0 over
            ``n_epochs`` in ``fit``, 0.05 in ``partial_fit``.
        momentum: Likewise, in [0, 1): ``{0: 0.5, 5: 0.9}``.
        weight_scale: Standard deviation of the first weights. None: 0.01, more for few visible units; layers of a
            :class:`DBN` above the first then begin at 0.1, since of many small ones most never learn.
        weight_decay: Shrinks weights, not biases, by this times the learning rate.
        l1: Pulls weights, not biases, to zero by this times the learning rate.
        sparsity_target: Wanted mean activity of hidden units, as 0.05.
        sparsity_cost: How strongly.
        centering: Whether to follow the centered gradient.
        n_epochs: Passes over the data in all; with ``warm_start`` training goes on up to this number.
        batch_size: Rows an update and number of chains. A smaller remainder makes a step as much smaller.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"`` for the products; parameters stay float32.
        device: As torch names it; None is the processor.
        early_stopping: Whether to hold rows out and stop when the free-energy gap grows.
        validation_fraction: Share of rows held out for it.
        patience: Epochs in a row that the gap may lie more than two standard errors above its lowest value.
        warm_start: Whether ``fit`` goes on from where training stands, exactly as if it had not been interrupted.
        callbacks: Called as ``callback(rbm, record)`` after each epoch; ``rbm.save`` there makes checkpoints.
        verbose: Whether to show a progress bar.
        random_state: Seed.

    Attributes:
        machine_: The model: weights of shape ``(features, n_components)``, visible and hidden units.
        epochs_: Complete epochs; an interrupted ``fit`` keeps the last one.
        history_: One record an epoch: learning rate, update-to-weight ratio of the last step, activity of the hidden
            units in the last ten batches; with ``early_stopping`` the free-energy gap and, of Bernoulli units, the
            mean pseudo-log-likelihood of 100 held-out rows. Reconstruction error is not among them: it is not what
            learning minimizes.
        findings_: What is wrong with the learning so far (rules SG901 to SG905), judged from ``history_``.
        n_features_in_: Features seen in ``fit``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = (rng.random((200, 8)) < 0.3).astype(np.float32)
        >>> rbm = RBM(n_components=3, n_epochs=5, random_state=0).fit(X)
        >>> rbm.transform(X).shape, rbm.log_likelihood(X).log_z.exact
        ((200, 3), True)
    """

    n_components: int = 256
    _: KW_ONLY
    visible: str | Spec = "auto"
    hidden: str = "bernoulli"
    method: str = "pcd"
    k: int = 1
    replicas: int = 10
    learning_rate: Schedule | None = None
    momentum: Schedule = 0.0
    weight_scale: float | None = None
    weight_decay: float = 0.0
    l1: float = 0.0
    sparsity_target: float | None = None
    sparsity_cost: float = 0.1
    centering: bool = True
    n_epochs: int = 10
    batch_size: int = 100
    precision: str = "auto"
    device: str | None = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    patience: int = 3
    warm_start: bool = False
    callbacks: Sequence[Callback] | None = None
    verbose: bool = False
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.machine_.hidden.size

    @property
    def findings_(self) -> list[Finding]:
        """What the records of the epochs show, worst first."""
        check_is_fitted(self, "history_")
        return judge_machine(self.history_)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from data; ``y`` is ignored.

        An interruption keeps the last complete epoch; go on with ``set_params(warm_start=True).fit(X)``.

        Raises:
            UsageError: If a setting or the data are wrong; nothing has been trained then.
            SetupError: If learning diverged; the last complete epoch is kept.
        """
        self._check_settings()
        goes_on = self.warm_start and hasattr(self, "machine_")
        source = self._read(X, reset=not goes_on)
        moments = moments_of(source)
        if goes_on:
            check_range(self._spec, moments)
        if self.early_stopping and (not isinstance(source, ArraySource) or len(source) < 2):
            raise UsageError(
                "RBM: expected an array of two rows or more for early_stopping, got a stream or less. "
                "Pass an array, or early_stopping=False."
            )
        if not goes_on:
            self._start(moments)
        if self.early_stopping and isinstance(source, ArraySource):
            seen, held = source.split(self.validation_fraction, self._seed)
            self._train(seen, (seen, held))
        else:
            self._train(source, None)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from one chunk of rows, in their order; chunks of any size give the same as any other sizes nearly.

        The first chunk sets base rates, or means and variances of Gaussian units. Schedules stand at ``epochs_``.
        """
        self._check_settings()
        first = not hasattr(self, "machine_")
        source = self._read(X, reset=first)
        moments = moments_of(source)
        if first:
            self._start(moments)
        else:
            check_range(self._spec, moments)
        learner = self._learner()
        rate = value_at(_STREAM_RATE if self.learning_rate is None else self.learning_rate, self.epochs_)
        self._pass(learner, source, rate, value_at(self.momentum, self.epochs_), None)
        self._keep(learner)
        return self

    def _check_settings(self) -> None:
        for name in ("n_components", "k", "n_epochs", "batch_size", "patience"):
            whole(name, getattr(self, name))
        whole("replicas", self.replicas, least=2)
        if self.method not in METHODS:
            raise UsageError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}. Choose one of them.")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"validation_fraction: expected a share in (0, 1), got {self.validation_fraction}.")
        for name in ("weight_decay", "l1", "sparsity_cost"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number of at least 0, got {getattr(self, name)}. Use 0 for none.")
        if self.sparsity_target is not None and not 0 < self.sparsity_target < 1:
            raise UsageError(f"sparsity_target: expected a share in (0, 1), got {self.sparsity_target}. Try 0.05.")
        check_schedule("learning_rate", 0.0 if self.learning_rate is None else self.learning_rate, math.inf)
        check_schedule("momentum", self.momentum, 1)
        if self.weight_scale is not None:
            check_schedule("weight_scale", self.weight_scale, math.inf)
        resolve_precision(self.precision, 0, torch.device("cpu"))

    def _start(self, moments: Moments) -> None:
        """Make an untrained machine."""
        spec = resolve(self.visible, moments)
        device = resolve_device(self.device)
        self._spec = spec
        self._base = start_visible(spec, moments).to(device=device)
        self._seed = draw_seed(self.random_state)
        generator = torch.Generator(device).manual_seed(self._seed)
        self.machine_ = new_machine(self._base, self.hidden, self.n_components, generator, self.weight_scale)
        self.epochs_ = 0
        self.history_: list[dict[str, float]] = []
        self._state: dict[str, Tensor] = {"random": generator.get_state()}
        self._log_z: LogZ | None = None

    def _chains(self, generator: torch.Generator) -> Chains:
        if self.method == "cd":
            return CD(self.k)
        count = self.batch_size * (self.replicas if self.method == "pt" else 1)
        start = self._base.sample_(self._base.offset.expand(count, -1).clone(), generator)
        if self.method == "pcd":
            return PCD(self.machine_.hidden.sample_(self.machine_.hidden_field(start), generator), self.k)
        return Tempering(start.view(self.replicas, self.batch_size, -1), self._base, self.k)

    def _learner(self) -> Learner:
        machine = self.machine_.to()
        device = machine.weight.device
        generator = torch.Generator(device)
        generator.set_state(self._state["random"].cpu())
        rules = Rules(self.weight_decay, self.l1, self.sparsity_target, self.sparsity_cost, self.centering)
        precision = resolve_precision(self.precision, machine.weight.numel(), device)
        learner = Learner(machine, self._chains(generator), generator, rules, precision, self._base)
        learner.restore(self._state)
        return learner

    def _train(self, source: Source, held: tuple[ArraySource, ArraySource] | None) -> None:
        learner = self._learner()
        rates: Schedule = {0: _FIRST_RATE, self.n_epochs: 0.0} if self.learning_rate is None else self.learning_rate
        with progress("RBM", self.n_epochs, self.verbose) as tell:
            for epoch in range(self.epochs_, self.n_epochs):
                if held is not None and self._gap_has_grown():
                    break
                rate = value_at(rates, epoch)
                seed = self._seed + _EPOCH_SEEDS * (epoch + 1)
                record = self._pass(learner, source, rate, value_at(self.momentum, epoch), seed)
                self._keep(learner)
                self.epochs_ = epoch + 1
                if held is not None:
                    record |= self._held_out(*held)
                self.history_.append({"epoch": epoch + 1, **record})
                tell(epoch + 1)
                for callback in self.callbacks or ():
                    callback(self, self.history_[-1])

    def _pass(
        self, learner: Learner, source: Source, rate: float, momentum: float, seed: int | None
    ) -> dict[str, float]:
        device = learner.machine.weight.device
        recent: deque[Tensor] = deque(maxlen=_RECENT)
        for batch in source.batches(self.batch_size, seed):
            if len(batch):
                recent.append(learner.step(batch.to(device), rate * len(batch) / self.batch_size, momentum))
        if not bool(learner.machine.weight.isfinite().all()):
            raise SetupError(
                f"RBM: learning diverged at a learning rate of {rate:.3g}, the weights are not finite. "
                "Lower learning_rate; the last complete epoch is kept."
            )
        shares = activity(torch.cat(list(recent)).float(), bounded=self.hidden == "bernoulli")
        return {"learning_rate": rate, "update_ratio": learner.update_ratio(), **shares}

    def _keep(self, learner: Learner) -> None:
        """Take over what was learned; from here on an interruption loses nothing."""
        self._state = {name: value.clone() for name, value in learner.state().items()}
        self.machine_ = learner.machine.to()
        self._log_z = None

    def _gap_has_grown(self) -> bool:
        lowest, above = math.inf, 0
        for record in self.history_:
            gap = record.get("free_energy_gap", math.inf)  # epochs before early stopping was asked for have none
            lowest = min(lowest, gap)
            above = above + 1 if gap > lowest + 2 * record.get("free_energy_gap_error", 0.0) else 0
        return above >= self.patience

    def _held_out(self, seen: ArraySource, held: ArraySource) -> dict[str, float]:
        """Return what the held-out rows say; as many training rows are read, and few rows where each unit is turned."""
        alike = ArraySource(seen.array, seen.rows[: len(held)] if seen.rows is not None else None)
        values = []
        for source in (held, alike):
            free = [self.machine_.free_energy(batch.to(self._device)) for batch in source.batches(1024)]
            values.append(torch.cat(free).double())
        variance = sum(float(value.var(correction=0)) / len(value) for value in values)
        found = {"free_energy_gap": float(values[0].mean() - values[1].mean()), "free_energy_gap_error": variance**0.5}
        if isinstance(self.machine_.visible, Bernoulli):
            few = next(held.batches(_TURNED)).to(self._device)
            found["pseudo_log_likelihood"] = float(pseudo_log_likelihood(self.machine_, few).mean())
        return found

    @property
    def _device(self) -> torch.device:
        return self.machine_.weight.device

    def _checked(self, batch: Tensor) -> Tensor:
        low, high = (batch.amin(0), batch.amax(0)) if len(batch) else (torch.zeros(batch.shape[1]),) * 2
        mean = batch.double().mean(0)
        check_range(self._spec, Moments(len(batch), mean, mean, low, high))
        return batch

    def transform(self, X: Any) -> np.ndarray:
        """Return the means of the hidden units, shape ``(rows, n_components)``."""
        check_is_fitted(self)
        exact = self.machine_.to(torch.float64)  # a row's features must not depend on the rows around it
        return self._map(X, lambda batch: exact.hidden.mean_(exact.hidden_field(batch.double())), self._device)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the means of the visible units for hidden states, shape ``(rows, features)``."""
        check_is_fitted(self)
        hidden = check_array(X, dtype=[np.float64, np.float32])
        if hidden.shape[1] != self.machine_.hidden.size:
            raise UsageError(
                f"RBM.inverse_transform: expected {self.machine_.hidden.size} hidden units, got {hidden.shape[1]}. "
                "Pass what transform returned."
            )
        field = self.machine_.visible_field(torch.from_numpy(hidden).float().to(self._device))
        return self.machine_.visible.mean_(field).cpu().numpy().astype(hidden.dtype)

    def gibbs(self, X: Any, steps: int = 1, random_state: Any = None) -> np.ndarray:
        """Return visible states after Gibbs steps from the rows."""
        check_is_fitted(self)
        generator = torch.Generator(self._device).manual_seed(draw_seed(random_state))
        return self._map(X, lambda batch: gibbs(self.machine_, self._checked(batch), steps, generator), self._device)

    def sample(self, n_samples: int = 1, steps: int = 1000, random_state: Any = None) -> np.ndarray:
        """Return visible states of the model after ``steps`` Gibbs steps from the chains of learning, if it has some.

        Shape ``(n_samples, features)``, float32.
        """
        check_is_fitted(self)
        whole("n_samples", n_samples)
        generator = torch.Generator(self._device).manual_seed(draw_seed(random_state))
        start = self._base.sample_(self._base.offset.expand(n_samples, -1).clone(), generator)
        kept = self._learner().chains.visible_states(self.machine_, generator)
        if kept is not None:
            start = kept[torch.randint(len(kept), (n_samples,), generator=generator, device=self._device)].to(start)
        return gibbs(self.machine_, start, steps, generator).cpu().numpy()

    def _content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"machine.{name}": value for name, value in self.machine_.parameters.items()}
        tensors |= {f"base.{name}": value for name, value in self._base.parameters.items()}
        tensors |= {f"state.{name}": value for name, value in self._state.items()}
        fitted = {
            "spec": [list(part) for part in self._spec],
            "seed": self._seed,
            "epochs": self.epochs_,
            "history": self.history_,
            "features": self.n_features_in_,
            "names": list(getattr(self, "feature_names_in_", [])) or None,
        }
        return tensors, {"settings": settings_of(self), "fitted": fitted}

    @classmethod
    def _from_content(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Self:
        rbm = cls(**settings_from(about["settings"]))
        fitted = about["fitted"]
        rbm._spec = [tuple(part) for part in fitted["spec"]]
        rbm._seed, rbm.epochs_, rbm.history_ = fitted["seed"], fitted["epochs"], fitted["history"]
        rbm.n_features_in_ = fitted["features"]
        if fitted["names"]:
            rbm.feature_names_in_ = np.array(fitted["names"], dtype=object)
        weight = tensors["machine.weight"]
        rbm._base = units(rbm._spec)
        rbm.machine_ = Machine(torch.empty_like(weight), units(rbm._spec), units([(rbm.hidden, weight.shape[1])]))
        for prefix, places in (("machine", rbm.machine_.parameters), ("base", rbm._base.parameters)):
            for name, value in under(prefix, tensors).items():
                places[name].copy_(value)
        device = resolve_device(rbm.device)
        rbm.machine_, rbm._base = rbm.machine_.to(device=device), rbm._base.to(device=device)
        rbm._state, rbm._log_z = under("state", tensors), None
        return rbm
