"""Every way to train gives what a plain loop of ``torch.optim`` gives."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadygrad.lab import compiled
from steadygrad.lab.compiled import Compiled
from steadygrad.lab.stack import Case, Plain, batch_rows
from steadygrad.lab.update import FusedUpdate, Update, rule_of
from steadygrad.lab.vmapped import Unstackable, Vmapped, shape_of
from steadygrad.training import TrainingSetup

from .trainings import ARTICLE, DATA, article_case, losses, perceptron, rows, torch_losses


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest relative difference of losses."""
    return ((found - wanted) / wanted).abs().max().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "features", "hidden"), [(10, 784, (128, 64)), (100, 784, (128, 64)), (1000, 32, (16, 8))]
)
def test_all_of_the_articles_configurations_equal_torch_in_float64(
    batch: int, features: int, hidden: tuple[int, int]
) -> None:
    data = rows(1200, features, 10, torch.float64)
    cases = [article_case(*configuration, data, hidden) for configuration in ARTICLE if configuration[2] == batch]
    wanted = [torch_losses(case, 30) for case in cases]
    for found, want in zip(losses(Vmapped(cases), 30), wanted, strict=True):
        assert difference(found, want) < 1e-6
    for case, want in zip(cases, wanted, strict=True):
        assert difference(losses(Compiled.of(case), 30)[0], want) < 1e-6


@pytest.mark.slow
def test_in_float32_rounding_differs_no_more_than_that_of_a_reordered_batch() -> None:
    # Large learning rates make rounding grow without end: the yardstick is the same loop with each batch turned around.
    data = rows(300, 32, 10)
    cases = [article_case(*configuration, data) for configuration in ARTICLE if configuration[2] == 100]
    wanted = [torch_losses(case, 15) for case in cases]
    control = [
        difference(torch_losses(case, 15, backwards=True), want) for case, want in zip(cases, wanted, strict=True)
    ]
    stacked = [difference(*pair) for pair in zip(losses(Vmapped(cases), 15), wanted, strict=True)]
    alone = [difference(losses(Compiled.of(c), 15)[0], want) for c, want in zip(cases, wanted, strict=True)]
    close = sum(value < 1e-5 for value in control)
    for found in (stacked, alone):
        assert sorted(found)[len(found) // 2] < 1e-6
        assert sum(value < 1e-5 for value in found) >= close - 2


def optimized(make: object, **changes: object) -> Case:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    return Case(TrainingSetup(model, F.cross_entropy, DATA, make, validation=DATA, batch_size=16, **changes), seed=3)


VARIANTS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0, rho=0.8),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1),
}


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
def test_settings_of_an_optimizer_are_kept(make: object) -> None:
    case = optimized(make)
    wanted = losses(Plain(case), 12)
    assert difference(losses(Vmapped([case, optimized(VARIANTS["adam"])]), 12)[0], wanted[0]) < 1e-5
    assert difference(losses(Compiled.of(case), 12), wanted) < 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD([{"params": [each]} for each in p], lr=0.1),
        lambda p: torch.optim.SGD(list(p)[:1], lr=0.1),
    ],
)
def test_an_optimizer_that_does_more_has_no_rule(make: object) -> None:
    assert rule_of(optimized(make).setup) is None


def test_a_hook_on_the_optimizer_and_a_scheduler_are_not_forgotten() -> None:
    def hooked(parameters: object) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: None)
        return optimizer

    assert rule_of(optimized(VARIANTS["adam"]).setup) is not None
    assert rule_of(optimized(hooked).setup) is None
    assert rule_of(optimized(VARIANTS["adam"], scheduler=torch.optim.lr_scheduler.ConstantLR).setup) is None


def test_the_update_in_compiled_code_is_that_of_torch() -> None:
    rules = [rule_of(optimized(make).setup) for make in VARIANTS.values()]
    states = [torch.rand(5, 40, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    once, twice = ([state.clone() for state in states] for _ in range(2))
    Update(rules, states[0])(3, *once)
    FusedUpdate(rules, states[0])(3, *twice)
    for place in (0, 2, 3):
        torch.testing.assert_close(once[place], twice[place])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_sparse_inputs_and_every_activation_give_the_same(activation: type[nn.Module]) -> None:
    x, y = rows(80, 20)
    x = x * (x > 0.8)  # mostly zeros, as the background of images
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 7), activation(), nn.Linear(7, 3))
    adam = lambda p: torch.optim.Adam(p, lr=0.01)  # noqa: E731
    case = Case(TrainingSetup(model, nn.CrossEntropyLoss(), (x, y), adam, batch_size=9), seed=0)
    fast, plain = Compiled.of(case), Plain(case)
    assert not len(compiled._inputs(x)[0]), "read as a sparse matrix"
    assert difference(losses(fast, 20), losses(plain, 20)) < 1e-5
    assert fast.score(0, (x, y)) == plain.score(0, (x, y))
    x.mul_(0)
    assert fast.score(0, (x, y)) == plain.score(0, (x, y)), "data changed in place are read again"


