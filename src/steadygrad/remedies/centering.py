"""Steps of like effect in every layer of a deep plain network, whatever its activation's offset and scale."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from steadygrad.errors import NotApplicableError, UsageError
from steadygrad.records import Symptom
from steadygrad.remedies.constraints import weight_steps, with_weight_steps
from steadygrad.remedies.remedy import Card, Site, remedy
from steadygrad.remedies.sharding import sharded_dims
from steadygrad.remedies.with_transforms import gradient_transforms, with_transforms
from steadygrad.training import TrainingSetup, first_batch, preserved, run_model, trainable

__all__ = ["CenteredAdam", "centered_updates"]

_BETAS = (0.9, 0.99)
_RATES_PER_OCTAVE = 8  # layers whose rates round to the same share one fused step


class CenteredAdam(torch.optim.Adam):
    """Adam that steps as if the inputs of each Linear layer had their mean ``mu`` taken off.

    With ``c = b + W mu`` a layer is ``W (x - mu) + c``. Adam works on ``W`` and ``c``: the gradient of ``W`` at fixed
    ``c`` is ``G - g mu'``, where ``G`` and ``g`` are those of ``W`` and ``b``, and after a step of ``W`` by ``dW`` the
    bias moves by ``-dW mu`` more. Without this, the mean of a sigmoid's or softplus' outputs, the largest direction by
    far, takes most of every step, layer upon layer. Gradients of weights are left centered.

    Args:
        params: As for ``torch.optim.Adam``.
        means: For each layer its weight, its bias and the mean of its inputs, of shape ``(fan_in,)``.
        settings: As for ``torch.optim.Adam``.

    Raises:
        NotApplicableError: If a layer is spread over processes.

    Reference:
        Schraudolph, Centering Neural Network Gradients, 1998, sec. 2. https://doi.org/10.1007/3-540-49430-8_11
    """

    def __init__(
        self, params: Any, means: Iterable[tuple[nn.Parameter, nn.Parameter, Tensor]] = (), **settings: Any
    ) -> None:
        super().__init__(params, **settings)
        means = list(means)
        if any(sharded_dims(parameter) for weight, bias, _ in means for parameter in (weight, bias)):
            raise NotApplicableError(
                "CenteredAdam: expected parameters that each process holds whole, got shards of them (FSDP2). "
                "Use DDP or optimizer(name=...)."
            )
        self._means = [(weight, bias, mean.to(weight)) for weight, bias, mean in means]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_means": self._means}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; layers without gradients are left out."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        layers = [each for each in self._means if each[0].grad is not None and each[1].grad is not None]
        for weight, bias, mean in layers:
            assert weight.grad is not None
            assert bias.grad is not None
            weight.grad.addr_(bias.grad, mean, alpha=-1)
        before = [weight @ mean for weight, _, mean in layers]
        super().step()
        found_inf = getattr(self, "found_inf", None)  # from GradScaler: the fused kernel skipped this step
        if found_inf is not None and found_inf.item():
            return loss
        for (weight, bias, mean), old in zip(layers, before, strict=True):
            bias.add_(old).addmv_(weight, mean, alpha=-1)
        return loss


@dataclass(frozen=True)
class _Factory:
    """An optimizer factory: :class:`CenteredAdam` with a rate for each parameter, all by position.

    Attributes:
        rates: Learning rates, one a parameter.
        means: Positions of a layer's weight and bias, and the mean of its inputs.
    """

    rates: tuple[float, ...]
    means: tuple[tuple[int, int, Tensor], ...]

    def __call__(self, parameters: Iterable[nn.Parameter]) -> CenteredAdam:
        """Build the optimizer; parameters with alike rates share a group."""
        given = list(parameters)
        if len(given) != len(self.rates):
            raise NotApplicableError(
                f"centered_updates: expected the {len(self.rates)} parameters that it measured, got {len(given)}. "
                "Apply it after all remedies that change the model."
            )
        groups = defaultdict[int, list[nn.Parameter]](list)
        for parameter, rate in zip(given, self.rates, strict=True):
            groups[round(_RATES_PER_OCTAVE * math.log2(rate))].append(parameter)
        params = [{"params": group, "lr": 2 ** (key / _RATES_PER_OCTAVE)} for key, group in groups.items()]
        means = [(given[weight], given[bias], mean) for weight, bias, mean in self.means]
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in given)
        return CenteredAdam(params, means, betas=_BETAS, fused=fused)


@remedy(
    Card(
        name="centered_updates",
        treats=(Symptom.VANISHING, Symptom.EXPLODING, Symptom.LEARNING_RATE),
        site=Site.OPTIMIZER,
        summary="Adam on centered gradients, with rates that let all layers share alike in a step's effect.",
        formula="G <- G - g mu'; lr_W = lr s / (l n E|x - mu|), lr_b = lr s / l for outputs of deviation s, n inputs x "
        "of mean mu, l = L in hidden layers, 1 in the first and the last; b <- b - dW mu",
        not_for="Signals that are lost on the way: initialize with method='isometric' first.",
        hurts="Rates and means are those of the start; a remedy that changes the model afterwards makes them wrong.",
        cost="one forward pass; two products of a matrix and a vector a layer and step",
        reference="Schraudolph 1998, https://doi.org/10.1007/3-540-49430-8_11; Bernstein et al. 2020, On the Distance "
        "Between Two Neural Networks, https://arxiv.org/abs/2002.03432 (relative steps of 1/L)",
    )
)
def centered_updates(setup: TrainingSetup, *, lr: float = 0.3) -> TrainingSetup:
    """Replace the optimizer of a plain network by Adam with centered gradients and a rate for each layer.

    Adam moves every weight by about its rate, so the output of a layer with ``n`` inputs by at most
    ``rate * n * E|x - mu|``. Rates are such that this is the share ``lr`` of the output's standard deviation in the
    first and the last layer, and ``lr / L`` in each of the ``L`` hidden layers between: their changes add up. So do
    those of the calls of an ``nn.RNN``, over which ``n * E|x - mu|`` is summed.

    Args:
        setup: The set-up to change; ``mu``, deviations and ``E|x - mu|`` are measured on the first training batch.
        lr: Largest share by which a step changes the output of the last layer.

    Raises:
        NotApplicableError: If a trainable parameter belongs to neither a Linear layer nor an ``nn.RNN``, a layer is
            used twice, or no signal reaches it.
    """
    if not 0 < lr < math.inf:
        raise UsageError(f"centered_updates: expected lr above 0 and finite, got {lr}. Typical values are 0.1 to 1.")
    maps = _measure(setup)
    last = max(each.layer for each in maps) if maps else 0
    rates: dict[int, float] = {}
    for each in maps:
        share = lr * each.std / (1 if each.layer in (0, last) else last - 1)
        rates[id(each.weight)] = share / each.reach
        if each.bias is not None:
            rates[id(each.bias)] = share / each.calls
    order = [id(parameter) for parameter in trainable(setup.model)]
    if not rates.keys() >= set(order):
        raise NotApplicableError(
            "centered_updates: expected all trainable parameters in Linear layers and nn.RNN, found others. "
            "Use optimizer(name=...)."
        )
    position = {parameter: at for at, parameter in enumerate(order)}
    means = tuple(
        (position[id(each.weight)], position[id(each.bias)], each.mean)
        for each in maps
        if each.mean is not None and {id(each.weight), id(each.bias)} <= position.keys()
    )
    factory: Any = _Factory(tuple(rates[each] for each in order), means)
    factory = with_weight_steps(factory, weight_steps(setup.optimizer))
    return setup.replace(optimizer=with_transforms(factory, gradient_transforms(setup.optimizer)))


class _Map(NamedTuple):
    """One weight, its bias, and what one batch makes of them."""

    layer: int  # in order of execution
    weight: Tensor
    bias: Tensor | None
    mean: Tensor | None  # of each input, where the bias can make up for it
    reach: float  # n E|x - mu|, summed over the calls in one forward pass
    calls: int
    std: float  # of the layer's outputs around the mean of each unit


def _measure(setup: TrainingSetup) -> list[_Map]:
    """Return what the first training batch makes of each Linear layer and RNN."""
    found: dict[nn.Module, list[_Map]] = {}

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        if module in found:
            raise NotApplicableError(
                f"centered_updates: expected each layer called once, found a second call of {module}. "
                "Use optimizer(name=...)."
            )
        read = _read_linear if isinstance(module, nn.Linear) else _read_rnn
        found[module] = read(len(found), module, args[0].double(), output)  # type: ignore[arg-type]  # by its class
        for each in found[module]:
            if not (0 < each.reach < math.inf and 0 < each.std < math.inf):
                raise NotApplicableError(
                    f"centered_updates: expected a signal in each layer, got inputs that reach {each.reach:.3g} and "
                    f"outputs of deviation {each.std:.3g} at {module}. Initialize with method='isometric' first."
                )

    with preserved(setup.model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for module in setup.model.modules():
            if isinstance(module, (nn.Linear, nn.RNN)):
                module.register_forward_hook(note)
        run_model(setup, setup.model, first_batch(setup))
    return [each for maps in found.values() for each in maps]


def _read_linear(layer: int, module: nn.Linear, x: Tensor, output: Tensor) -> list[_Map]:
    x, z = x.flatten(0, -2), output.double().flatten(0, -2)
    mean = x.mean(0)
    reach = module.in_features * (x - mean).abs().mean().item()
    return [_Map(layer, module.weight, module.bias, mean, reach, 1, _deviation(z))]


def _read_rnn(layer: int, module: nn.RNN, x: Tensor, output: tuple[Tensor, Tensor]) -> list[_Map]:
    """Return the maps from inputs and from states of a layer that makes many calls, which add up."""
    if module.num_layers > 1 or module.bidirectional or x.dim() != 3:
        raise NotApplicableError(
            f"centered_updates: expected an nn.RNN of one layer and direction on batches, got {module}. "
            "Use optimizer(name=...)."
        )
    samples = 0 if module.batch_first else 1
    states = output[0].double()
    steps = x.shape[1 - samples]
    std = _deviation(states.select(1 - samples, -1))
    reaches = {
        "ih": module.input_size * steps * (x - x.mean(samples, keepdim=True)).abs().mean().item(),
        "hh": module.hidden_size * steps * states.abs().mean().item(),
    }
    own = dict(module.named_parameters(recurse=False))
    return [
        _Map(layer, own[f"weight_{kind}_l0"], own.get(f"bias_{kind}_l0"), None, reach, steps, std)
        for kind, reach in reaches.items()
    ]


def _deviation(z: Tensor) -> float:
    return (z - z.mean(0)).square().mean().sqrt().item()
