"""The RBM estimator: scikit-learn's contract, forms of data, exact resume, and what it learns."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from steadygrad.boltzmann import RBM
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.gibbs import gibbs
from steadygrad.boltzmann.joint import Joint
from steadygrad.boltzmann.likelihood import exact_log_z
from steadygrad.boltzmann.units import Bernoulli, Gaussian, Softmax
from steadygrad.errors import DataFileError, SetupError, UsageError

X = (load_digits().data > 7).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@parametrize_with_checks([RBM(n_components=5, n_epochs=2, random_state=0)])
def test_sklearns_contract(estimator: RBM, check: object) -> None:
    check(estimator)


def small(**settings: object) -> RBM:
    return RBM(**{"n_components": 12, "n_epochs": 3, "random_state": 0, **settings})


def test_every_form_of_data_gives_the_same_machine(tmp_path: Path) -> None:
    rows = X[:300]
    np.save(tmp_path / "rows.npy", rows.astype(np.uint8))
    forms = {
        "float64": rows.astype(np.float64),
        "bytes": rows.astype(np.uint8),
        "mapped": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "sparse": sparse.csr_matrix(rows),
        "tensor": torch.from_numpy(rows),
        "list": rows.tolist(),
    }
    wanted = small().fit(rows)
    for name, form in forms.items():
        found = small().fit(form)
        assert torch.equal(found.machine_.weight, wanted.machine_.weight), name
        np.testing.assert_allclose(found.transform(form), wanted.transform(rows), atol=1e-6, err_msg=name)


def test_a_stream_of_batches_is_read_in_its_order() -> None:
    class Stream:
        def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
            yield from ((torch.from_numpy(X[i : i + 90]), i) for i in range(0, 540, 90))

    rbm = small(batch_size=45).fit(Stream())
    assert rbm.epochs_ == 3
    np.testing.assert_allclose(rbm.transform(Stream()), rbm.transform(X[:540]), atol=1e-6)


@pytest.mark.slow
def test_pipelines_searches_and_data_frames() -> None:
    y = load_digits().target
    pipeline = make_pipeline(
        RBM(n_components=64, n_epochs=15, batch_size=10, random_state=0), LogisticRegression(max_iter=300)
    )
    assert pipeline.fit(X[:1200], y[:1200]).score(X[1200:], y[1200:]) > 0.85
    search = GridSearchCV(small(n_epochs=20, batch_size=20), {"n_components": [1, 12]}, cv=2).fit(X)
    assert search.best_params_ == {"n_components": 12}
    names = clone(search.best_estimator_).set_output(transform="default").fit(X).get_feature_names_out()
    assert list(names[:2]) == ["rbm0", "rbm1"]


def exact(rbm: RBM) -> float:
    likelihood = rbm.log_likelihood(X)
    assert likelihood.log_z.exact
    return likelihood.mean


def sklearn_exact(rows: np.ndarray) -> float:
    """Return the exact mean log-likelihood of scikit-learn's machine with the same sizes and batches."""
    theirs = BernoulliRBM(n_components=14, batch_size=100, n_iter=30, random_state=0).fit(rows)
    bias, hidden = (torch.from_numpy(part).double() for part in (theirs.intercept_visible_, theirs.intercept_hidden_))
    machine = Machine(torch.from_numpy(theirs.components_.T).double(), Bernoulli(bias), Bernoulli(hidden))
    return float(-machine.free_energy(torch.from_numpy(X).double()).mean()) - exact_log_z(machine)


@pytest.mark.parametrize("method", ["cd", "pcd"])
def test_a_remainder_batch_changes_nothing_where_sklearns_machine_is_ruined(method: str) -> None:
    settings = {"n_components": 14, "n_epochs": 30, "method": method, "learning_rate": 0.1}
    whole, more = (exact(small(**settings).fit(X[:rows])) for rows in (1700, 1701))
    assert abs(whole - more) < 0.5
    assert whole > -25.2  # what independent pixels reach
    theirs, ruined = sklearn_exact(X[:1700]), sklearn_exact(X[:1701])
    assert theirs - ruined > 30
    assert whole > theirs - 0.5


@pytest.mark.parametrize("chunk", [1700, 233, 100, 37])
def test_partial_fit_takes_chunks_of_any_size(chunk: int) -> None:
    def after(size: int) -> float:
        rbm = small(n_components=14)
        order = np.random.default_rng(0).permutation(1700)
        for _ in range(8):
            for start in range(0, 1700, size):
                assert rbm.partial_fit(X[order[start : start + size]]) is rbm
        return exact(rbm)

    assert after(chunk) == pytest.approx(after(850), abs=0.5)


