"""The deep belief network as a scikit-learn estimator: greedy layer-wise training, up-down fine-tuning."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from steadygrad.boltzmann.archive import settings_from, settings_of, under
from steadygrad.boltzmann.estimator import Estimator, draw_seed, progress, whole
from steadygrad.boltzmann.gibbs import gibbs
from steadygrad.boltzmann.likelihood import Likelihood
from steadygrad.boltzmann.network import to_sequential
from steadygrad.boltzmann.rbm import RBM
from steadygrad.boltzmann.sources import ArraySource, Source, usual_batch
from steadygrad.boltzmann.stack import Stack, up_down
from steadygrad.diagnosis.contrastive import judge_machine
from steadygrad.errors import UsageError
from steadygrad.records import Finding

__all__ = ["DBN", "begin_larger", "default_layer"]

_LAYER_SEEDS = 104729  # apart, so that layers do not share random numbers
_UPPER_SCALE = 0.1  # as in the program of Hinton and Salakhutdinov 2006; from 0.01 most of 2,000 units stay at 0
_BLOCK = 1024


@dataclass(eq=False, repr=False)
class DBN(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Deep belief network.

    Every layer is a restricted Boltzmann machine taught on the means of the one below, computed once. The up-down
    algorithm can then teach all layers together.

    Args:
        hidden_layer_sizes: Hidden units of each layer, from the data upwards.
        rbm: Settings of every layer, as ``RBM(n_epochs=30, method="cd")``; its ``n_components`` is left aside, its
            ``visible`` holds for the first layer. None is CD-1 with a momentum of 0.5 rising to 0.9, without which
            upper layers of small data stay near their start.
        up_down_epochs: Passes of the up-down algorithm after greedy training.
        up_down_rate: Its learning rate.
        warm_start: Whether ``fit`` goes on where training stands.
        verbose: Whether to show progress bars.
        random_state: Seed.

    Attributes:
        rbms_: The fitted layers.
        stack_: The model as a whole, with both directions of the lower layers.

    Reference:
        Hinton, Osindero, Teh, A Fast Learning Algorithm for Deep Belief Nets, 2006.

    Example:
        >>> X = (np.random.default_rng(0).random((200, 8)) < 0.3).astype(np.float32)
        >>> dbn = DBN((6, 4), rbm=RBM(n_epochs=3), random_state=0).fit(X)
        >>> dbn.transform(X).shape, len(dbn.to_sequential())
        ((200, 4), 4)
    """

    hidden_layer_sizes: Sequence[int] = (256, 256)
    _: KW_ONLY
    rbm: RBM | None = None
    up_down_epochs: int = 0
    up_down_rate: float = 0.01
    warm_start: bool = False
    verbose: bool = False
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.rbms_[-1].machine_.hidden.size

    @property
    def findings_(self) -> list[Finding]:
        """What the records of all layers show; a finding names the layer as ``rbms_[0]``."""
        check_is_fitted(self, "rbms_")
        layers = enumerate(self.rbms_)
        return [finding for i, rbm in layers for finding in judge_machine(rbm.history_, f"rbms_[{i}]")]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Teach layer by layer, then all together if ``up_down_epochs`` says so; ``y`` is ignored.

        An interruption keeps every complete epoch of every layer; go on with ``set_params(warm_start=True).fit(X)``.

        Raises:
            UsageError: If a setting or the data are wrong.
            SetupError: If learning diverged.
        """
        source = self._begin(X)
        with tempfile.TemporaryDirectory() as folder:
            self._fit_layers(source, len(self.hidden_layer_sizes), Path(folder))
        if self._up_down_done < self.up_down_epochs:
            self._up_down(source)
        return self

    def _begin(self, X: Any) -> Source:
        goes_on = self.warm_start and hasattr(self, "rbms_")
        sizes = self.hidden_layer_sizes
        if not isinstance(sizes, Iterable) or not list(sizes):
            raise UsageError(f"hidden_layer_sizes: expected one or more sizes, got {sizes!r}. Pass them as (500, 500).")
        for size in sizes:
            whole("hidden_layer_sizes", size)
        whole("up_down_epochs", self.up_down_epochs, least=0)
        source = self._read(X, reset=not goes_on)
        if not goes_on:
            self._rows = len(source) if isinstance(source, ArraySource) else None
            self._seed = draw_seed(self.random_state)
            self._up_down_done = 0
            self.rbms_: list[RBM] = []
        return source

    def _layer(self, number: int) -> RBM:
        """Return the layer of that number, made if it is new, ready to go on."""
        if number == len(self.rbms_):
            rbm = clone(self._template())
            seed = (self._seed + _LAYER_SEEDS * number) % 2**31
            rbm.set_params(n_components=int(self.hidden_layer_sizes[number]), random_state=seed)
            if number:
                rbm.set_params(visible="bernoulli" if rbm.hidden == "bernoulli" else "gaussian")
                begin_larger(rbm)
            self.rbms_.append(rbm)
        template = self._template()
        shown = self.verbose or template.verbose
        return self.rbms_[number].set_params(
            warm_start=True, n_epochs=template.n_epochs, callbacks=template.callbacks, verbose=shown
        )

    def _template(self) -> RBM:
        return self.rbm if self.rbm is not None else default_layer(self._rows)

    def _fit_layers(self, source: Source, count: int, folder: Path) -> Source:
        """Fit the first ``count`` layers and return the data as the last but one gives them."""
        for number in range(count):
            rbm = self._layer(number)
            rbm.fit(_as_data(source))
            if number < count - 1:
                source = self._encoded(source, rbm, folder / f"{number}.npy")
        if not self._up_down_done:
            self.stack_: Stack = Stack.tied([rbm.machine_ for rbm in self.rbms_])
        return source

    def _encoded(self, source: Source, rbm: RBM, place: Path) -> Source:
        """Compute a layer's means once: in memory for arrays, in a file for what may be larger than memory."""
        machine, device = rbm.machine_, rbm.machine_.weight.device
        parts = (machine.hidden.mean_(machine.hidden_field(b.to(device))).cpu().numpy() for b in source.batches(_BLOCK))
        if isinstance(source, ArraySource) and not isinstance(source.array, np.memmap):
            return ArraySource(np.concatenate(list(parts)))
        with place.open("wb") as file:
            rows = 0
            for part in parts:
                part.astype(np.float32).tofile(file)
                rows += len(part)
        return ArraySource(np.memmap(place, np.float32, "r", shape=(rows, machine.hidden.size)))

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Teach every layer from one chunk of rows, from the data upwards."""
        if not hasattr(self, "rbms_"):
            self._begin(X)
        source = self._read(X, reset=False)
        rows: Any = _as_data(source)
        for number in range(len(self.hidden_layer_sizes)):
            rows = self._layer(number).partial_fit(rows).transform(rows)
        self.stack_ = Stack.tied([rbm.machine_ for rbm in self.rbms_])
        return self

    def _up_down(self, source: Source) -> None:
        """Run the up-down algorithm; the top goes on as its own method says, the layers below by wake and sleep."""
        top = self.rbms_[-1]
        with progress("up-down", self.up_down_epochs, self.verbose) as tell:
            for epoch in range(self._up_down_done, self.up_down_epochs):
                learner = top._learner()
                working = Stack(self.stack_.to().up, self.stack_.to().down, learner.machine)
                rate = self.up_down_rate * (1 - epoch / self.up_down_epochs)
                device = learner.machine.weight.device
                rows = source.batches(top.batch_size, self._seed + _LAYER_SEEDS * (epoch + 1))
                up_down(working, learner, ((batch.to(device), None) for batch in rows), rate, top.batch_size)
                top._keep(learner)
                working.top = top.machine_
                self.stack_, self._up_down_done = working, epoch + 1
                tell(epoch + 1)

    @property
    def _device(self) -> torch.device:
        return self.stack_.top.weight.device

    def transform(self, X: Any) -> np.ndarray:
        """Return the means of the topmost hidden units, shape ``(rows, hidden_layer_sizes[-1])``."""
        check_is_fitted(self, "stack_")
        exact = self.stack_.to(torch.float64)  # a row's features must not depend on the rows around it
        top = exact.top
        return self._map(X, lambda b: top.hidden.mean_(top.hidden_field(exact.encode(b.double()))), self._device)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the means of the data for topmost hidden states, shape ``(rows, features)``."""
        check_is_fitted(self, "stack_")
        below = self.rbms_[-1].inverse_transform(X)
        decoded = self.stack_.decode(torch.from_numpy(below).float().to(self._device))
        return decoded.cpu().numpy().astype(below.dtype)

    def score_samples(self, X: Any, draws: int = 10) -> np.ndarray:
        """Return the variational bound on the log-likelihood of each row in nats, the same at every call.

        The partition function is the top layer's :meth:`RBM.log_z`, whether trusted or not.
        """
        check_is_fitted(self, "stack_")
        z = self.rbms_[-1].log_z().estimate
        return self._log_weights(X, draws, z)

    def _log_weights(self, X: Any, draws: int, log_z: float) -> np.ndarray:
        exact = self.stack_.to(torch.float64)
        seed = self._seed
        return self._map(
            X, lambda b: exact.log_weights(self._checked(b).double(), draws, seed).mean(0) - log_z, self._device
        )

    def _checked(self, batch: Tensor) -> Tensor:
        return self.rbms_[0]._checked(batch)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean bound over rows in nats."""
        return float(self.score_samples(X).astype(np.float64).mean())

    def bound(self, X: Any, draws: int = 10, **settings: Any) -> Likelihood:
        """Return the mean variational bound with its standard error; no headline number where AIS fails.

        Args:
            X: Data.
            draws: States drawn from ``Q`` a row.
            settings: Of :func:`~steadygrad.boltzmann.likelihood.log_z`, as ``chains=500``.
        """
        check_is_fitted(self, "stack_")
        z = self.rbms_[-1].log_z(**settings)
        values = self._log_weights(X, draws, z.estimate).astype(np.float64)
        error = math.hypot(float(values.std()) / math.sqrt(len(values)), z.standard_error)
        return Likelihood(float(values.mean()) if z.trusted else None, error, float(values.mean()), z)

    def sample(self, n_samples: int = 1, steps: int = 1000, random_state: Any = None) -> np.ndarray:
        """Return means of the data after ``steps`` Gibbs steps of the top, shape ``(n_samples, features)``."""
        check_is_fitted(self, "stack_")
        states = torch.from_numpy(self.rbms_[-1].sample(n_samples, steps, random_state)).to(self._device)
        generator = torch.Generator(self._device).manual_seed(draw_seed(random_state))
        return self.stack_.generate(states, generator).cpu().numpy()

    def gibbs(self, X: Any, steps: int = 1, random_state: Any = None) -> np.ndarray:
        """Return means of the data after passing up, Gibbs steps in the top, and passing down."""
        check_is_fitted(self, "stack_")
        generator = torch.Generator(self._device).manual_seed(draw_seed(random_state))

        def walk(batch: Tensor) -> Tensor:
            states = gibbs(self.stack_.top, self.stack_.encode(self._checked(batch)), steps, generator)
            return self.stack_.generate(states, generator)

        return self._map(X, walk, self._device)

    def to_sequential(
        self, head: nn.Module | None = None, dropout: float = 0.0, input_dropout: float = 0.0
    ) -> nn.Sequential:
        """Return the layers as a feed-forward network for any torch loop; see :func:`to_sequential`."""
        check_is_fitted(self, "stack_")
        return to_sequential([*self.stack_.up, self.stack_.top], head, dropout, input_dropout)

    def _content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        stack = getattr(self, "stack_", None)  # there is none before all layers have begun
        tensors = {} if stack is None else {f"stack.{name}": value for name, value in stack.parameters.items()}
        layers = []
        for number, rbm in enumerate(rbm for rbm in self.rbms_ if hasattr(rbm, "machine_")):
            inside, about = rbm._content()
            tensors |= {f"rbm.{number}.{name}": value for name, value in inside.items()}
            layers.append(about)
        settings = self.get_params(deep=False) | {"rbm": None}
        settings["hidden_layer_sizes"] = [int(size) for size in settings["hidden_layer_sizes"]]
        settings["random_state"] = self._seed
        template = self._template()
        fitted = {"seed": self._seed, "up_down": self._up_down_done, "features": self.n_features_in_}
        fitted["whole"] = stack is not None
        names = list(getattr(self, "feature_names_in_", [])) or None
        return tensors, {
            "settings": settings,
            "template": settings_of(template),
            "layers": layers,
            "fitted": fitted,
            "names": names,
        }

    @classmethod
    def _from_content(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Self:
        dbn = cls(**about["settings"] | {"rbm": RBM(**settings_from(about["template"]))})
        dbn.rbms_ = [
            RBM._from_content(under(f"rbm.{i}", tensors), content) for i, content in enumerate(about["layers"])
        ]
        fitted = about["fitted"]
        dbn._seed, dbn._up_down_done, dbn.n_features_in_ = fitted["seed"], fitted["up_down"], fitted["features"]
        if about["names"]:
            dbn.feature_names_in_ = np.array(about["names"], dtype=object)
        if fitted["whole"]:
            dbn.stack_ = Stack.tied([rbm.machine_ for rbm in dbn.rbms_])
            for name, place in dbn.stack_.parameters.items():
                place.copy_(tensors[f"stack.{name}"])
        return dbn


def default_layer(rows: int | None = None) -> RBM:
    """Return the settings of a layer where none are given, for so many rows."""
    return RBM(method="cd", momentum={0: 0.5, 5: 0.9}, batch_size=usual_batch(rows))


def begin_larger(rbm: RBM) -> None:
    """Let a layer above the first begin with larger weights, unless its settings say how large."""
    if rbm.weight_scale is None and rbm.hidden == "bernoulli":
        rbm.set_params(weight_scale=_UPPER_SCALE)


def _as_data(source: Source) -> Any:
    """Return what a layer's ``fit`` takes."""
    return source.array if isinstance(source, ArraySource) else source.stream  # type: ignore[attr-defined]
