"""Article 004: a network of two hidden layers in Keras, here Keras 3 on PyTorch.

What was corrected: the last layer gives logits, because the loss applies the softmax (the article applies it twice);
labels depend on the inputs (the article draws them at random, so that nothing can be learned); the loop is ``fit`` in
place of iterators that no longer exist; labels are compared as the class numbers they are; gradients are clipped, which
the article speaks of and does not do.

    python -m experiments.articles.keras_network
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

ROWS, TEST_ROWS, FEATURES, CLASSES = 1000, 200, 100, 10


def data(rows: int, truth: np.ndarray, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs ``(rows, features)`` in [0, 1] and the class that a linear rule gives each."""
    x = chance.random((rows, FEATURES), dtype=np.float32)
    return x, (x - 0.5) @ truth


def network(head: str | None = None, seed: int = 0) -> keras.Model:
    """Return the article's network; ``head="softmax"`` is the article's own, wrong in front of a loss on logits."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(CLASSES, activation=head),
        ]
    )


def accuracy(head: str | None = None, epochs: int = 10, seed: int = 0) -> float:
    """Return the share of right answers on held-out data after training."""
    chance = np.random.default_rng(seed)
    truth = chance.standard_normal((FEATURES, CLASSES))
    (x, scores), (x_test, test_scores) = (data(rows, truth, chance) for rows in (ROWS, TEST_ROWS))
    model = network(head, seed)
    model.compile(
        optimizer=keras.optimizers.Adam(0.001, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, scores.argmax(1), batch_size=32, epochs=epochs, verbose=0)
    return float(model.evaluate(x_test, test_scores.argmax(1), verbose=0)[1])


def main() -> None:
    """Print the accuracy of the corrected network and of the article's."""
    print(f"logits: {accuracy():.3f} of held-out answers are right")
    print(f"softmax twice, as printed: {accuracy('softmax'):.3f}")


if __name__ == "__main__":
    main()
