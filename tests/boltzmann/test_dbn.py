"""Deep belief networks: the bound against enumeration, up-down learning, classifiers and regressors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from steadygrad import Monitor
from steadygrad.boltzmann import DBN, RBM, DBNClassifier, DBNRegressor
from steadygrad.boltzmann.energy import Machine
from steadygrad.boltzmann.likelihood import exact_log_z
from steadygrad.boltzmann.stack import Stack
from steadygrad.boltzmann.units import Bernoulli
from steadygrad.errors import UsageError

X = (load_digits().data / 16).astype(np.float32)
Y = load_digits().target
QUICK = RBM(n_epochs=5, batch_size=20, method="cd", momentum={0: 0.5, 2: 0.9})
BRIEF = RBM(n_epochs=3, batch_size=10, learning_rate=0.1, method="cd")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@parametrize_with_checks([DBN((5, 3), rbm=RBM(n_epochs=2), random_state=0)])
def test_sklearns_contract(estimator: DBN, check: object) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        DBNClassifier((16,), rbm=BRIEF, n_epochs=10, batch_size=10, learning_rate=0.03, random_state=0),
        DBNClassifier((16,), rbm=clone(BRIEF).set_params(n_epochs=20), method="generative", n_epochs=1, random_state=0),
        DBNRegressor((16,), rbm=BRIEF, n_epochs=10, batch_size=10, learning_rate=0.03, random_state=0),
    ]
)
def test_sklearns_contract_of_predictors(estimator: DBNClassifier, check: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def small_stack(seed: int) -> Stack:
    generator = torch.Generator().manual_seed(seed)

    def machine(visible: int, hidden: int) -> Machine:
        draw = [
            torch.randn(*shape, generator=generator).double() for shape in ((visible, hidden), (visible,), (hidden,))
        ]
        return Machine(draw[0] * 0.5, Bernoulli(draw[1]), Bernoulli(draw[2]))

    return Stack.tied([machine(5, 4), machine(4, 3)])


def test_the_bound_lies_below_the_exact_likelihood_and_its_weights_average_to_it() -> None:
    stack = small_stack(0)
    v, h = (Bernoulli(torch.zeros(n).double()).all_states(0, 2**n) for n in (5, 4))
    log_h = -stack.top.free_energy(h) - exact_log_z(stack.top)
    field = stack.down[0].visible_field(h)
    joint = torch.stack([stack.down[0].visible.log_prob(row.expand(len(h), -1), field) + log_h for row in v])
    exact = torch.logsumexp(joint, 1)
    assert float(exact.exp().sum()) == pytest.approx(1)
    weights = stack.log_weights(v, 3000, seed=0) - exact_log_z(stack.top)
    assert (weights.mean(0) <= exact + 0.1).all()
    averaged = torch.logsumexp(weights, 0) - np.log(3000)
    torch.testing.assert_close(averaged, exact, atol=0.3, rtol=0)


def test_up_down_learning_raises_the_bound_of_a_damaged_model() -> None:
    data = (X > 0.4).astype(np.float32)
    dbn = DBN((40, 15), rbm=RBM(n_epochs=15, batch_size=20, learning_rate=0.05), random_state=0).fit(data)
    dbn.stack_.down[0].weight.mul_(0.3)  # what generates no longer fits what infers
    before = dbn.score(data)
    dbn.set_params(warm_start=True, up_down_epochs=5, up_down_rate=0.05).fit(data)
    assert dbn.score(data) > before + 1


def test_a_dbn_encodes_decodes_samples_and_exports(tmp_path: Path) -> None:
    data = (X > 0.4).astype(np.float32)
    dbn = DBN((40, 15), rbm=QUICK, up_down_epochs=1, random_state=0).fit(data)
    network = dbn.to_sequential(torch.nn.Linear(15, 10))
    np.testing.assert_allclose(network[:-1](torch.from_numpy(data)).detach(), dbn.transform(data), atol=1e-6)
    assert dbn.inverse_transform(dbn.transform(data)).shape == data.shape
    assert dbn.sample(3, steps=2, random_state=0).shape == (3, 64)
    assert dbn.gibbs(data[:4], random_state=0).shape == (4, 64)
    assert list(dbn.get_feature_names_out()[:2]) == ["dbn0", "dbn1"]
    bound = dbn.bound(data[:100])
    assert bound.log_z.exact
    assert bound.mean == pytest.approx(dbn.score(data[:100]), abs=1e-4)
    dbn.save(tmp_path / "dbn")
    again = DBN.load(tmp_path / "dbn")
    np.testing.assert_array_equal(again.score_samples(data[:9]), dbn.score_samples(data[:9]))
    assert (dbn.score_samples(data[:9]) == dbn.score_samples(data)[:9]).all()


def test_upper_layers_begin_with_weights_that_are_large_enough_to_learn() -> None:
    still = RBM(n_epochs=1, learning_rate=0.0)
    scales = [float(rbm.machine_.weight.std()) for rbm in DBN((100, 80), rbm=still, random_state=0).fit(X[:50]).rbms_]
    assert scales == pytest.approx([0.3 / 8, 0.1], rel=0.05)
    wanted = clone(still).set_params(weight_scale=0.02)
    assert float(DBN((100, 80), rbm=wanted).fit(X[:50]).rbms_[1].machine_.weight.std()) == pytest.approx(0.02, rel=0.05)


def test_gaussian_inputs_are_folded_into_the_exported_network() -> None:
    rows = X * 30 + 5
    dbn = DBN((20, 10), rbm=QUICK, random_state=0).fit(rows)
    np.testing.assert_allclose(dbn.to_sequential()(torch.from_numpy(rows)).detach(), dbn.transform(rows), atol=1e-4)


def test_pretraining_goes_on_exactly_and_streams_give_what_arrays_give() -> None:
    class Stream:
        def __iter__(self) -> Iterator[np.ndarray]:
            yield from (X[i : i + 100] for i in range(0, 600, 100))

    straight = DBN((20, 10), rbm=RBM(n_epochs=4), random_state=0).fit(Stream())
    half = DBN((20, 10), rbm=RBM(n_epochs=4), random_state=0)

    class Interrupted(Stream):
        passes = 0

        def __iter__(self) -> Iterator[np.ndarray]:
            self.passes += 1
            for number, batch in enumerate(super().__iter__()):
                if self.passes == 5 and number == 3:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        half.fit(Interrupted())
    half.set_params(warm_start=True).fit(Stream())
    assert torch.equal(half.stack_.top.weight, straight.stack_.top.weight)


def test_a_classifier_learns_resumes_and_saves(tmp_path: Path) -> None:
    settings = {
        "rbm": QUICK,
        "learning_rate": 1e-2,
        "dropout": 0.1,
        "max_norm": 4.0,
        "batch_size": 20,
        "random_state": 0,
    }
    straight = DBNClassifier((64, 64), n_epochs=10, **settings).fit(X[:1200], Y[:1200])
    assert straight.score(X[1200:], Y[1200:]) > 0.84

    def stop(classifier: DBNClassifier, record: dict[str, float]) -> None:
        if record["epoch"] == 4:
            raise KeyboardInterrupt

    half = DBNClassifier((64, 64), n_epochs=10, callbacks=[stop], **settings)
    with pytest.raises(KeyboardInterrupt):
        half.fit(X[:1200], Y[:1200])
    half.save(tmp_path / "half")
    loaded = DBNClassifier.load(tmp_path / "half").set_params(warm_start=True).fit(X[:1200], Y[:1200])
    np.testing.assert_array_equal(loaded.predict_proba(X), straight.predict_proba(X))
    np.testing.assert_allclose(
        straight.to_sequential()(torch.from_numpy(X)).softmax(1).detach(), straight.predict_proba(X), atol=1e-5
    )


def test_a_monitor_follows_fine_tuning() -> None:
    class Watch:
        def begin(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
            self.monitor = Monitor(network, optimizer, every=1).attach()

        def __call__(self, classifier: DBNClassifier, record: dict[str, float]) -> None:
            if record["epoch"] == classifier.n_epochs:
                self.monitor.detach()

    watch = Watch()
    settings = {"rbm": QUICK, "n_epochs": 2, "batch_size": 100, "random_state": 0}
    watched = DBNClassifier((16,), callbacks=[watch], **settings).fit(X[:400], Y[:400])
    ratios = watch.monitor.history.column("update_ratio")
    assert len(ratios) == 8
    assert np.isfinite(ratios).any(0).sum() == 2
    alone = DBNClassifier((16,), **settings).fit(X[:400], Y[:400])
    np.testing.assert_array_equal(watched.predict_proba(X), alone.predict_proba(X))


def test_fine_tuning_goes_on_from_layers_taught_without_classes(tmp_path: Path) -> None:
    dbn = DBN((64,), rbm=QUICK, random_state=0).fit(X[:1400])
    dbn.save(tmp_path / "dbn")
    layer = dbn.to_sequential()[0].weight.clone()
    settings = {"n_epochs": 30, "batch_size": 10}
    few = DBNClassifier.from_dbn(DBN.load(tmp_path / "dbn"), **settings).fit(X[:60], Y[:60])
    assert torch.equal(dbn.to_sequential()[0].weight, layer)
    alone = DBNClassifier((64,), rbm=QUICK, random_state=0, **settings).fit(X[:60], Y[:60])
    assert few.score(X[1400:], Y[1400:]) > alone.score(X[1400:], Y[1400:]) + 0.05
    with pytest.raises(UsageError, match="expected method='discriminative', got 'generative'"):
        DBNClassifier.from_dbn(dbn, method="generative")


def test_labels_at_the_top_classify_and_are_dreamt(tmp_path: Path) -> None:
    data = (X > 0.4).astype(np.float32)
    rbm = RBM(n_epochs=15, batch_size=10)
    classifier = DBNClassifier((80, 80), rbm=rbm, method="generative", n_epochs=2, learning_rate=0.01, random_state=0)
    classifier.fit(data[:1200], Y[:1200])
    assert classifier.score(data[1200:], Y[1200:]) > 0.7
    dreams = classifier.sample(30, label=0, steps=100, random_state=0)
    other = classifier.sample(30, label=1, steps=100, random_state=0)
    zero, one = data[Y == 0].mean(0), data[Y == 1].mean(0)
    assert np.square(dreams.mean(0) - zero).sum() < np.square(dreams.mean(0) - one).sum()
    assert np.square(other.mean(0) - one).sum() < np.square(other.mean(0) - zero).sum()
    classifier.save(tmp_path / "labels")
    loaded = DBNClassifier.load(tmp_path / "labels")
    np.testing.assert_array_equal(loaded.predict_proba(data), classifier.predict_proba(data))
    with pytest.raises(UsageError, match="expected method='generative', got 'discriminative'"):
        DBNClassifier((5,), rbm=QUICK, n_epochs=1).fit(data[:50], Y[:50]).sample(1, label=0)


def test_classes_may_be_words_and_come_in_chunks() -> None:
    words = np.array(["even", "odd"])[Y % 2]
    classifier = DBNClassifier((32,), rbm=QUICK, n_epochs=3, learning_rate=0.01, random_state=0)
    for start in range(0, 900, 300):
        classifier.partial_fit(X[start : start + 300], words[start : start + 300], classes=["even", "odd"])
    assert set(classifier.predict(X)) <= {"even", "odd"}
    with pytest.raises(UsageError, match=r"expected classes among \['even', 'odd'\], got \['none'\]"):
        classifier.partial_fit(X[:2], ["none", "even"])


def test_searches_reach_through_to_the_machines() -> None:
    search = GridSearchCV(
        DBNClassifier((16,), rbm=clone(QUICK), n_epochs=3, random_state=0), {"rbm__n_epochs": [1, 2]}, cv=2
    )
    assert set(search.fit(X[:300], Y[:300]).cv_results_["param_rbm__n_epochs"]) == {1, 2}


def test_a_regressor_predicts_one_or_several_targets() -> None:
    rows, target = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(),
        DBNRegressor((32,), rbm=QUICK, n_epochs=40, batch_size=20, learning_rate=5e-3, random_state=0),
    )
    assert pipeline.fit(rows[:350], target[:350]).score(rows[350:], target[350:]) > 0.35
    both = np.stack([target, -target], 1)
    answers = pipeline.fit(rows, both).predict(rows)
    assert answers.shape == both.shape
    assert np.corrcoef(answers[:, 0], answers[:, 1])[0, 1] < -0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": ()}, r"expected one or more sizes, got \(\)"),
        ({"hidden_layer_sizes": 5}, r"expected one or more sizes, got 5\. Pass them as \(500, 500\)"),
        ({"learning_rate": -1.0}, "learning_rate: expected a number of at least 0, got -1.0"),
        ({"weight_decay": float("nan")}, "weight_decay: expected a number of at least 0, got nan"),
        ({"hidden_layer_sizes": (0,)}, "expected a whole number of at least 1, got 0"),
        ({"method": "magic"}, "method: expected one of discriminative, generative, got 'magic'"),
        ({"optimizer": "lion"}, "optimizer: expected one of adam, sgd, got 'lion'"),
        ({"dropout": 1.0}, r"dropout: expected a share in \[0, 1\), got 1.0"),
        ({"n_epochs": 0}, "n_epochs: expected a whole number of at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DBNClassifier(**{"hidden_layer_sizes": (4,), "rbm": QUICK, **settings}).fit(X[:50], Y[:50])
