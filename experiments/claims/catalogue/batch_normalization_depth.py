"""Plain ReLU networks of 10, 30 and 60 layers with batch normalization before every activation: growth of the loss
gradient from the last hidden layer to the first, before training. Layer normalization for comparison.
"""

from torch import nn

from experiments.claims.claim import Claim, Outcomes
from experiments.claims.networks import gradient_growth, stack
from experiments.claims.verdict import Condition, Verdict, values

DEPTHS = (10, 30, 60)


def normalized(depth: int, seed: int, kind: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for module in stack(nn.ReLU, depth, seed):
        layers.append(module)
        if isinstance(module, nn.Linear) and module.out_features != 10:
            layers.append(kind(module.out_features))
    return nn.Sequential(*layers)


def measure(seed: int, quick: bool) -> dict[str, float]:
    kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    return {
        f"{name} normalization, {depth} layers": gradient_growth(normalized(depth, seed, kind))
        for name, kind in kinds.items()
        for depth in DEPTHS
    }


def judge(outcomes: Outcomes) -> Verdict:
    return Verdict(tuple(Condition(key, values(outcomes, key), -1, 1) for key in outcomes[0] if "batch" in key))


CLAIM = Claim(
    sentence="Batch normalization keeps the scale of gradients steady across the layers.",
    articles=("001", "002", "004"),
    criterion="The gradient of a network of He's or PyTorch's own weights stays within a factor 10 over the depth.",
    measure=measure,
    judge=judge,
)
