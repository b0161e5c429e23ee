"""What the whole suite shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from torch.overrides import _get_current_function_mode_stack

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it once, when it is imported

torch.set_num_threads(1)  # small networks run faster on one core, and sums come out alike on every machine

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")

_CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return _CHECKOUT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets: ``STEADYGRAD_DATA``, else ``../shared/data`` beside the checkout."""
    place = os.environ.get("STEADYGRAD_DATA")
    folder = Path(place) if place else _CHECKOUT.parent / "shared" / "data"
    if not (folder / "mnist").is_dir():
        pytest.skip("needs the real MNIST files: set STEADYGRAD_DATA to a folder that holds mnist/")
    return folder


@pytest.fixture(autouse=True)
def _no_function_mode_is_left_behind() -> Iterator[None]:
    """A recorder that a test, or what it tests, forgot would see everything that runs after it."""
    yield
    left = _get_current_function_mode_stack()
    assert not left, f"left behind: {left}"
