"""Fits that keep every complete epoch go on exactly, and leave nothing behind."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from steadygrad.boltzmann import DBN, RBM, DBNClassifier
from steadygrad.boltzmann.checkpoint import fit_and_keep, part_of
from steadygrad.errors import DataFileError

X = (np.random.default_rng(0).random((120, 9)) < 0.4).astype(np.float32)


class Interrupted:
    """Batches that break off in the middle of a pass."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[np.ndarray]:
        self.passes -= 1
        for start in range(0, len(X), 40):
            if self.passes < 0:
                raise KeyboardInterrupt
            yield X[start : start + 40]


def test_streams_go_on_and_settings_stay_the_callers(tmp_path: Path) -> None:
    heard: list[int] = []
    rbm = RBM(n_epochs=3, callbacks=[lambda rbm, record: heard.append(record["epoch"])])
    dbn = DBN((5, 4), rbm=rbm, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        fit_and_keep(dbn, Interrupted(5), None, tmp_path / "dbn")
    assert part_of(tmp_path / "dbn").exists()
    assert dbn.rbm is rbm
    again = DBN(np.array([5, 4]), rbm=rbm, random_state=0)
    fit_and_keep(again, Interrupted(100), None, tmp_path / "dbn")
    straight = DBN((5, 4), rbm=RBM(n_epochs=3), random_state=0).fit(Interrupted(100))
    np.testing.assert_array_equal(again.transform(X), straight.transform(X))
    assert heard == [1, 2, 3, 1, 2, 3]
    assert not again.warm_start
    assert list(tmp_path.iterdir()) == [tmp_path / "dbn"]


def test_other_data_do_not_go_on(tmp_path: Path) -> None:
    def stop(classifier: DBNClassifier, record: object) -> None:
        raise KeyboardInterrupt

    classes = X[:, 0].astype(int)
    classifier = DBNClassifier((4,), n_epochs=2, callbacks=[stop], random_state=0)
    with pytest.raises(KeyboardInterrupt):
        fit_and_keep(classifier, X, classes, tmp_path / "dbn")
    classifier.set_params(callbacks=None)
    with pytest.raises(DataFileError, match=r"got others \(data .* there, .* here\)\. Use the same to go on"):
        fit_and_keep(classifier, X[::-1], classes, tmp_path / "dbn")
    fit_and_keep(classifier, X, classes, tmp_path / "dbn")
    assert classifier.epochs_ == 2
    assert pickle.loads(pickle.dumps(classifier)).score(X, classes) == classifier.score(X, classes)
