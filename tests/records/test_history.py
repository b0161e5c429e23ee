"""A history keeps columns by step and layer, stays within its memory, and survives a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steadygrad.errors import DataFileError, UsageError
from steadygrad.records import History
from steadygrad.records.history import LAYER_STATISTICS


def filled(looks: int, layers: int = 2, **settings: int) -> History:
    history = History([f"layer{i}" for i in range(layers)], **settings)
    for step in range(looks):
        history.append(step, {"loss": float(step), "grad_norm": 2.0}, {"grad_norm": np.arange(layers) + step})
    return history


def test_columns_hold_what_was_appended() -> None:
    history = filled(100)
    assert history.steps.tolist() == list(range(100))
    assert history.column("grad_norm")[7].tolist() == [7.0, 8.0]
    assert history.column("loss", of="step")[99] == 99.0
    assert np.isnan(history.column("update_ratio")).all()


def test_an_observation_has_none_where_nothing_was_seen() -> None:
    history = History(["fc"])
    history.append(
        5,
        {"loss": 1.0, "grad_norm": 3.0},
        {"grad_rms": [0.25], "output_numel": [8], "output_rms": [2.0], "output_nonfinite": [0]},
    )
    seen = history.at(5)
    (fc,) = seen.layers
    assert (seen.step, seen.loss, seen.grad_norm) == (5, 1.0, 3.0)
    assert fc.weight_grad is not None
    assert fc.weight_grad.rms == 0.25
    assert fc.output is not None
    assert fc.output.rms == 2.0
    assert (fc.update_ratio, fc.signal, fc.weight, fc.output_grad) == (None, None, None, None)


def test_a_million_looks_stay_within_the_limit_and_keep_the_recent_past_dense() -> None:
    limit = 200_000
    history = History(["fc"], limit=limit)
    values = np.ones((1, len(LAYER_STATISTICS)))
    for step in range(100_000):
        history.append(step, {}, values)
    assert history.nbytes <= limit * 1.1
    steps = history.steps
    assert steps[0] == 0
    assert steps[-1] == 99_999
    assert (np.diff(steps) > 0).all()
    assert (np.diff(steps[-100:]) == 1).all()
    assert np.diff(steps[:3]).min() > 100


def test_layers_may_come_later() -> None:
    history = filled(3)
    history.add_layers(["new", "layer0"])
    history.append(3, {}, {"grad_norm": [1, 2, 3]})
    assert history.layers == ("layer0", "layer1", "new")
    assert np.isnan(history.column("grad_norm")[:3, 2]).all()
    assert history.column("grad_norm")[3, 2] == 3


def test_a_file_brings_everything_back(tmp_path: Path) -> None:
    history = filled(70)
    history.save(tmp_path / "history.npz")
    again = History.load(tmp_path / "history.npz")
    assert again.layers == history.layers
    np.testing.assert_array_equal(again.column("grad_norm"), history.column("grad_norm"))
    np.testing.assert_array_equal(again.steps, history.steps)


def test_wrong_use_is_told(tmp_path: Path) -> None:
    history = filled(3)
    with pytest.raises(UsageError, match="expected a step after 2, got 2"):
        history.append(2, {}, {})
    with pytest.raises(UsageError, match="got 'nonsense'"):
        history.column("nonsense")
    with pytest.raises(UsageError, match=r"got 7\. The nearest one is at step 2"):
        history.at(7)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataFileError, match="expected the history of a run"):
        History.load(tmp_path / "broken.npz")
