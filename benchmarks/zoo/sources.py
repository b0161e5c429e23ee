"""The data sets of the zoo, small enough for trainings of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import datasets as sk
from torch import Tensor

from steadygrad.training.datasets import load

VALIDATION = 0.3


@dataclass(frozen=True, eq=False)
class Source:
    """One data set at a healthy scale.

    Attributes:
        name: What it is called.
        form: ``"table"``, ``"image"`` of shape (1, h, w), ``"tokens"``, or ``"pairs"`` of indices.
        task: ``"classes"``, ``"binary"``, ``"labels"`` (several at a time) or ``"real"``.
        inputs: One tensor an argument of the model.
        target: Class indices, zeros and ones, or standardized numbers.
        outputs: Units that the model's output needs.
        scale: What the healthy inputs are multiplied with to get the raw ones.
        shift: What is then added.
        size: Number of different tokens or indices.
    """

    name: str
    form: str
    task: str
    inputs: tuple[Tensor, ...]
    target: Tensor
    outputs: int
    scale: Tensor
    shift: Tensor
    size: int = 0

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return the rows that are learned and those that score, shuffled alike for everyone."""
        order = torch.randperm(len(self.target), generator=torch.Generator().manual_seed(0))
        held = round(VALIDATION * len(order))
        return order[held:], order[:held]


def _table(name: str, x: np.ndarray, y: np.ndarray, task: str, outputs: int = 1) -> Source:
    raw = torch.as_tensor(np.asarray(x), dtype=torch.float32)
    mean, std = raw.mean(0), raw.std(0).clamp_min(1e-6)
    target = torch.as_tensor(np.asarray(y), dtype=torch.int64 if task == "classes" else torch.float32)
    if task == "real":
        target = (target - target.mean()) / target.std()
    if task in ("real", "binary"):
        target = target.reshape(-1, 1)
    return Source(name, "table", task, ((raw - mean) / std,), target, outputs, std, mean)


def _images(name: str, pixels: Tensor, target: Tensor) -> Source:
    """Pixels in [0, 1]; raw ones run to 255."""
    return Source(name, "image", "classes", (pixels,), target, 10, torch.tensor(255.0), torch.tensor(0.0))


def _digits() -> Source:
    data = sk.load_digits()
    pixels = torch.as_tensor(data.images, dtype=torch.float32)[:, None] / 16
    return _images("digits", pixels, torch.as_tensor(data.target))


def _pooled(name: str) -> Source:
    x, y = load(name).train
    return _images(name, F.avg_pool2d(x[:2600].reshape(-1, 1, 28, 28), 4), y[:2600])


def _housing() -> Source:
    """Eight features on the scales of the California housing table, and prices, made by formula."""
    g = np.random.default_rng(0)
    n = 2000
    income, rooms = np.exp(0.5 * g.normal(size=n) + 1.2), np.exp(0.3 * g.normal(size=n) + 1.6)
    age, bedrooms = 1 + 51 * g.random(n), rooms / 5 + 0.1 * np.abs(g.normal(size=n))
    population, occupancy = np.exp(0.8 * g.normal(size=n) + 7), np.exp(0.25 * g.normal(size=n) + 1)
    north, east = 32.5 + 9.5 * g.random(n), -124.3 + 10 * g.random(n)
    hills = sum(np.exp(-((north - a) ** 2 + (east - b) ** 2) / 2) for a, b in ((34.0, -118.2), (37.8, -122.4)))
    price = 40e3 * income + 90e3 * hills - 8e3 * occupancy + 600 * age + 5e3 * (rooms - 2 * bedrooms)
    x = np.stack([income, age, rooms, bedrooms, population, occupancy, north, east], 1)
    return _table("housing", x, price * (1 + 0.1 * g.normal(size=n)), "real")


def _counted_tokens() -> Source:
    """Which of four marks occurs most often among noise."""
    g = torch.Generator().manual_seed(1)
    target = torch.randint(0, 4, (2000,), generator=g)
    x = torch.randint(0, 20, (2000, 12), generator=g)
    places = torch.rand(2000, 12, generator=g).argsort(1)[:, :4]
    x.scatter_(1, places, target[:, None].expand(-1, 4).contiguous())
    return Source("counted tokens", "tokens", "classes", (x,), target, 4, torch.ones(()), torch.zeros(()), 20)


def _ordered_tokens() -> Source:
    """Whether the one mark stands before or after the other, at the ends of a noisy sequence."""
    g = torch.Generator().manual_seed(2)
    target = torch.randint(0, 2, (2000,), generator=g)
    x = torch.randint(2, 20, (2000, 10), generator=g)
    early, late = torch.randint(0, 4, (2000, 1), generator=g), torch.randint(6, 10, (2000, 1), generator=g)
    x.scatter_(1, early, target[:, None]).scatter_(1, late, 1 - target[:, None])
    return Source("ordered tokens", "tokens", "classes", (x,), target, 2, torch.ones(()), torch.zeros(()), 20)


def _ratings(name: str, seed: int, rank: int) -> Source:
    """Noisy ratings of a low-rank taste."""
    g = torch.Generator().manual_seed(seed)
    users, items = (torch.randint(0, 40, (4000,), generator=g) for _ in range(2))
    tastes, traits = (torch.randn(40, rank, generator=g) for _ in range(2))
    rating = (tastes[users] * traits[items]).sum(1) + 0.1 * torch.randn(4000, generator=g)
    rating = ((rating - rating.mean()) / rating.std()).reshape(-1, 1)
    return Source(name, "pairs", "real", (users, items), rating, 1, torch.ones(()), torch.zeros(()), 40)


def _tags() -> Source:
    x, y = sk.make_multilabel_classification(1800, 20, n_classes=5, random_state=0)
    return _table("tags", x, y, "labels", 5)


def _copied(source: Source, name: str) -> Source:
    """Return images that are their own target."""
    pixels = source.inputs[0].flatten(1)
    return Source(name, "table", "real", (pixels,), pixels, pixels.shape[1], source.scale, source.shift)


_MAKERS: dict[str, Callable[[], Source]] = {
    "digits": _digits,
    "wine": lambda: _table("wine", *sk.load_wine(return_X_y=True), "classes", 3),
    "housing": _housing,
    "moons": lambda: _table("moons", *sk.make_moons(1500, noise=0.15, random_state=0), "binary"),
    "counted tokens": _counted_tokens,
    "ratings": lambda: _ratings("ratings", 3, 1),
    "copied digits": lambda: _copied(source("digits"), "copied digits"),
    "breast cancer": lambda: _table("breast cancer", *sk.load_breast_cancer(return_X_y=True), "binary"),
    "mnist": lambda: _pooled("mnist"),
    "fashion-mnist": lambda: _pooled("fashion-mnist"),
    "friedman": lambda: _table("friedman", *sk.make_friedman1(2000, noise=0.5, random_state=0), "real"),
    "ordered tokens": _ordered_tokens,
    "rank-2 ratings": lambda: _ratings("rank-2 ratings", 4, 2),
    "tags": _tags,
}


@lru_cache
def source(name: str) -> Source:
    """Return a data set by name."""
    return _MAKERS[name]()
