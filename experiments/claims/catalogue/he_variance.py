"""ReLU stacks of 30 layers with weights of variance 2/n, normal or uniform: growth of the signal and of the gradient
over the depth, and accuracy after 150 steps at the best rate. For comparison variance 1/n.
"""

from collections.abc import Callable

from torch import Tensor, nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import accuracy, best_training, gradient_growth, on_digits, signal_growth, stack
from experiments.claims.verdict import Condition, Verdict, gains, values

DEPTH = 30


def normal(weight: Tensor, factor: float = 2.0) -> None:
    nn.init.normal_(weight, std=(factor / weight.shape[1]) ** 0.5)


def uniform(weight: Tensor) -> None:
    bound = (6 / weight.shape[1]) ** 0.5
    nn.init.uniform_(weight, -bound, bound)


def too_small(weight: Tensor) -> None:
    normal(weight, 1.0)


FILLS: dict[str, Callable[[Tensor], None]] = {"normal": normal, "uniform": uniform, "variance 1/n": too_small}


def measure(seed: int, quick: bool) -> dict[str, float]:
    measured = {}
    for name, fill in FILLS.items():
        model = stack(nn.ReLU, DEPTH, seed, fill, width=64)
        measured[f"signal, {name}"] = signal_growth(model)
        measured[f"gradient, {name}"] = gradient_growth(model)
        measured[f"accuracy, {name}"] = accuracy(best_training(on_digits(model), seed, quick))
    return measured


def judge(outcomes: Outcomes) -> Verdict:
    conditions = []
    for name in ("normal", "uniform"):
        conditions += [
            Condition(f"{of}, {name}", values(outcomes, f"{of}, {name}"), -1, 1) for of in ("signal", "gradient")
        ]
        gain = gains(outcomes, f"accuracy, {name}", "accuracy, variance 1/n")
        conditions.append(Condition(f"accuracy over variance 1/n, {name}", gain, least=0.1))
    return Verdict(tuple(conditions))


CLAIM = Claim(
    sentence="He's initialization, with variance 2/n, keeps signal and gradient of ReLU networks in range.",
    articles=("002",),
    criterion="Signal and gradient stay within a factor 10 over 30 layers, and accuracy is 0.1 above that of "
    "variance 1/n.",
    measure=measure,
    judge=judge,
)
