"""Every layer call is seen once, in execution order, under the name a user would look for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from steadygrad.records import Role
from steadygrad.signals import Recorder

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def record(model: nn.Module, *inputs: Any) -> Recorder:
    with Recorder(model) as recorder:
        model(*(inputs or (X,)))
    return recorder


def names(model: nn.Module, *inputs: Any) -> list[str]:
    return [call.name for call in record(model, *inputs).calls]


def edges(recorder: Recorder) -> dict[str, set[str]]:
    return {call.name: {recorder.calls[source].name for source in call.follows} for call in recorder.calls}


class Wrapped(nn.Module):
    """A model whose forward pass is a function of itself and its input."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **children: Any) -> None:
        super().__init__()
        self.run = run
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(1)))


def test_nested_modules_come_in_execution_order_under_qualified_names() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    model = Wrapped(
        lambda m, x: m.head(m.body["b"](m.body["a"](x))),
        head=nn.Linear(4, 2),
        body=nn.ModuleDict({"b": block, "a": nn.Linear(4, 4)}),
    )
    assert names(model) == ["body.a", "body.b.0", "body.b.1", "head"]
    assert edges(record(model))["head"] == {"body.b.1"}


def test_a_module_called_again_is_numbered() -> None:
    layer = nn.Linear(4, 4)
    model = Wrapped(lambda m, x: m.layer(m.layer(m.layer(x))), layer=layer)
    recorder = record(model)
    assert [call.name for call in recorder.calls] == ["layer", "layer#2", "layer#3"]
    assert {call.module for call in recorder.calls} == {"layer"}
    assert edges(recorder) == {"layer": set(), "layer#2": {"layer"}, "layer#3": {"layer#2"}}


def test_a_module_under_two_names_takes_the_first() -> None:
    layer = nn.Linear(4, 4)
    assert names(nn.Sequential(layer, nn.ReLU(), layer)) == ["0", "1", "0#2"]


def test_tied_weights_belong_to_both_calls() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    calls = record(nn.Sequential(first, second)).calls
    assert calls[0].parameters[0] is calls[1].parameters[0] is first.weight


def test_a_recursive_module_is_seen_at_every_depth() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        m.depth -= 1
        return m(m.layer(x)) if m.depth >= 0 else x

    model = Wrapped(run, layer=nn.Linear(4, 4), depth=3)
    assert names(model) == ["layer", "layer#2", "layer#3"]


def test_residual_connections_have_two_sources() -> None:
    model = Wrapped(lambda m, x: m.c(m.a(x) + m.b(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4))
    assert edges(record(model)) == {"a": set(), "a#2": set(), "b": {"a#2"}, "c": {"a", "b"}}


def test_values_written_into_a_buffer_keep_their_source() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        out = torch.zeros(6, 4)
        out[:, :2] = m.a(x)
        return m.b(out)

    assert edges(record(Wrapped(run, a=nn.Linear(4, 2), b=nn.Linear(4, 1))))["b"] == {"a"}


def test_sources_pass_through_functions_and_structures() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        left, right = m.a(x).chunk(2, dim=1)
        pair = {"both": [torch.cat([left.T.T, right]), None]}
        return m.b(pair["both"][0].mean(0, keepdim=True).repeat(2, 2))

    assert edges(record(Wrapped(run, a=nn.Linear(4, 4), b=nn.Linear(4, 1))))["b"] == {"a"}


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        (F.relu, "relu"),
        (F.relu_, "relu"),
        (torch.relu_, "relu"),
        (Tensor.relu, "relu"),
        (Tensor.sigmoid_, "sigmoid"),
        (torch.tanh, "tanh"),
        (F.gelu, "gelu"),
        (torch.special.expit, "expit"),
        (lambda x: F.leaky_relu(x, inplace=True), "leaky_relu"),
        (lambda x: x.softmax(-1), "softmax"),
    ],
)
def test_functional_activations_are_named_after_their_module(activation: Callable[[Tensor], Tensor], kind: str) -> None:
    model = nn.Sequential(Wrapped(lambda m, x: activation(m.fc(x)), fc=nn.Linear(4, 4)), nn.Linear(4, 1))
    recorder = record(model)
    assert [call.name for call in recorder.calls] == ["0.fc", f"0:{kind}", "1"]
    assert recorder.calls[1].role is Role.ACTIVATION
    assert edges(recorder)["1"] == {f"0:{kind}"}


