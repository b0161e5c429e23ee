"""What clipping adds to an optimizer step, beside ``torch.nn.utils.clip_grad_norm_`` and timm's adaptive clipping.

All variants take turns, in a new order every round, in one process on the same tensors, because machines drift.
Parameters have the shapes of real networks and random values; before every turn weights are read and gradients
written, the last layer's first, as a backward pass does. What a variant adds is the median over the rounds of its time
less the bare step's in the same round; "nothing" is the bare step once more, so what it adds is noise. In brackets
stand 90 % bootstrap intervals. torch's clip does the same work whether it clips or not. On one thread the processor's
time counts, on two the clock. timm's loop makes large temporary tensors: it takes up to four times as long where these
are fresh pages, as in a new process, than where larger tensors have been freed before, so give each set a process of
its own. Exit code 1 if a bar is missed.

    python benchmarks/clipping.py [--rounds N] [--threads N ...] [--sets NAME ...] [--without-numba]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from steadygrad.remedies import Gradients, GradientTransform, adaptive_clip, attach, clip_by_global_norm, global_norm
from steadygrad.signals.kernel import squares_kernel

Shapes = list[tuple[int, ...]]
IDLE_BAR, TRIGGERED_BAR, AGC_BAR = 1 / 2, 2 / 3, 5.0
RESAMPLES = 500


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


SETS = {"MLP": (mlp(), 5.0), "ResNet-18": (resnet18(), 1.5), "GPT-2": (gpt2(), 0.4)}  # and their share of rounds


class Bench:
    """One set of parameters with gradients, and a fused AdamW over them."""

    def __init__(self, shapes: Shapes) -> None:
        torch.manual_seed(0)
        self.parameters = [nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes]
        for parameter in self.parameters:
            parameter.grad = torch.empty_like(parameter)
        self.backward()
        self.norm = global_norm(parameter.grad for parameter in self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, fused=True)

    def backward(self) -> None:
        """Read the weights and write the gradients, the last layer's first."""
        for parameter in reversed(self.parameters):
            torch.mul(parameter.detach(), 50.0, out=parameter.grad)

    def torchs(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters, self.norm / 2)
        self.optimizer.step()

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

    def in_turns(self, variants: dict[str, Variant], rounds: int) -> dict[str, list[float]]:
        """Return the milliseconds that every variant took in every round."""
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        found: dict[str, list[float]] = {name: [] for name in variants}
        order, random = list(variants), Random(0)
        for turn in range(-3, rounds):  # the first three to warm up
            random.shuffle(order)
            for name in order:
                run, transform = variants[name]
                self.backward()
                attachment = attach(self.optimizer, transform) if transform else None
                start = clock()
                run()
                took = clock() - start
                if turn >= 0:
                    found[name].append(1e3 * took)
                if attachment is not None:
                    attachment.detach()
        return found


Variant = tuple[Callable[[], object], GradientTransform | None]  # what is timed, and what is on the optimizer meanwhile


def _unitwise(tensor: Tensor) -> Tensor:
    return tensor.norm(2) if tensor.dim() < 2 else tensor.norm(2, dim=tuple(range(1, tensor.dim())), keepdim=True)


def measure(name: str, shapes: Shapes, rounds: int) -> Iterator[tuple[list[str], bool]]:
    """Yield table rows, each with whether it keeps its bar."""
    bench = Bench(shapes)
    heading = [f"{name} {sum(p.numel() for p in bench.parameters) / 1e6:.1f}M", str(torch.get_num_threads())]
    step = bench.optimizer.step
    times = bench.in_turns(
        {
            "step": (step, None),
            "nothing": (step, None),
            "torch": (bench.torchs, None),
            "ours idle": (step, clip_by_global_norm(2 * bench.norm)),
            "ours triggered": (step, clip_by_global_norm(bench.norm / 2)),
        },
        rounds,
    )
    added = {variant: [a - b for a, b in zip(took, times["step"], strict=True)] for variant, took in times.items()}
    for variant, bar in (("nothing", None), ("ours idle", IDLE_BAR), ("ours triggered", TRIGGERED_BAR)):
        ratio, low, high = ratio_of_medians(added[variant], added["torch"])
        row = [*heading, variant, spread(times["step"]), spread(times["torch"]), spread(times[variant])]
        limit = f", at most {bar:.0%}" if bar else ""
        yield [*row, f"{ratio:.0%} ({low:.0%} to {high:.0%}) of what torch adds{limit}"], bar is None or ratio <= bar
    for variant, factor in (("AGC idle", 1e3), ("AGC triggered", 1e-3)):
        times = bench.in_turns(
            {
                "timm": (lambda factor=factor: bench.timm(factor), None),
                "AGC": (lambda factor=factor: bench.ours(adaptive_clip(factor)), None),
            },
            rounds,
        )
        ratio, low, high = ratio_of_medians(times["timm"], times["AGC"])
        row = [*heading, variant, "", spread(times["timm"]), spread(times["AGC"])]
        yield [*row, f"{ratio:.1f} ({low:.1f} to {high:.1f}) times as fast, at least {AGC_BAR:.0f}"], ratio >= AGC_BAR


def ratio_of_medians(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Return the ratio of two medians over the same rounds, and its 90 % bootstrap interval."""
    random, rounds = Random(0), range(len(one))
    ratios = []
    for _ in range(RESAMPLES):
        drawn = random.choices(rounds, k=len(rounds))
        ratios.append(median(one[i] for i in drawn) / median(other[i] for i in drawn))
    ends = quantiles(ratios, n=20)
    return median(one) / median(other), ends[0], ends[-1]


def spread(times: list[float]) -> str:
    """Return median and quartiles."""
    low, _, high = quantiles(times, n=4)
    return f"{median(times):.2f} ({low:.2f} to {high:.2f})"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="per set, times its share")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--without-numba", action="store_true", help="as if it were not installed")
    options = parser.parse_args()
    if options.without_numba:
        sys.modules["numba"] = None
    kernel = "with numba" if squares_kernel() else "without numba"
    print(f"{processor()}, torch {torch.__version__} {kernel}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}\n")
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
