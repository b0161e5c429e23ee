"""The deep belief network as a classifier: a discriminative head, or label units at the top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from steadygrad.boltzmann.estimator import draw_seed, progress
from steadygrad.boltzmann.labels import LabelDBN
from steadygrad.boltzmann.sources import ArraySource, Source, StreamSource
from steadygrad.boltzmann.supervised import Supervised
from steadygrad.errors import UsageError

__all__ = ["DBNClassifier"]

METHODS = ("discriminative", "generative")


@dataclass(eq=False, repr=False)
class DBNClassifier(ClassifierMixin, Supervised):
    """Deep belief network that predicts classes.

    Args:
        hidden_layer_sizes: Hidden units of each layer, from the data upwards.
        rbm: Settings of pretraining, as ``RBM(n_epochs=30, method="cd")``; its ``precision`` and ``device`` hold for
            fine-tuning too.
        method: ``"discriminative"`` puts a softmax layer on top and fine-tunes by backpropagation. ``"generative"``
            lets the top machine learn labels together with features, which can then be sampled from a label; its
            ``n_epochs`` are passes of the up-down algorithm.
        n_epochs: Passes of fine-tuning.
        batch_size: Rows a step of fine-tuning; None is 100, or less where a pass would hold fewer than 100 steps.
        learning_rate: Of fine-tuning; it falls to 0 in a straight line.
        optimizer: ``"adam"`` or ``"sgd"`` (momentum 0.9).
        weight_decay: L2 penalty of fine-tuning.
        dropout: Share of hidden units dropped in fine-tuning.
        input_dropout: Share of inputs dropped in fine-tuning.
        max_norm: Largest norm of each unit's incoming weights; None for no bound.
        clip: Largest global norm of the gradients; None for no bound.
        warm_start: Whether ``fit`` goes on where training stands.
        callbacks: Called as ``callback(classifier, record)`` after each pass of fine-tuning. If one has a method
            ``begin(network, optimizer)``, it is called before the first, so that a ``Monitor`` can be attached.
        verbose: Whether to show progress bars.
        random_state: Seed.

    Attributes:
        classes_: The classes.
        dbn_: The pretrained layers; without the top one if generative.
        network_: The fine-tuned network, if discriminative.
        epochs_: Complete passes of fine-tuning.
        history_: One record a pass.

    Reference:
        Hinton, Osindero, Teh 2006 (generative); Hinton and Salakhutdinov 2006 (discriminative).
    """

    method: str = field(default="discriminative", kw_only=True)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Pretrain on the data, then fine-tune with the classes.

        A stream yields ``(rows, classes)`` and takes no ``y``; label units want arrays. An interruption keeps every
        complete epoch; go on with ``set_params(warm_start=True).fit(X, y)``.

        Raises:
            UsageError: If a setting or the data are wrong.
            SetupError: If training diverged.
        """
        if self.method != "generative":
            return super().fit(X, y)
        self._check_settings()
        goes_on = self.warm_start and hasattr(self, "dbn_")
        source, targets = self._read_labeled(X, y, reset=not goes_on)
        if not goes_on:
            self._start_generative(source, targets)
        source, labels = self._with_labels(source, targets)
        self.dbn_.pretrain(source, labels, self._template(), self.verbose)
        with progress("up-down", self.n_epochs, self.verbose) as tell:
            for epoch in range(self.epochs_, self.n_epochs):
                rate = self.learning_rate * (1 - epoch / self.n_epochs)
                self.dbn_.tune(source, labels, rate, self._seed + epoch + 1)
                self.epochs_ = epoch + 1
                self.history_.append({"epoch": epoch + 1, "learning_rate": rate})
                tell(epoch + 1)
                for callback in self.callbacks or ():
                    callback(self, self.history_[-1])
        return self

    def _start_generative(self, source: Source, targets: Any) -> None:
        self._start()
        self._learn_targets(source, targets)
        self.dbn_ = LabelDBN(self.hidden_layer_sizes, len(self.classes_), self._template(), self._seed)

    def _with_labels(self, source: Source, targets: Any) -> tuple[ArraySource, np.ndarray]:
        if not isinstance(source, ArraySource):
            raise UsageError("DBNClassifier: expected arrays for method='generative', got a stream. Use partial_fit.")
        return source, np.eye(len(self.classes_), dtype=np.float32)[self._encode_targets(targets)]

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Fine-tune one pass over a chunk of rows; the first chunk also pretrains the layers.

        Args:
            X: Rows.
            y: Their classes.
            classes: All classes, at the first call if the first chunk lacks some.
        """
        self._known_classes = None if classes is None else np.unique(classes)
        if self.method != "generative":
            return self._partial_fit(X, y)
        self._check_settings()
        first = not hasattr(self, "dbn_")
        source, targets = self._read_labeled(X, y, reset=first)
        if first:
            self._start_generative(source, targets)
        self.dbn_.partial_fit(*self._with_labels(source, targets))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, shape ``(rows, classes)``."""
        check_is_fitted(self, "classes_")
        logits = torch.from_numpy(self._outputs_of(X))
        return logits.softmax(1).numpy()

    def _outputs_of(self, X: Any) -> np.ndarray:
        if self.method != "generative":
            return super()._outputs_of(X)
        check_is_fitted(self, "classes_")
        exact = self.dbn_.stack.to(torch.float64)
        return self._map(X, lambda batch: self.dbn_.logits(exact, batch.double()), self.dbn_.device).astype(np.float64)

    def transform(self, X: Any) -> np.ndarray:
        """Return the last hidden layer's values after fine-tuning, shape ``(rows, hidden_layer_sizes[-1])``."""
        if self.method != "generative":
            return super().transform(X)
        check_is_fitted(self, "classes_")
        exact = self.dbn_.stack.to(torch.float64)
        return self._map(X, lambda batch: self.dbn_.features(exact, batch.double()), self.dbn_.device)

    def sample(self, n_samples: int = 1, label: Any = None, steps: int = 300, random_state: Any = None) -> np.ndarray:
        """Return means of the data dreamt with the label held fast, shape ``(n_samples, features)``.

        Args:
            n_samples: How many.
            label: One of ``classes_``; None draws labels too.
            steps: Gibbs steps of the top.
            random_state: Seed.

        Raises:
            UsageError: If the classifier has no label units.
        """
        check_is_fitted(self, "classes_")
        if self.method != "generative":
            raise UsageError(
                "DBNClassifier.sample: expected method='generative', got 'discriminative', which models no data. "
                "Fit it with label units."
            )
        code = None if label is None else int(self._encode_targets([label])[0])  # type: ignore[index]
        return self.dbn_.sample(n_samples, code, steps, draw_seed(random_state))

    @property
    def _outputs(self) -> int:
        return len(self.classes_)

    def _loss(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(output, targets)

    def _learn_targets(self, source: Source, targets: Any) -> None:
        if self.method not in METHODS:
            raise UsageError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}. Choose one of them.")
        if targets is None:
            assert isinstance(source, StreamSource)
            targets = np.concatenate([np.asarray(part) for _, part in source.labeled()])
        check_classification_targets(targets)
        known = getattr(self, "_known_classes", None)
        self.classes_ = np.unique(targets) if known is None else known

    def _encode_targets(self, targets: Any) -> np.ndarray | None:
        if targets is None:
            return None
        targets = np.asarray(targets)
        unknown = np.setdiff1d(targets, self.classes_)
        if len(unknown):
            raise UsageError(
                f"DBNClassifier: expected classes among {self.classes_.tolist()}, got {unknown.tolist()} as well. "
                "Name all classes at the first partial_fit."
            )
        return np.searchsorted(self.classes_, targets).astype(np.int64)

    def _dbn_from_content(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Any:
        if self.method != "generative":
            return super()._dbn_from_content(tensors, about)
        made = LabelDBN(self.hidden_layer_sizes, len(self.classes_), self._template(), self._seed)
        made._take_content(tensors, about)
        return made

    def _about_targets(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "kind": self.classes_.dtype.str}

    def _restore_targets(self, about: Mapping[str, Any]) -> None:
        kind = np.dtype(about["kind"])
        self.classes_ = np.array(about["classes"], dtype=kind)