def test_functions_inside_of_torch_modules_are_not_seen() -> None:
    assert names(nn.Sequential(nn.GELU(), nn.CELU(), nn.Softmax(-1))) == ["0", "1", "2"]


def test_a_users_own_subclass_is_seen_through_its_functions() -> None:
    class MyLinear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.linear(x, self.weight, self.bias))

    calls = record(nn.Sequential(MyLinear(4, 3))).calls
    assert [(call.name, call.role) for call in calls] == [("0", Role.LINEAR), ("0:relu", Role.ACTIVATION)]
    assert [tuple(p.shape) for p in calls[0].parameters] == [(3, 4), (3,)]


@pytest.mark.parametrize(
    ("shape", "apply"),
    [
        ((3, 4), lambda x, w: F.linear(x, w)),
        ((4, 3), lambda x, w: x @ w),
        ((3, 4), lambda x, w: x @ w.t()),
        ((3, 4), lambda x, w: x.matmul(w.T)),
        ((3, 4), lambda x, w: (w @ x.t()).t()),
        ((4, 3), lambda x, w: torch.mm(x, w)),
        ((4, 3), lambda x, w: torch.addmm(torch.zeros(3), x, w)),
        ((4, 3), lambda x, w: torch.einsum("bi,io->bo", x, w)),
        ((3, 4, 1), lambda x, w: F.conv1d(x[..., None], w)[..., 0]),
    ],
    ids=["linear", "matmul", "transposed", "method", "from the left", "mm", "addmm", "einsum", "conv1d"],
)
def test_functional_weights_are_layers(shape: tuple[int, ...], apply: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = nn.Sequential(Wrapped(lambda m, x: apply(x, m.w), w=weight(*shape)), nn.Linear(3, 1))
    call, after = record(model).calls
    assert (call.name, call.module, call.role, call.fans) == ("0.w", "0", Role.LINEAR, (4, 3))
    assert call.parameters[0] is model[0].w
    assert after.follows == {0}


def test_a_functional_embedding_is_no_linear_layer() -> None:
    model = Wrapped(lambda m, x: F.embedding(x, m.table.weight), table=nn.Embedding(5, 3))
    (call,) = record(model, torch.tensor([0, 4])).calls
    assert (call.name, call.role, call.fans) == ("table", Role.EMBEDDING, None)


def test_products_without_a_parameter_are_no_layer() -> None:
    model = Wrapped(lambda m, x: (m.a(x) @ m.a(x).t()) @ x, a=nn.Linear(4, 4))
    assert names(model) == ["a", "a#2"]


def test_an_unknown_leaf_with_a_matrix_counts_as_linear() -> None:
    model = nn.Sequential(Wrapped(lambda m, x: (x[:, :, None] * m.w).sum(1), w=weight(4, 3)))
    (call,) = record(model).calls
    assert (call.name, call.kind, call.role) == ("0", "Wrapped", Role.LINEAR)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_first_tensor_of_a_tuple_is_the_output(cell: type[nn.RNNBase]) -> None:
    seen: list[Tensor] = []
    model = Wrapped(lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=cell(4, 5, batch_first=True), head=nn.Linear(5, 1))
    with Recorder(model, lambda position, call, output: seen.append(output)) as recorder:
        model(X[:, None].repeat(1, 3, 1))
    assert [call.role for call in recorder.calls] == [Role.RECURRENT, Role.LINEAR]
    assert [tuple(output.shape) for output in seen] == [(6, 3, 5), (6, 1)]
    assert edges(recorder)["head"] == {"rnn"}


def test_attention_is_one_layer_with_all_its_parameters() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    model = Wrapped(lambda m, x: m.head(m.attention(x, x, x)[0]), attention=attention, head=nn.Linear(4, 1))
    calls = record(model, X[None]).calls
    assert [(call.name, call.role) for call in calls] == [("attention", Role.ATTENTION), ("head", Role.LINEAR)]
    assert len(calls[0].parameters) == len(list(attention.parameters()))


def test_a_transformer_layer_is_seen_piece_by_piece() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    assert names(nn.Sequential(layer), X[None]) == [
        "0.self_attn", "0.dropout1", "0.norm1", "0.linear1", "0:relu", "0.dropout", "0.linear2", "0.dropout2", "0.norm2"
    ]  # fmt: skip


def test_inputs_by_keyword_are_followed() -> None:
    model = Wrapped(lambda m, x: m.b(input=m.a(input=x)), a=nn.Linear(4, 4), b=nn.Linear(4, 1))
    recorder = record(model)
    assert edges(recorder)["b"] == {"a"}
    assert [entry.shape for entry in recorder.entries] == [(6, 4)]


def test_entries_are_read_before_anything_changes_them() -> None:
    model = Wrapped(lambda m, x: (m.a(x), x.zero_()), a=nn.Linear(4, 4))
    with torch.no_grad():
        (entry,) = record(model, torch.full((2, 4), 7.0)).entries
    assert entry.mean == 7.0


def test_the_loss_is_seen_with_its_shapes_and_sources() -> None:
    model = nn.Linear(4, 3)
    with Recorder(model) as recorder:
        nn.CrossEntropyLoss()(model(X), torch.zeros(6, dtype=torch.long))
    assert (recorder.loss, recorder.loss_shapes, recorder.loss_sources) == ("cross_entropy", ((6, 3), (6,)), {0})


def test_a_module_that_raises_and_is_caught_leaves_no_trace() -> None:
    class Picky(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    def run(m: Any, x: Tensor) -> Tensor:
        for layer in (m.opaque, m.picky):
            try:
                layer(x)
            except (ValueError, RuntimeError):
                x = m.plan_b(x)  # while the exception is being handled
        return F.relu(x)

    model = Wrapped(run, opaque=nn.Linear(9, 9), picky=Picky(4, 4), plan_b=nn.Linear(4, 4))
    assert edges(record(model)) == {"plan_b": set(), "plan_b#2": {"plan_b"}, "relu": {"plan_b#2"}}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_seen_once(reentrant: bool) -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = Wrapped(
        lambda m, x: m.head(F.tanh(checkpoint(m.block, m.stem(x), use_reentrant=reentrant))),
        stem=nn.Linear(4, 4),
        block=block,
        head=nn.Linear(4, 1),
    )
    with Recorder(model) as recorder:
        model(X).sum().backward()  # within, so that a second forward pass would be seen
    assert [call.name for call in recorder.calls] == ["stem", "block.0", "block.1", "tanh", "head"]
    assert [call.tracked for call in recorder.calls] == [True, not reentrant, not reentrant, True, True]


def test_a_backward_pass_inside_of_the_forward_pass_records_nothing_twice() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        energy = checkpoint(lambda v: F.softplus(m.a(v)), x, use_reentrant=False).sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return force

    assert names(Wrapped(run, a=nn.Linear(4, 4))) == ["a", "softplus"]


def test_hooks_are_removed_and_the_users_kept() -> None:
    fired: list[str] = []
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda *_: fired.append("user"))
    record(model)
    model(X)
    assert fired == ["user", "user"]
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 1


def test_hooks_are_removed_when_the_model_raises() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(9, 9))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        record(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_full_backward_hooks_of_the_user_do_not_hide_what_follows_what() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 1))
    for module in model.modules():
        module.register_full_backward_hook(lambda *_: None)
    assert edges(record(model)) == {"0": set(), "1.0": {"0"}, "1.1": {"1.0"}, "2": {"1.1"}}


def test_custom_autograd_functions_pass_on_their_source() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2

    class Same(Double):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

    model = Wrapped(lambda m, x: m.b(Same.apply(Double.apply(m.a(x)))), a=nn.Linear(4, 4), b=nn.Linear(4, 1))
    assert edges(record(model))["b"] == {"a"}


def test_a_user_hook_that_replaces_an_output_is_honoured() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].register_forward_hook(lambda module, args, output: output * 0)
    seen: list[float] = []
    with Recorder(model, lambda position, call, output: seen.append(output.abs().max().item())):
        model(X)
    assert seen[0] == 0.0


@pytest.mark.parametrize(
    "parametrize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_parametrized_layer_keeps_kind_and_fan(parametrize: Callable[[nn.Module], nn.Module]) -> None:
    (call,) = record(nn.Sequential(parametrize(nn.Linear(4, 3)))).calls
    assert (call.name, call.kind, call.role, call.fans) == ("0", "Linear", Role.LINEAR, (4, 3))
