from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from steadygrad.errors import UsageError
from steadygrad.remedies import CATALOGUE, plan_auxiliary
from steadygrad.remedies.plan import Change, Plan
from steadygrad.training import TrainingSetup


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.RNN(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cells(x)[1][-1])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Linear(8, 8), nn.Sigmoid(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Sigmoid()]
    return nn.Sequential(*first, nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3), nn.LogSoftmax(dim=1))


SURGERY: list[tuple[str, dict[str, Any]]] = [
    ("activation", {"to": "prelu"}),
    ("activation", {"to": "selu"}),
    ("dropout", {"p": 0.3}),
    ("head", {"to": "identity"}),
    ("normalization", {"kind": "batch"}),
    ("normalization", {"kind": "rms"}),
    ("residual", {}),
    ("residual", {"kind": "rezero"}),
    ("residual", {"kind": "layerscale"}),
    ("auxiliary_loss", {"heads": 2}),
]
every_surgery = pytest.mark.parametrize(("name", "settings"), SURGERY, ids=[f"{n}{s}" for n, s in SURGERY])


@pytest.fixture
def plan_of(make_setup: Callable[..., TrainingSetup]) -> Callable[..., Plan]:
    def plan(model: nn.Module, name: str, settings: dict[str, Any]) -> Plan:
        setup = make_setup(model)
        draw = plan_auxiliary if name == "auxiliary_loss" else CATALOGUE[name].plan
        return draw(setup, **settings)

    return plan


def anatomy(model: nn.Module) -> dict[str, Any]:
    """Everything that surgery might touch: which object stands where, what hooks onto it, and the bits of tensors."""
    found: dict[str, Any] = {"keys": list(model.state_dict())}
    for name, module in model.named_modules():
        hooks = list(module._forward_hooks.items()), list(module._forward_pre_hooks.items())
        found[name] = (id(module), module.training, hooks, list(module._modules), sorted(vars(module)), repr(module))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"bits of {name}"] = (id(tensor), tensor.detach().numpy().tobytes())
    return found


@every_surgery
def test_undo_gives_back_the_same_objects_bit_for_bit(plan_of, name: str, settings: dict[str, Any]) -> None:
    model = network()
    model[1].eval()
    model[0].register_forward_hook(print)
    before = anatomy(model)
    plan = plan_of(model, name, settings)
    assert anatomy(model) == before  # a plan is no change
    undo = plan.apply_(model)
    assert anatomy(model) != before
    undo.undo()
    assert anatomy(model) == before


@every_surgery
def test_old_parameters_stay_the_same_objects_under_the_same_names(plan_of, name, settings) -> None:
    model = network()
    old = dict(model.named_parameters())
    plan_of(model, name, settings).apply_(model)
    new = dict(model.named_parameters())
    assert all(new[key] is parameter for key, parameter in old.items())


@every_surgery
def test_compiled_and_exported_models_answer_alike_beside_the_plain_one(plan_of, name, settings) -> None:
    torch._dynamo.reset()
    plain, x = network(), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    changed = copy.deepcopy(plain)
    plan_of(changed, name, settings).apply_(changed)
    models = [plain, changed]
    compiled = [torch.compile(model, fullgraph=True, backend="aot_eager") for model in models]
    # In turn, because torch.compile would run code of the one for the other: its guards leave hooks out.
    for training in (False, True):
        for model, fast in [*zip(models, compiled, strict=True)] * 2:
            model.train(training)
            state = copy.deepcopy(model.state_dict())  # BatchNorm counts every pass
            torch.manual_seed(2)
            expected = model(x)
            model.load_state_dict(state)
            torch.manual_seed(2)
            torch.testing.assert_close(fast(x), expected)
    exported = torch.export.export(changed.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), changed(x))


@every_surgery
def test_a_plan_fits_any_copy_and_shares_nothing_between_them(plan_of, name, settings) -> None:
    one, other = network(), network()
    plan = plan_of(one, name, settings)
    plan.apply_(one)
    plan.apply_(other)
    assert not {id(module) for module in one.modules()} & {id(module) for module in other.modules()}
    x = torch.ones(2, 8)
    assert torch.equal(one.eval()(x), other.eval()(x))