@pytest.mark.parametrize("method", ["cd", "pcd", "pt"])
def test_training_goes_on_exactly_after_saving(method: str, tmp_path: Path) -> None:
    settings = {"method": method, "momentum": {0: 0.5, 2: 0.9}, "learning_rate": 0.05, "n_epochs": 4, "replicas": 3}
    straight = small(**settings).fit(X[:450])
    half = small(**settings | {"n_epochs": 2}).fit(X[:450])
    half.save(tmp_path / "rbm.safetensors")
    loaded = RBM.load(tmp_path / "rbm.safetensors")
    assert loaded.momentum == {0: 0.5, 2: 0.9}
    np.testing.assert_array_equal(loaded.score_samples(X), half.score_samples(X))
    loaded.set_params(warm_start=True, n_epochs=4).fit(X[:450])
    assert torch.equal(loaded.machine_.weight, straight.machine_.weight)
    assert [record["epoch"] for record in loaded.history_] == [1, 2, 3, 4]
    copied = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(copied.sample(3, steps=2, random_state=1), loaded.sample(3, steps=2, random_state=1))


def test_an_interruption_keeps_the_last_complete_epoch() -> None:
    class Interrupting:
        passes = 0

        def __iter__(self) -> Iterator[np.ndarray]:
            self.passes += 1
            for start in range(0, 400, 100):
                if self.passes == 5 and start == 200:  # one look at the first batch, one at all, two epochs
                    raise KeyboardInterrupt
                yield X[start : start + 100]

    stream = Interrupting()
    rbm = small(n_epochs=4)
    with pytest.raises(KeyboardInterrupt):
        rbm.fit(stream)
    assert 1 <= rbm.epochs_ < 4
    rbm.set_params(warm_start=True).fit(stream)
    assert torch.equal(rbm.machine_.weight, small(n_epochs=4).fit(Interrupting2()).machine_.weight)


class Interrupting2:
    def __iter__(self) -> Iterator[np.ndarray]:
        yield from (X[start : start + 100] for start in range(0, 400, 100))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.full((5, 4), np.nan), "contains NaN"),
        (np.zeros((0, 4)), "0 sample"),
        (np.full((5, 4), 3.0), r"expected entries in \[0, 1\] for bernoulli units, got 3 to 3"),
        ([np.full((5, 4), np.nan)], "expected finite numbers, got NaN"),
        ([np.zeros((0, 4))], "at least one row, got none"),
        ([np.zeros((2, 4)), np.zeros((2, 5))], "expected batches of 4 features, got one of 5"),
        (iter([np.zeros((2, 4))]), "read again and again, got a list_iterator"),
    ],
)
def test_bad_data_are_named_before_anything_is_trained(rows: object, message: str) -> None:
    rbm = small(visible="bernoulli")
    with pytest.raises(ValueError, match=message):
        rbm.fit(rows)
    assert not hasattr(rbm, "machine_")


def test_wrong_widths_ranges_and_settings_are_named() -> None:
    rbm = small().fit(X[:50])
    before = rbm.machine_.weight.clone()
    for call in (rbm.transform, rbm.partial_fit, rbm.score_samples):
        with pytest.raises(ValueError, match="expecting 64 features"):
            call(X[:5, :3])
    with pytest.raises(UsageError, match=r"expected entries in \[0, 1\]"):
        rbm.partial_fit(X[:5] * 2)
    with pytest.raises(UsageError, match=r"expected entries in \[0, 1\]"):
        rbm.score_samples(X[:5] * 2)
    assert torch.equal(before, rbm.machine_.weight)
    with pytest.raises(UsageError, match="method: expected one of cd, pcd, pt, got 'gibbs'"):
        small(method="gibbs").fit(X)
    with pytest.raises(UsageError, match="batch_size: expected a whole number of at least 1, got 0"):
        small(batch_size=0).fit(X)
    with pytest.raises(UsageError, match="precision: expected 'auto'"):
        small(precision="fp8").fit(X)
    with pytest.raises(UsageError, match=r"learning_rate: expected numbers of at least 0 and finite, got -1"):
        small(learning_rate=-1).fit(X)
    with pytest.raises(UsageError, match=r"weight_scale: expected numbers of at least 0 and finite, got nan"):
        small(weight_scale=float("nan")).fit(X)
    with pytest.raises(UsageError, match=r"momentum: expected numbers of at least 0 and below 1, got \{0: 0.5, 5: 1\}"):
        small(momentum={0: 0.5, 5: 1}).fit(X)
    with pytest.raises(UsageError, match="add up to the 64 features"):
        small(visible=[("bernoulli", 60)]).fit(X)


def test_a_learning_rate_that_diverges_is_named_and_the_last_epoch_kept() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 10)).astype(np.float32) * 5
    rbm = small(visible="gaussian", hidden="relu", learning_rate={0: 0.001, 1: 0.001, 2: 1e9}, n_epochs=4)
    with pytest.raises(SetupError, match="learning diverged at a learning rate of"):
        rbm.fit(rows)
    assert rbm.epochs_ >= 1
    assert np.isfinite(rbm.transform(rows)).all()


def test_files_of_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="expected a RBM that was saved here"):
        RBM.load(tmp_path / "none")
    (tmp_path / "text").write_text("no")
    with pytest.raises(DataFileError, match="expected a RBM that was saved here"):
        RBM.load(tmp_path / "text")


