"""MNIST: pretrained and fine-tuned networks, and the likelihood of an RBM. Resumable: run it again and it goes on.

    python benchmarks/mnist_dbn.py classify [--dropout] [--seeds 0 1 2] [--validate] [--folder runs]
    python benchmarks/mnist_dbn.py pretrain-time
    python benchmarks/mnist_dbn.py likelihood [--chains 500]

`classify` trains 784-500-500-2000-10; `--validate` trains on the first 50,000 images and scores the other 10,000 of the
training set, which is what settings are chosen on; without it all 60,000 are used and the test set is scored once.
`pretrain-time` times 3 x 1000 units (published: 615 minutes on four cores). `likelihood` trains 500 hidden units by PCD
on images whose pixels are drawn anew at every pass with their gray value as probability, and estimates the test
log-likelihood of such drawn images by AIS. `--rows` and the epochs make a small run of any of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadygrad.boltzmann import DBN, RBM, DBNClassifier
from steadygrad.errors import DataFileError
from steadygrad.training.datasets import load

SIZES = (500, 500, 2000)
HELD_OUT = 10_000


class DrawnImages:
    """Batches of images whose pixels are drawn with their gray values as probabilities, anew at every pass."""

    def __init__(self, gray: torch.Tensor, batch: int, seed: int) -> None:
        self.gray, self.batch, self.seed, self.passes = gray, batch, seed, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed + self.passes)
        self.passes += 1
        for index in torch.randperm(len(self.gray), generator=generator).split(self.batch):
            rows = self.gray[index]
            yield (torch.rand(rows.shape, generator=generator) < rows).float()


def saving(estimator: Any, path: Path) -> Callable[[object, Mapping[str, float]], None]:
    def callback(_: object, record: Mapping[str, float]) -> None:
        estimator.save(path)
        print(f"  {path.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in record.items()), flush=True)

    return callback


def resumed(kind: type, path: Path) -> Any:
    try:
        return kind.load(path)
    except DataFileError:
        return None


def pretrained(options: argparse.Namespace, x: np.ndarray, seed: int, mark: str) -> DBN:
    """Return the layers learned without labels; trainings with and without dropout share them."""
    path = options.folder / f"pretrained{mark}-{seed}.safetensors"
    epochs = options.pretrain_epochs
    rbm = RBM(method="cd", n_epochs=epochs, momentum={0: 0.5, 5: 0.9}, weight_decay=2e-4,
              learning_rate={0: options.pretrain_rate, epochs: 0.0})  # fmt: skip
    dbn = resumed(DBN, path) or DBN(SIZES, rbm=rbm, random_state=seed)
    start = time.process_time()
    dbn.set_params(warm_start=True, rbm=rbm.set_params(callbacks=[saving(dbn, path)])).fit(x)
    dbn.save(path)
    print(f"seed {seed}: pretrained, {time.process_time() - start:.0f} CPU seconds in this run", flush=True)
    return dbn.set_params(rbm=rbm.set_params(callbacks=None))


def classify(options: argparse.Namespace) -> None:
    data = load("mnist")
    x, y = (part[: options.rows].numpy() for part in data.train)
    test = tuple(part.numpy() for part in data.test)
    if options.validate:
        held = min(HELD_OUT, len(x) // 5)
        x, y, test = x[:-held], y[:-held], (x[-held:], y[-held:])
    errors, mark = [], "-validate" if options.validate else ""
    dropout = {"dropout": 0.5, "input_dropout": 0.2} if options.dropout else {}
    for seed in options.seeds:
        dbn = pretrained(options, x, seed, mark)
        path = options.folder / f"classifier{'-dropout' if options.dropout else ''}{mark}-{seed}.safetensors"
        classifier = resumed(DBNClassifier, path) or DBNClassifier.from_dbn(
            dbn,
            learning_rate=options.learning_rate,
            batch_size=options.tune_batch,
            optimizer=options.optimizer,
            weight_decay=options.weight_decay,
            clip=None,
            **dropout,
        )
        start = time.process_time()
        classifier.set_params(n_epochs=options.epochs, callbacks=[saving(classifier, path)]).fit(x, y)
        errors.append(100 * (1 - classifier.score(*test)))
        print(f"seed {seed}: {errors[-1]:.2f} %, fine-tuned {time.process_time() - start:.0f} CPU seconds in this run")
    where = "validation" if options.validate else "test"
    print(f"{where} error {statistics.mean(errors):.2f} % over {len(errors)} seeds, {errors}", flush=True)


def pretrain_time(options: argparse.Namespace) -> None:
    x = load("mnist").train[0][: options.rows].numpy()
    rbm = RBM(method="cd", n_epochs=options.pretrain_epochs, batch_size=options.batch_size, learning_rate=0.01)
    start = time.perf_counter()
    DBN((1000, 1000, 1000), rbm=rbm, random_state=0, verbose=True).fit(x)
    minutes = (time.perf_counter() - start) / 60
    print(f"3 x 1000, {options.pretrain_epochs} epochs a layer, batch {options.batch_size}, {len(x)} rows: "
          f"{minutes:.1f} minutes (published: 615 minutes, 100 epochs, batch 10)")  # fmt: skip


def likelihood(options: argparse.Namespace) -> None:
    data = load("mnist")
    train, test = data.train[0][: options.rows], data.test[0]
    drawn = (torch.rand(test.shape, generator=torch.Generator().manual_seed(1)) < test).float().numpy()
    path = options.folder / "likelihood.safetensors"
    rbm = resumed(RBM, path) or RBM(500, visible="bernoulli", n_epochs=options.epochs, k=options.k, random_state=0)
    stream = DrawnImages(train, rbm.batch_size, seed=0)
    stream.passes = 2 + getattr(rbm, "epochs_", 0)
    rbm.set_params(warm_start=True, n_epochs=options.epochs, callbacks=[saving(rbm, path)])
    start = time.perf_counter()
    rbm.fit(stream)
    print(
        f"trained {rbm.epochs_} epochs, {time.perf_counter() - start:.0f} s in this run; pixels drawn with gray values"
    )
    settings = {"chains": options.chains, "temperatures": options.temperatures, "most_temperatures": 64_000}
    found = rbm.log_likelihood(drawn, least_ess=min(50, options.chains / 2), **settings)
    print(f"test log-likelihood: {found}; estimate {found.estimate:.2f}, log Z {found.log_z}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["classify", "pretrain-time", "likelihood"])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrain-epochs", type=int, default=15)
    parser.add_argument("--pretrain-rate", type=float, default=0.2)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--tune-batch", type=int, default=200)
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="L2 penalty of fine-tuning")
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--chains", type=int, default=500)
    parser.add_argument("--temperatures", type=int, default=8000)
    parser.add_argument("--dropout", action="store_true")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    {"classify": classify, "pretrain-time": pretrain_time, "likelihood": likelihood}[options.what](options)


if __name__ == "__main__":
    main()