def test_a_run_gives_the_same_whatever_it_is_grouped_with() -> None:
    torch.manual_seed(0)
    cases = [optimized(VARIANTS[name]) for name in ("adam", "momentum", "rmsprop")]
    cases = [Case(case.setup, seed) for seed, case in enumerate(cases)]
    together = losses(Vmapped(cases), 9)
    for run, case in enumerate(cases):
        assert difference(together[run], losses(Vmapped([case]), 9)[0]) < 1e-6
        assert difference(together[run], losses(Plain(case), 9)[0]) < 1e-6


@pytest.mark.parametrize("kind", ["stacked", "compiled", "plain"])
def test_a_run_that_diverges_ends_and_the_others_go_on(kind: str) -> None:
    def make(lr: float) -> Case:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        data = DATA[0] * 1e4, DATA[1]
        return Case(TrainingSetup(model, F.cross_entropy, data, lambda p: torch.optim.SGD(p, lr=lr), batch_size=20), 0)

    calm, wild = make(1e-9), make(1e38)
    stacks = {"stacked": lambda c: Vmapped(c), "compiled": lambda c: Compiled.of(c[0]), "plain": lambda c: Plain(c[0])}
    found = losses(stacks[kind]([wild, calm]), 9)
    bad = (~found[0].isfinite()).nonzero()[0].item()
    assert found[0, bad + 1 :].isnan().all(), "nothing after the first loss that is not finite"
    if kind == "stacked":
        assert difference(found[1], losses(Plain(calm), 9)[0]) < 1e-6


NETWORKS = {
    "convolution": (lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))),
    "batch norm": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3))),
    "frozen": (lambda: nn.Sequential(nn.Linear(6, 5).requires_grad_(False), nn.ReLU(), nn.Linear(5, 3))),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_other_networks_are_stacked(make: object) -> None:
    def case(seed: int) -> Case:
        torch.manual_seed(seed)
        sgd = lambda p: torch.optim.SGD([q for q in p], lr=0.1)  # noqa: C416, E731
        return Case(TrainingSetup(make(), F.cross_entropy, DATA, sgd, validation=DATA, batch_size=16), seed)

    cases = [case(seed) for seed in range(3)]
    before = copy.deepcopy([each.setup.model.state_dict() for each in cases])
    stack, plain = Vmapped(cases), [Plain(each) for each in cases]
    found = losses(stack, 12)
    for run, alone in enumerate(plain):
        assert Compiled.of(cases[run]) is None
        assert difference(found[run], losses(alone, 12)[0]) < 1e-4
        assert stack.score(run, DATA) == pytest.approx(alone.score(0, DATA), abs=1 / 60)
        state = cases[run].setup.model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in before[run].items()), "the set-up is as it was"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3)), "random"),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)), "."),
    ],
    ids=["dropout", "spectral norm"],
)
def test_what_cannot_be_stacked_is_found_by_the_probe(model: nn.Module, reason: str) -> None:
    setups = [
        TrainingSetup(copy.deepcopy(model), F.cross_entropy, DATA, lambda p: torch.optim.SGD(p, lr=0.1))
        for _ in range(2)
    ]
    with pytest.raises(Unstackable, match=reason):
        Vmapped([Case(setup, seed) for seed, setup in enumerate(setups)])


def test_runs_whose_losses_differ_are_no_stack() -> None:
    setups = [perceptron()[0], perceptron()[0].replace(loss=lambda output, target: 2 * F.cross_entropy(output, target))]
    assert shape_of(setups[0]) == shape_of(setups[1]), "what they have in common does not show it"
    with pytest.raises(Unstackable, match="gradients in a stack are not those of autograd"):
        Vmapped([Case(setup, 0) for setup in setups])


def test_shapes_tell_runs_apart() -> None:
    assert shape_of(perceptron(width=4)[0]) != shape_of(perceptron(width=5)[0])
    assert shape_of(perceptron(batch=10)[0]) != shape_of(perceptron(batch=20)[0])
    assert shape_of(perceptron()[0].replace(train=[DATA])) is None


def test_only_what_the_kernel_knows_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = perceptron()[0]
    assert Compiled.of(Case(setup, 0)) is not None
    x, y = DATA
    others = [
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"metric": lambda output, target: 0.0},
        {"forward": lambda model, batch: model(batch[0])},
        {"scheduler": lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer)},
        {"train": (x, torch.full_like(y, 3))},
        {"train": (x.double(), y)},
        {"train": [DATA]},
        {"model": nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))},
        {"model": nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU())},
    ]
    for change in others:
        assert Compiled.of(Case(setup.replace(**change), 0)) is None, change
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    assert Compiled.of(Case(setup, 0)) is None, "without numba"


def test_batches_are_those_of_a_training() -> None:
    order = batch_rows(10, 4, seed=5)
    first = [next(order) for _ in range(4)]
    assert [len(rows) for rows in first] == [4] * 4
    assert len(set(torch.cat(first[:2]).tolist())) == 8, "no row twice in a pass"
    assert not torch.equal(first[0], first[2])
    assert len(next(batch_rows(3, 4, seed=0))) == 3, "a batch larger than the data is all of it"