def test_early_stopping_watches_the_free_energy_gap() -> None:
    settings = {"n_components": 60, "n_epochs": 300, "learning_rate": 0.3, "batch_size": 10}
    rbm = small(**settings, early_stopping=True, validation_fraction=0.3).fit(X[:60])
    assert rbm.epochs_ < 300
    assert rbm.history_[-1]["free_energy_gap"] > rbm.history_[0]["free_energy_gap"]
    assert max(record["pseudo_log_likelihood"] for record in rbm.history_) > rbm.history_[0]["pseudo_log_likelihood"]
    stopped = rbm.epochs_
    assert rbm.set_params(warm_start=True).fit(X[:60]).epochs_ == stopped  # nothing new was learned


def test_callbacks_see_every_epoch_and_can_save(tmp_path: Path) -> None:
    seen: list[float] = []

    def watch(rbm: RBM, record: dict[str, float]) -> None:
        seen.append(record["update_ratio"])
        rbm.save(tmp_path / "checkpoint")

    small(callbacks=[watch]).fit(X[:100])
    assert len(seen) == 3
    assert all(0 < ratio < 1 for ratio in seen)
    assert RBM.load(tmp_path / "checkpoint").epochs_ == 3


def test_a_gaussian_machine_is_recovered() -> None:
    """Data of a known machine in odd units; the learned one explains new data nearly as well."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.linalg.qr(torch.randn(8, 3, generator=generator)).Q * 3
    hidden = Bernoulli(-weight.square().sum(0) / 2)  # each hidden unit is on about half of the time
    known = Machine(weight, Gaussian(torch.randn(8, generator=generator), torch.zeros(8)), hidden)
    drawn = gibbs(known, torch.zeros(6000, 8), 60, generator)
    train, test = drawn[:4000], drawn[4000:]
    wanted = float(-known.free_energy(test).mean()) - exact_log_z(known)
    unit, origin = 10.0, 300.0
    rbm = small(n_components=3, visible="gaussian", n_epochs=30, learning_rate={0: 0.2, 30: 0.0})
    rbm.fit(train * unit + origin)
    found = rbm.score(test * unit + origin) + 8 * np.log(unit)
    independent = float(torch.distributions.Normal(train.mean(0), train.std(0)).log_prob(test).sum(1).mean())
    assert wanted - independent > 0.5
    assert found == pytest.approx(wanted, abs=0.15)
    np.testing.assert_allclose(rbm.machine_.visible.sigma.numpy(), unit, rtol=0.15)


def test_a_label_machine_is_recovered() -> None:
    generator = torch.Generator().manual_seed(0)
    known = Machine(
        torch.randn(12, 4, generator=generator) * 1.5,
        Joint(Bernoulli(torch.randn(9, generator=generator)), Softmax(torch.zeros(3), 3)),
        Bernoulli(torch.zeros(4)),
    )
    start = torch.cat([torch.zeros(6000, 9), torch.eye(3)[torch.arange(6000) % 3]], 1)
    drawn = gibbs(known, start, 60, generator)
    train, test = drawn[:4000], drawn[4000:]
    wanted = float(-known.free_energy(test).mean()) - exact_log_z(known)
    parts = [("bernoulli", 9), ("softmax", 3)]
    rbm = small(n_components=4, visible=parts, n_epochs=80, learning_rate={0: 0.1, 80: 0.0}).fit(train)
    assert rbm.score(test) == pytest.approx(wanted, abs=0.15)
    assert (rbm.sample(50, steps=5, random_state=0)[:, 9:].sum(1) == 1).all()
    with pytest.raises(UsageError, match="expected one 1 among the 3 softmax units"):
        small(visible=parts).fit(torch.zeros(5, 12))


def test_sampling_gibbs_and_reconstruction() -> None:
    rbm = small(n_components=40, n_epochs=20, batch_size=20).fit(X)
    sample = rbm.sample(200, steps=50, random_state=1)
    assert set(np.unique(sample)) <= {0.0, 1.0}
    assert np.abs(sample.mean(0) - X.mean(0)).mean() < 0.1
    assert rbm.gibbs(X[:5], steps=2, random_state=0).shape == (5, 64)
    back = rbm.inverse_transform(rbm.transform(X))
    assert np.square(back - X).mean() < 0.6 * np.square(X.mean(0) - X).mean()
    assert rbm.pseudo_log_likelihood(X[:20]).mean() > -20
    with pytest.raises(UsageError, match="expected 40 hidden units, got 3"):
        rbm.inverse_transform(np.zeros((1, 3)))


def test_rectified_hidden_units_learn_features_and_decline_likelihoods() -> None:
    y = load_digits().target
    rbm = small(n_components=64, hidden="relu", method="cd", n_epochs=20, learning_rate=0.02, batch_size=10).fit(
        X[:1200]
    )
    features = LogisticRegression(max_iter=500).fit(rbm.transform(X[:1200]), y[:1200])
    assert features.score(rbm.transform(X[1200:]), y[1200:]) > 0.85
    with pytest.raises(UsageError, match="got noisy ReLU units"):
        rbm.score_samples(X)
