"""The right numbers in every environment that misleads hooks: each against a truth from autograd alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from steadygrad.monitor import Monitor

from .networks import batch, global_norm, layer_norms, mlp, shown, total, true_grads

CLOSE = 1e-5


def close(values: dict[str, float]) -> dict[str, object]:
    return pytest.approx(values, rel=CLOSE)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def loss_of(model: nn.Module, seed: int = 1) -> Tensor:
    x, y = batch(seed=seed)
    return F.cross_entropy(model(x), y)


def test_plain_training_shows_every_number() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = batch()
    with Monitor(model, optimizer, every=1) as monitor:
        out = model[0](x)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        loss = loss_of(model)
        truth = true_grads(model, loss)
        loss.backward()
        optimizer.step()
    del y
    moved = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    assert shown(monitor, "grad_norm") == close(layer_norms(truth))
    assert shown(monitor, "grad_norm_used") == close(layer_norms(truth))
    sizes = {"0": 156, "2": 156, "4": 156, "6": 39}
    assert shown(monitor, "grad_rms") == close({k: v / sizes[k] ** 0.5 for k, v in layer_norms(truth).items()})
    weights = {k: v for k, v in before.items() if k.endswith("weight")}
    ratios = {k: moved[k].norm().item() / v.norm().item() for k, v in weights.items()}
    assert shown(monitor, "update_ratio") == close({k.split(".")[0]: v for k, v in ratios.items()})
    assert shown(monitor, "weight_rms")["0"] == pytest.approx(
        before["0.weight"].square().mean().sqrt().item(), rel=CLOSE
    )
    assert shown(monitor, "output_rms")["0"] == pytest.approx(out.square().mean().sqrt().item(), rel=CLOSE)
    assert shown(monitor, "output_mean")["0"] == pytest.approx(out.mean().item(), rel=CLOSE)
    assert shown(monitor, "output_abs_max")["0"] == pytest.approx(out.abs().max().item(), rel=CLOSE)
    assert total(monitor, "loss") == pytest.approx(loss.item())
    assert total(monitor, "grad_norm") == pytest.approx(global_norm(truth), rel=CLOSE)
    assert (total(monitor, "lr"), total(monitor, "skipped")) == (0.01, 0.0)


def test_output_gradients_are_those_of_autograd() -> None:
    model, (x, y) = mlp(), batch()
    with Monitor(model, sgd(model), every=1) as monitor:
        hidden = model[:4](x)
        loss = F.cross_entropy(model[4:](hidden), y)
        (truth,) = torch.autograd.grad(loss, hidden, retain_graph=True)
        loss.backward()
        monitor._taps[0].optimizer.step()
    assert shown(monitor, "output_grad_rms")["3"] == pytest.approx(truth.square().mean().sqrt().item(), rel=CLOSE)


def test_clipping_shows_both_norms() -> None:
    model = mlp()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        loss = 100 * loss_of(model)
        truth = global_norm(true_grads(model, loss))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    assert total(monitor, "grad_norm") == pytest.approx(truth, rel=CLOSE)
    assert total(monitor, "grad_norm_used") == pytest.approx(0.5, rel=1e-4)


WRITES = {
    "scaled": lambda grad: grad.mul_(0.1),
    "scaled behind autograd's back": lambda grad: grad.data.mul_(0.1),
    "a few entries clamped behind its back": lambda grad: grad.data.clamp_(-0.05, 0.05),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_to_gradients_shows_in_what_was_used(write: Callable[[Tensor], object]) -> None:
    model = mlp()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        loss = loss_of(model)
        used = true_grads(model, loss)
        truth = layer_norms(used)
        loss.backward()
        for grad in (*(parameter.grad for parameter in model.parameters()), *used.values()):
            write(grad)
        optimizer.step()
    assert shown(monitor, "grad_norm") == close(truth)
    assert shown(monitor, "grad_norm_used") == close(layer_norms(used))
    assert layer_norms(used) != close(truth)


def test_accumulation_shows_the_sum() -> None:
    model = mlp()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(2):
            optimizer.zero_grad()
            truth = true_grads(model, sum(loss_of(model, seed=10 * step + k) / 4 for k in range(4)))
            for k in range(4):
                (loss_of(model, seed=10 * step + k) / 4).backward()
            optimizer.step()
            assert shown(monitor, "grad_norm") == close(layer_norms(truth))
    assert total(monitor, "backwards") == 4


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_loss_scaler_shows_unscaled_numbers(fused: bool, clip: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(3):
            optimizer.zero_grad()
            loss = loss_of(model, seed=step)
            truth = layer_norms(true_grads(model, loss))
            scaler.scale(loss).backward()
            if clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            scaler.step(optimizer)
            scaler.update()
            assert shown(monitor, "grad_norm") == close(truth)
            used = total(monitor, "grad_norm_used")
            assert used == pytest.approx(1e-3 if clip else total(monitor, "grad_norm"), rel=1e-3)
            assert total(monitor, "loss") == pytest.approx(loss.item(), rel=CLOSE)
            assert total(monitor, "loss_scale") == 1024.0 * 2**step
    assert shown(monitor, "output_grad_rms")["6"] < 1.0


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_step_is_seen_and_counts_as_skipped(fused: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Monitor(model, optimizer, every=1) as monitor:
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(loss_of(model) * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    assert monitor.history.steps.tolist() == [0, 1, 2]
    assert monitor.history.column("skipped", of="step").tolist() == [0.0, 1.0, 0.0]
    assert shown(monitor, "grad_nonfinite", look=1)["0"] > 0
    assert total(monitor, "loss_scale") == 512.0
    assert monitor.findings == [] or all(finding.code != "SG204" for finding in monitor.findings)


def test_a_closure_is_read_after_its_backward() -> None:
    model = mlp()
    optimizer = sgd(model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, seed=step)
        loss.backward()
        return loss

    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(3):
            truth = layer_norms(true_grads(model, loss_of(model, seed=step)))
            optimizer.step(closure)
            assert shown(monitor, "grad_norm") == close(truth) == shown(monitor, "grad_norm_used")
            assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_lbfgs_shows_its_last_evaluation_and_its_true_step() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    norms: list[dict[str, float]] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        norms.append(layer_norms(true_grads(model, loss)))
        loss.backward()
        return loss

    before = model[0].weight.detach().clone()
    with Monitor(model, optimizer, every=1) as monitor:
        optimizer.step(closure)
    assert len(norms) > 1
    assert shown(monitor, "grad_norm") == close(norms[-1])
    moved = (model[0].weight.detach() - before).norm() / before.norm()
    assert shown(monitor, "update_ratio")["0"] == pytest.approx(moved.item(), rel=CLOSE)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body, self.reentrant = mlp(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.body[:2](x)
        x = checkpoint(self.body[2:4], x, use_reentrant=self.reentrant)
        return self.body[4:](x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_number(reentrant: bool) -> None:
    plain = mlp()
    optimizer = sgd(plain)
    with Monitor(plain, optimizer, every=1) as expected:
        loss_of(plain).backward()
        optimizer.step()
    model = Checkpointed(reentrant)
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        loss_of(model).backward()
        optimizer.step()
    for statistic in ("grad_norm", "update_ratio", "output_rms", "output_signal", "output_grad_rms"):
        truth = {f"body.{name}": value for name, value in shown(expected, statistic).items()}
        assert shown(monitor, statistic) == close(truth), statistic


def test_modules_that_work_in_place() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 3))
    x, _ = batch()
    out = model[0](x).detach()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        loss = loss_of(model)
        truth = layer_norms(true_grads(model, loss))
        loss.backward()
        optimizer.step()
    assert shown(monitor, "grad_norm") == close(truth)
    assert shown(monitor, "output_rms")["0"] == pytest.approx(out.square().mean().sqrt().item(), rel=CLOSE)
    assert shown(monitor, "zero_fraction")["1"] == pytest.approx((out <= 0).double().mean().item())
    assert set(shown(monitor, "zero_fraction")) == {"1"}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def test_a_shared_parameter_counts_once_with_its_whole_gradient() -> None:
    model = Tied()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        loss = loss_of(model)
        truth = true_grads(model, loss)
        loss.backward()
        optimizer.step()
    assert shown(monitor, "grad_norm") == close(layer_norms(truth))
    assert total(monitor, "grad_norm") == pytest.approx(global_norm(truth), rel=CLOSE)


def test_groups_added_later_and_parameters_freed_and_frozen_again() -> None:
    model = mlp()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[2].parameters()], lr=0.1)
    seen = []
    with Monitor(model, optimizer, every=1) as monitor:
        for step in range(4):
            if step == 1:
                optimizer.add_param_group({"params": list(model[4].parameters())})
            if step in (2, 3):
                model[0].requires_grad_(step == 2)
            model.zero_grad()
            loss = loss_of(model)
            truth = layer_norms(true_grads(model, loss))
            loss.backward()
            optimizer.step()
            seen.append(set(shown(monitor, "grad_norm")))
            watched = shown(monitor, "grad_norm")
            assert watched == close({name: truth[name] for name in watched})
    assert seen == [{"2"}, {"2", "4"}, {"0", "2", "4"}, {"2", "4"}]


def test_a_gan_shows_each_network_at_its_own_step() -> None:
    torch.manual_seed(0)
    generator, critic = nn.Linear(4, 12), nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))
    steps_g, steps_c = sgd(generator), sgd(critic)
    with Monitor({"G": generator, "D": critic}, [steps_c, steps_g], every=1) as monitor:
        for _ in range(3):
            fake = generator(torch.randn(16, 4))
            steps_c.zero_grad()
            loss = (critic(fake.detach()) - critic(torch.randn(16, 12))).mean()
            truth_c = true_grads(critic, loss)
            loss.backward()
            steps_c.step()
            steps_g.zero_grad()
            loss = -critic(fake).mean()
            truth_g = true_grads(generator, loss)
            loss.backward()
            steps_g.step()
            norms = layer_norms(
                {f"D.{k}": v for k, v in truth_c.items()} | {f"G.Linear.{k}": v for k, v in truth_g.items()}
            )
            assert shown(monitor, "grad_norm") == close(norms)
    assert monitor.history.steps.tolist() == [0, 1, 2]


@pytest.mark.parametrize("ours_first", [True, False])
def test_an_optimizer_in_the_backward_pass(ours_first: bool) -> None:
    model = mlp()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(parameter: Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    monitor = Monitor(model, list(optimizers.values()), every=1)
    if ours_first:
        monitor.attach()
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    if not ours_first:
        monitor.attach()
    for seed in range(3):
        loss = loss_of(model, seed=seed)
        truth = true_grads(model, loss)
        loss.backward()
        assert shown(monitor, "grad_norm") == close(layer_norms(truth))
        assert total(monitor, "grad_norm") == pytest.approx(global_norm(truth), rel=CLOSE)
    monitor.detach()
    assert monitor.history.steps.tolist() == [0, 1, 2]


def test_a_deep_copy_for_averaging_is_not_watched() -> None:
    model = mlp()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        average = copy.deepcopy(model)
        loss = loss_of(model)
        rms = model[0](batch()[0]).square().mean().sqrt().item()
        loss.backward()
        with torch.enable_grad():
            average(100 * batch()[0])
        optimizer.step()
    assert shown(monitor, "output_rms")["0"] == pytest.approx(rms, rel=CLOSE)


def test_evaluation_between_steps_does_not_count() -> None:
    model = mlp()
    optimizer = sgd(model)
    with Monitor(model, optimizer, every=1) as monitor:
        loss = loss_of(model)
        expected = model[0](batch()[0]).square().mean().sqrt().item()
        loss.backward()
        with torch.no_grad():
            model(100 * batch()[0])
        optimizer.step()
    assert shown(monitor, "output_rms")["0"] == pytest.approx(expected, rel=CLOSE)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_extreme_gradients_are_neither_zero_nor_infinite(scale: float) -> None:
    model = mlp()
    optimizer = sgd(model, lr=0.0)
    with Monitor(model, optimizer, every=1) as monitor:
        truth = {k: v * scale for k, v in layer_norms(true_grads(model, loss_of(model))).items()}
        (loss_of(model) * scale).backward()
        optimizer.step()
    assert shown(monitor, "grad_norm") == pytest.approx(truth, rel=1e-3)
    assert shown(monitor, "grad_nonfinite")["0"] == 0


def test_bfloat16_weights_and_sparse_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 12, sparse=True), nn.Flatten(), nn.Linear(24, 3)).to(torch.bfloat16)
    optimizer = sgd(model)
    x, y = torch.randint(0, 50, (16, 2)), torch.randint(0, 3, (16,))
    with Monitor(model, optimizer, every=1) as monitor:
        loss = F.cross_entropy(model(x).float(), y)
        truth = {k: (v.coalesce().values() if v.is_sparse else v) for k, v in true_grads(model, loss).items()}
        loss.backward()
        optimizer.step()
    assert shown(monitor, "grad_norm") == pytest.approx(layer_norms(truth), rel=1e-2)
    assert shown(monitor, "grad_norm_used") == pytest.approx(layer_norms(truth), rel=1e-2)
