from __future__ import annotations

import json
import pickle

import pytest
import torch
from torch import nn

from steadygrad.errors import UsageError
from steadygrad.records import Step, to_json
from steadygrad.remedies import CATALOGUE, Remedy, Site, compose, initialization, make


def test_a_recorded_step_is_rebuilt_from_json() -> None:
    step = Step("initialization", {"method": "he", "std": 0.5})
    plain = json.loads(to_json(step))
    remedy = make(plain["remedy"], **plain["settings"])
    assert remedy == initialization(method="he", std=0.5)
    assert str(remedy) == "initialization(method='he', std=0.5)"


def test_every_card_is_filled_and_the_catalogue_knows_it_by_name() -> None:
    for name, factory in CATALOGUE.items():
        card = factory.card
        assert card.name == name == factory.change.__name__
        assert card.treats or card.not_for
        assert card.summary.endswith(".")
        assert card.reference


def test_remedies_pickle_by_name() -> None:
    remedy = make("clip_by_global_norm", max_norm=2.0)
    copy = pickle.loads(pickle.dumps(remedy))
    assert isinstance(copy, Remedy)
    assert copy == remedy
    assert copy.card.site is Site.GRADIENT


def test_compose_applies_in_order(make_setup, mlp) -> None:
    setup = make_setup(mlp(nn.Sigmoid))
    treated = compose(make("activation", to="tanh"), make("activation", to="gelu"))(setup)
    assert isinstance(treated.model[1], nn.GELU)
    assert isinstance(setup.model[1], nn.Sigmoid)
    assert compose()(setup) is setup


def test_draws_follow_torchs_global_random_state(make_setup, mlp) -> None:
    setup, weights = make_setup(mlp()), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(initialization(method="he")(setup).model[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_wrong_names_and_values_are_refused_with_the_nearest_choice() -> None:
    with pytest.raises(UsageError, match=r"got 'initialisation'. Did you mean 'initialization'?"):
        make("initialisation")
    with pytest.raises(UsageError, match=r"got 'metod'. Did you mean 'method'?"):
        make("initialization", metod="he")
    with pytest.raises(UsageError, match=r"one of auto, .*, got 'ortho'. Did you mean 'orthogo"):
        initialization(method="ortho")
    with pytest.raises(UsageError, match=r"expected for 'max_norm' a number, got '1'"):
        make("clip_by_global_norm", max_norm="1")
    with pytest.raises(UsageError, match=r"expected for 'lr' a number, got True"):
        make("learning_rate", lr=True)
    with pytest.raises(UsageError, match=r"got 'x'. It has no settings"):
        make("standardize_inputs", x=1)
    with pytest.raises(UsageError, match=r"expected settings by name, got 0.5. Its settings are max_norm"):
        CATALOGUE["clip_by_global_norm"](0.5)
