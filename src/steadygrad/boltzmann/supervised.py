"""Deep belief networks that predict: pretrained without targets, fine-tuned with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from steadygrad.boltzmann.archive import settings_from, settings_of, under
from steadygrad.boltzmann.dbn import DBN, default_layer
from steadygrad.boltzmann.estimator import Callback, Estimator, draw_seed, progress, whole
from steadygrad.boltzmann.finetune import FineTuner, optimizer_tensors, restore_optimizer
from steadygrad.boltzmann.precision import resolve_device, resolve_precision
from steadygrad.boltzmann.rbm import RBM
from steadygrad.boltzmann.sources import ArraySource, Source, StreamSource, is_stream, usual_batch
from steadygrad.errors import UsageError

__all__ = ["DBNRegressor", "Supervised"]

_EPOCH_SEEDS = 7919


@dataclass(eq=False, repr=False)
class Supervised(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Base of classifier and regressor: pretraining, then a head and backpropagation through all layers."""

    _numeric = False

    hidden_layer_sizes: Sequence[int] = (256, 256)
    _: KW_ONLY
    rbm: RBM | None = None
    n_epochs: int = 20
    batch_size: int | None = None
    learning_rate: float = 2e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    dropout: float = 0.0
    input_dropout: float = 0.0
    max_norm: float | None = None
    clip: float | None = 1.0
    warm_start: bool = False
    callbacks: Sequence[Callback] | None = None
    verbose: bool = False
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return int(self.hidden_layer_sizes[-1])

    @classmethod
    def from_dbn(cls, dbn: DBN, **settings: Any) -> Self:
        """Return an estimator whose ``fit`` goes on from a pretrained network, as one taught on rows without targets.

        Args:
            dbn: A fitted network; it stays as it is.
            settings: Of the estimator, but for the sizes and those of pretraining; ``warm_start`` is on.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> many, few = (rng.random((rows, 8)).astype(np.float32) for rows in (300, 20))
            >>> dbn = DBN((6, 4), rbm=RBM(n_epochs=3), random_state=0).fit(many)
            >>> DBNRegressor.from_dbn(dbn, n_epochs=2).fit(few, few.sum(1)).epochs_
            2
        """
        check_is_fitted(dbn, "stack_")
        made = cls(dbn.hidden_layer_sizes, rbm=dbn.rbm, random_state=dbn._seed, **settings | {"warm_start": True})
        if getattr(made, "method", "discriminative") != "discriminative":
            raise UsageError("from_dbn: expected method='discriminative', got 'generative', which learns its own top.")
        made._start(dbn)
        made.n_features_in_ = dbn.n_features_in_
        return made

    def fit(self, X: Any, y: Any = None) -> Self:
        """Pretrain on the data, then fine-tune with the targets.

        A stream yields ``(rows, targets)`` and takes no ``y``. An interruption keeps every complete epoch; go on with
        ``set_params(warm_start=True).fit(X, y)``.

        Raises:
            UsageError: If a setting or the data are wrong.
            SetupError: If training diverged.
        """
        self._check_settings()
        goes_on = self.warm_start and hasattr(self, "dbn_")
        source, targets = self._read_labeled(X, y, reset=not goes_on)
        if not goes_on:
            self._start()
        if not hasattr(self, "network_"):
            self._learn_targets(source, targets)
        encoded = self._encode_targets(targets)
        if not hasattr(self, "network_"):
            self.dbn_.set_params(warm_start=True, rbm=self.rbm, verbose=self.verbose)
            self.dbn_.fit(X if encoded is None else source.array)
            self._build()
        self._fine_tune(source, encoded, self.epochs_, self.n_epochs)
        return self

    def _partial_fit(self, X: Any, y: Any) -> Self:
        self._check_settings()
        first = not hasattr(self, "network_")
        source, targets = self._read_labeled(X, y, reset=first)
        if first:
            self._start()
            self._learn_targets(source, targets)
            self.dbn_.fit(X if targets is None else source.array)
            self._build()
        self._fine_tune(source, self._encode_targets(targets), None, 1)
        return self

    def _check_settings(self) -> None:
        whole("n_epochs", self.n_epochs)
        if self.batch_size is not None:
            whole("batch_size", self.batch_size)
        for name in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name}: expected a number of at least 0, got {getattr(self, name)}. Try 0.001.")
        for name in ("dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected a share in [0, 1), got {getattr(self, name)}. Try 0.5.")
        self._tuner(torch.device("cpu"), 0).build(nn.Linear(1, 1))

    def _read_labeled(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        """Return the source and the targets; of a stream the targets are None, they come with its batches."""
        if is_stream(X):
            if y is not None:
                raise UsageError(f"{type(self).__name__}: expected targets inside the stream's batches, got y as well.")
            return self._read(X, reset), None
        X = X.detach().cpu().numpy() if isinstance(X, Tensor) else X
        y = y.detach().cpu().numpy() if isinstance(y, Tensor) else y
        kept = getattr(getattr(X, "dtype", None), "kind", "") in ("b", "i", "u")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=None if kept else [np.float64, np.float32],
            multi_output=self._numeric,
            y_numeric=self._numeric,
            reset=reset,
        )
        return ArraySource(X), y

    def _start(self, dbn: DBN | None = None) -> None:
        """Forget what was learned, and begin with a network that was pretrained elsewhere if one is given."""
        self._seed = draw_seed(self.random_state)
        self.epochs_ = 0
        self.history_: list[dict[str, float]] = []
        for name in ("network_", "_optimizer_state"):
            self.__dict__.pop(name, None)
        fresh = DBN(self.hidden_layer_sizes, rbm=self.rbm, verbose=self.verbose, random_state=self._seed)
        self.dbn_: Any = fresh if dbn is None else copy.deepcopy(dbn)

    def _template(self) -> RBM:
        return self.rbm if self.rbm is not None else default_layer()

    def _tuner(self, device: torch.device, weights: int) -> FineTuner:
        precision = resolve_precision(self._template().precision, weights, device)
        return FineTuner(self.optimizer, self.weight_decay, self.max_norm, self.clip, precision)

    def _build(self) -> None:
        """Put a head on the pretrained layers; its weights are 0, so that it starts without an opinion."""
        head = nn.Linear(self.dbn_.stack_.top.hidden.size, self._outputs, device=self.dbn_._device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.network_ = self.dbn_.to_sequential(head, self.dropout, self.input_dropout).eval()
        self._optimizer_state: dict[str, Tensor] = {}

    def _fine_tune(self, source: Source, encoded: np.ndarray | None, start: int | None, stop: int) -> None:
        """Run passes ``start`` to ``stop`` with a falling rate, or one at the full rate if ``start`` is None."""
        network = copy.deepcopy(self.network_)
        device = next(network.parameters()).device
        tuner = self._tuner(device, sum(parameter.numel() for parameter in network.parameters()))
        optimizer = tuner.build(network)
        if self._optimizer_state:
            restore_optimizer(optimizer, self._optimizer_state)
        for callback in self.callbacks or ():
            if hasattr(callback, "begin"):
                callback.begin(network, optimizer)
        with progress("fine-tuning", stop, self.verbose) as tell:
            for epoch in range(start or 0, stop):
                rate = self.learning_rate * (1 - (epoch / stop if start is not None else 0))
                seed = self._seed + _EPOCH_SEEDS * (self.epochs_ + 1)
                batches = self._batches(source, encoded, seed, device)
                loss = tuner.epoch(network, optimizer, self._loss, batches, rate, seed)
                self.network_ = copy.deepcopy(network)
                self._optimizer_state = {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
                self.epochs_ += 1
                self.history_.append({"epoch": self.epochs_, "learning_rate": rate, "loss": loss})
                tell(epoch + 1)
                for callback in self.callbacks or ():
                    callback(self, self.history_[-1])

    def _batches(
        self, source: Source, encoded: np.ndarray | None, seed: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if isinstance(source, ArraySource):
            assert encoded is not None
            for numbers, batch in source.numbered(self.batch_size or usual_batch(len(source)), seed):
                yield batch.to(device), torch.from_numpy(encoded[numbers]).to(device)
            return
        assert isinstance(source, StreamSource)
        for rows, targets in source.labeled():
            codes = self._encode_targets(targets)
            assert codes is not None
            yield rows.to(device), torch.from_numpy(codes).to(device)

    def _outputs_of(self, X: Any) -> np.ndarray:
        return self._run(X, slice(None)).astype(np.float64)

    def _run(self, X: Any, part: slice) -> np.ndarray:
        check_is_fitted(self, "network_")
        network = copy.deepcopy(self.network_[part]).double()  # a row's answer must not depend on the rows around it
        return self._map(X, lambda batch: network(batch.double()), next(self.network_.parameters()).device)

    def transform(self, X: Any) -> np.ndarray:
        """Return the last hidden layer's values after fine-tuning, shape ``(rows, hidden_layer_sizes[-1])``."""
        return self._run(X, slice(-1))

    def to_sequential(self) -> nn.Sequential:
        """Return a copy of the fine-tuned network; for a classifier it ends in logits."""
        check_is_fitted(self, "network_")
        return copy.deepcopy(self.network_)

    def _content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        inside, about = self.dbn_._content()
        tensors = {f"dbn.{name}": value for name, value in inside.items()}
        if hasattr(self, "network_"):
            tensors |= {f"network.{name}": value for name, value in self.network_.state_dict().items()}
            tensors |= {f"optimizer.{name}": value for name, value in self._optimizer_state.items()}
        settings = settings_of(self) | {"rbm": None, "hidden_layer_sizes": [int(s) for s in self.hidden_layer_sizes]}
        fitted = {"seed": self._seed, "epochs": self.epochs_, "history": self.history_, "features": self.n_features_in_}
        template = None if self.rbm is None else settings_of(self.rbm)
        return tensors, {
            "settings": settings,
            "template": template,
            "dbn": about,
            "fitted": fitted,
            "targets": self._about_targets(),
        }

    @classmethod
    def _from_content(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Self:
        template = about["template"]
        made = cls(**settings_from(about["settings"]) | {"rbm": template and RBM(**settings_from(template))})
        fitted = about["fitted"]
        made._seed, made.epochs_, made.history_ = fitted["seed"], fitted["epochs"], fitted["history"]
        made.n_features_in_ = fitted["features"]
        made._restore_targets(about["targets"])
        made.dbn_ = made._dbn_from_content(under("dbn", tensors), about["dbn"])
        weights = under("network", tensors)
        if weights:
            made._build()
            made.network_.load_state_dict(weights)
            made.network_.to(resolve_device(made._template().device))
            made._optimizer_state = under("optimizer", tensors)
        return made

    # What classifier and regressor do in their own ways.

    def _dbn_from_content(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Any:
        return DBN._from_content(tensors, about)

    @property
    def _outputs(self) -> int:
        raise NotImplementedError

    def _loss(self, output: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def _learn_targets(self, source: Source, targets: Any) -> None:
        raise NotImplementedError

    def _encode_targets(self, targets: Any) -> np.ndarray | None:
        raise NotImplementedError

    def _about_targets(self) -> dict[str, Any]:
        raise NotImplementedError

    def _restore_targets(self, about: Mapping[str, Any]) -> None:
        raise NotImplementedError


class DBNRegressor(RegressorMixin, Supervised):
    """Deep belief network that predicts numbers, one or several.

    Targets are standardized inside; predictions come in their own units. The settings are those of
    :class:`~steadygrad.boltzmann.DBNClassifier` without ``method``.

    Attributes:
        dbn_: The pretrained layers.
        network_: The fine-tuned network; its outputs are standardized.
        epochs_: Complete passes of fine-tuning.
        history_: One record a pass.
    """

    _numeric = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Fine-tune one pass over a chunk of rows; the first chunk also pretrains the layers and scales the targets."""
        return self._partial_fit(X, y)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions, shape ``(rows,)`` or ``(rows, targets)`` as the targets were."""
        answers = self._outputs_of(X) * self._scale + self._center
        return answers[:, 0] if self._flat else answers

    @property
    def _outputs(self) -> int:
        return len(self._center)

    def _loss(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(output, targets)

    def _learn_targets(self, source: Source, targets: Any) -> None:
        if targets is None:
            assert isinstance(source, StreamSource)
            targets = np.concatenate([np.asarray(part, dtype=np.float64) for _, part in source.labeled()])
        values = np.asarray(targets, dtype=np.float64)
        self._flat = values.ndim == 1
        columns = values.reshape(len(values), -1)
        self._center, spread = columns.mean(0), columns.std(0)
        self._scale = np.where(spread > 0, spread, 1.0)

    def _encode_targets(self, targets: Any) -> np.ndarray | None:
        if targets is None:
            return None
        columns = np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
        if columns.shape[1] != len(self._center):
            raise UsageError(f"DBNRegressor: expected {len(self._center)} targets a row, got {columns.shape[1]}.")
        return ((columns - self._center) / self._scale).astype(np.float32)

    def _about_targets(self) -> dict[str, Any]:
        return {"flat": self._flat, "center": self._center.tolist(), "scale": self._scale.tolist()}

    def _restore_targets(self, about: Mapping[str, Any]) -> None:
        self._flat, self._center, self._scale = about["flat"], np.array(about["center"]), np.array(about["scale"])