def test_the_plan_reads_as_a_diff(make_setup) -> None:
    setup = make_setup(network())
    assert str(CATALOGUE["head"].plan(setup)) == "- 8: LogSoftmax(dim=1)\n+ 8: Identity()"
    assert str(CATALOGUE["residual"].plan(setup, scale=0.5)).splitlines() == [
        "+ before 0: x",
        "+ before 3: x + 0.5 * F(x)",
        "+ before 5: x + 0.5 * F(x)",
        "+ before 7: x + 0.5 * F(x)",
    ]
    assert "+ 0.norm: RMSNorm((8,)" in str(CATALOGUE["normalization"].plan(setup, kind="rms"))
    assert "+ after 0: norm(output)" in str(CATALOGUE["normalization"].plan(setup))


def test_a_plan_that_does_not_fit_changes_nothing(plan_of) -> None:
    model = network()
    plan = plan_of(model, "activation", {"to": "gelu"})
    model[6] = nn.Tanh()
    before = anatomy(model)
    with pytest.raises(UsageError, match=r"plan: expected at 6 Sigmoid\(\), found Tanh\(\). Make the plan afresh"):
        plan.apply_(model)
    assert anatomy(model) == before
    with pytest.raises(UsageError, match=r"expected a module '9', found none. Apply the plan to its own model"):
        Plan((Change("9", "child", "norm", nn.LayerNorm(3)),)).apply_(model)


def test_plans_are_undone_in_reverse_order_and_once(plan_of) -> None:
    model = network()
    before = anatomy(model)
    first = plan_of(model, "activation", {"to": "gelu"}).apply_(model)
    second = plan_of(model, "activation", {"to": "tanh"}).apply_(model)
    with pytest.raises(UsageError, match=r"expected at 1 what the plan put there, GELU.*found Tanh.*Undo later"):
        first.undo()
    second.undo()
    first.undo()
    assert anatomy(model) == before
    with pytest.raises(UsageError, match=r"got one that is undone already"):
        first.undo()


def test_modules_that_return_take_over_the_mode(plan_of) -> None:
    model = network()
    undo = plan_of(model, "activation", {"to": "gelu"}).apply_(model)
    assert model[1].training
    model.eval()
    undo.undo()
    assert not model[1].training


def test_what_was_trained_meanwhile_stays_trained(plan_of) -> None:
    model = network()
    undo = plan_of(model, "normalization", {}).apply_(model)
    with torch.no_grad():
        model[0].weight.fill_(7)
    undo.undo()
    assert bool((model[0].weight == 7).all())


def test_hooks_survive_a_process_whose_hook_numbers_start_again(plan_of, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    plan_of(model, "normalization", {}).apply_(model)
    model, x = pickle.loads(pickle.dumps(model.eval())), torch.randn(4, 8)
    expected = model(x)
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    handles = [model[0].register_forward_hook(lambda *_: None) for _ in range(50)]
    assert torch.equal(model(x), expected)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(x), expected)


def test_compiled_models_are_planned_by_their_plain_names(plan_of) -> None:
    torch._dynamo.reset()
    model, x = network().eval(), torch.randn(4, 8)
    compiled = torch.compile(model, backend="eager")
    before = compiled(x)
    undo = plan_of(compiled, "normalization", {}).apply_(compiled)
    torch.testing.assert_close(compiled(x), model(x))
    assert not torch.allclose(compiled(x), before)
    undo.undo()
    assert torch.equal(compiled(x), before)


def test_recurrent_layers_are_swapped_and_come_back(make_setup) -> None:
    torch.manual_seed(0)
    setup = make_setup(Last(), shape=(5, 8))
    before, x = anatomy(setup.model), setup.train[0]
    expected = setup.model(x)
    undo = CATALOGUE["recurrent"].plan(setup).apply_(setup.model)
    assert not torch.allclose(setup.model(x), expected)
    undo.undo()
    assert anatomy(setup.model) == before
    assert torch.equal(setup.model(x), expected)
