"""What clipping adds to an optimizer step, beside ``torch.nn.utils.clip_grad_norm_`` and timm's adaptive clipping.

All variants take turns in one process on the same tensors, because machines drift. Parameters have the shapes of real
networks and random values; gradients are put back before every burst of steps. torch's clip does the same work
whether it clips or not. On one thread the processor's time counts, on two the clock. Exit code 1 if a bar is missed.

    python benchmarks/clipping.py [--rounds N] [--threads N] [--sets NAME]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from types import MappingProxyType

import torch
from torch import Tensor, nn

from steadygrad.remedies import Gradients, GradientTransform, adaptive_clip, attach, clip_by_global_norm, global_norm

Shapes = list[tuple[int, ...]]
IDLE_BAR, TRIGGERED_BAR, AGC_BAR = 1 / 2, 2 / 3, 5.0
BURST = 4  # steps in a row; more would make gradients denormal


def mlp() -> Shapes:
    """Four layers of 1024 units on 784 inputs, as for MNIST."""
    widths = [784, 1024, 1024, 1024, 10]
    return [shape for i, o in pairwise(widths) for shape in ((o, i), (o,))]


def resnet18() -> Shapes:
    """ResNet-18 on ImageNet."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, inputs if block == 0 else width, 3, 3), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
            if block == 0 and width != inputs:
                shapes += [(width, inputs, 1, 1), (width,), (width,)]
        inputs = width
    return [*shapes, (1000, 512), (1000,)]


def gpt2() -> Shapes:
    """GPT-2 small."""
    norm: Shapes = [(768,), (768,)]
    attention: Shapes = [(2304, 768), (2304,), (768, 768), (768,)]
    feedforward: Shapes = [(3072, 768), (3072,), (768, 3072), (768,)]
    return [(50257, 768), (1024, 768), *(norm + attention + norm + feedforward) * 12, *norm]


SETS = {"MLP": (mlp(), 4.0), "ResNet-18": (resnet18(), 1.0), "GPT-2": (gpt2(), 0.4)}  # and their share of rounds


class Bench:
    """One set of parameters with gradients, and a fused AdamW over them."""

    def __init__(self, shapes: Shapes) -> None:
        torch.manual_seed(0)
        self.parameters = [nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes]
        self.gradients = [torch.randn(shape) for shape in shapes]
        for parameter in self.parameters:
            parameter.grad = torch.empty_like(parameter)
        self.norm = global_norm(self.gradients)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, fused=True)

    def restore(self) -> None:
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad.copy_(gradient)

    def timm(self, clip_factor: float, eps: float = 1e-3) -> None:
        """Clip adaptively as timm does: tensor by tensor, always writing."""
        for parameter in self.parameters:
            gradient = parameter.grad
            limit = _unitwise(parameter.detach()).clamp_(min=eps).mul_(clip_factor)
            norm = _unitwise(gradient)
            clipped = gradient * (limit / norm.clamp(min=1e-6))
            gradient.copy_(torch.where(norm < limit, gradient, clipped))

    @torch.no_grad()
    def ours(self, transform: GradientTransform) -> None:
        gradients = Gradients(self.parameters)
        transform.update(gradients, transform.init(self.parameters), self.parameters)
        gradients.write()


def _unitwise(tensor: Tensor) -> Tensor:
    return tensor.norm(2) if tensor.dim() < 2 else tensor.norm(2, dim=tuple(range(1, tensor.dim())), keepdim=True)


def in_turns(
    bench: Bench,
    variants: dict[str, Callable[[], object]],
    rounds: int,
    transforms: Mapping[str, GradientTransform] = MappingProxyType({}),
) -> dict[str, list[float]]:
    """Return the milliseconds that one call of every variant took, in every round."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-2, rounds):  # two rounds to warm up
        for name, run in variants.items():
            bench.restore()
            attachment = attach(bench.optimizer, transforms[name]) if name in transforms else None
            start = clock()
            run()
            if turn >= 0:
                found[name].append(1e3 * (clock() - start) / BURST)
            if attachment is not None:
                attachment.detach()
    return found


def clip_in_turns(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of steps without clipping, with torch's, and with ours idle and triggered."""

    def burst(clip: Callable[[int], object] = lambda step: None) -> None:
        for step in range(BURST):
            clip(step)
            bench.optimizer.step()

    def bound(step: int) -> float:  # half of what the step before left
        return bench.norm * 0.5 ** (step + 1)

    def torchs() -> None:
        burst(lambda step: nn.utils.clip_grad_norm_(bench.parameters, bound(step)))

    variants = {"step": burst, "torch": torchs, "ours idle": burst, "ours triggered": burst}
    transforms = {
        "ours idle": clip_by_global_norm(2 * bench.norm),
        "ours triggered": clip_by_global_norm(bound),
    }
    return in_turns(bench, variants, rounds, transforms)


def measure(name: str, shapes: Shapes, rounds: int) -> Iterator[tuple[list[str], bool]]:
    """Yield table rows, each with whether it keeps its bar."""
    bench = Bench(shapes)
    heading = [f"{name} {sum(p.numel() for p in bench.parameters) / 1e6:.1f}M", str(torch.get_num_threads())]
    times = clip_in_turns(bench, rounds)
    for variant, bar in (("ours idle", IDLE_BAR), ("ours triggered", TRIGGERED_BAR)):
        ratio = (median(times[variant]) - median(times["step"])) / (median(times["torch"]) - median(times["step"]))
        row = [*heading, variant, spread(times["step"]), spread(times["torch"]), spread(times[variant])]
        yield [*row, f"{ratio:.0%} of what torch adds (at most {bar:.0%})"], ratio <= bar
    for variant, factor in (("AGC idle", 1e3), ("AGC triggered", 1e-3)):
        both = {
            "timm": lambda factor=factor: [bench.timm(factor / 2**i) for i in range(BURST)],
            "AGC": lambda factor=factor: [bench.ours(adaptive_clip(factor / 2**i)) for i in range(BURST)],
        }
        times = in_turns(bench, both, rounds)
        ratio = median(times["timm"]) / median(times["AGC"])
        row = [*heading, variant, "", spread(times["timm"]), spread(times["AGC"])]
        yield [*row, f"{ratio:.1f} times faster than timm's (at least {AGC_BAR:.0f})"], ratio >= AGC_BAR


def spread(times: list[float]) -> str:
    """Return median and quartiles."""
    low, _, high = quantiles(times, n=4)
    return f"{median(times):.2f} ({low:.2f} to {high:.2f})"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="bursts of each variant on ResNet-18")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, fused AdamW\n")
    print("| parameters | threads | variant | step, ms | torch or timm, ms | ours, ms | ratio | kept |")
    print("|---|---|---|---|---|---|---|---|")
    kept = True
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.sets:
            shapes, share = SETS[name]
            for row, good in measure(name, shapes, max(round(share * options.rounds), 4)):
                print(f"| {' | '.join(row)} | {'yes' if good else 'NO'} |", flush=True)
                kept &= good
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
