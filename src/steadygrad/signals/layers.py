"""What is what: the role of a module or function, and the bounds of an activation."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.modules import activation as activations
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from steadygrad.records import Role

__all__ = [
    "ACTIVATION_FUNCTIONS",
    "LOSS_FUNCTIONS",
    "RECTIFIERS",
    "SATURATION_BOUNDS",
    "WEIGHT_FUNCTIONS",
    "canonical",
    "fan",
    "fans_of",
    "is_opaque",
    "kind_of",
    "plain_name",
    "role_of",
]

ROLES: tuple[tuple[Role, tuple[type[nn.Module], ...]], ...] = (
    (Role.ATTENTION, (nn.MultiheadAttention,)),
    (Role.LINEAR, (nn.Linear, _ConvNd, nn.Bilinear)),
    (Role.RECURRENT, (nn.RNNBase, nn.RNNCellBase)),
    (Role.EMBEDDING, (nn.Embedding, nn.EmbeddingBag)),
    (Role.NORMALIZATION, (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)),
    (Role.ACTIVATION, tuple(getattr(activations, n) for n in activations.__all__ if n != "MultiheadAttention")),
)

# As torch names its functions; a trailing underscore (in place) is dropped before the look-up.
ACTIVATION_FUNCTIONS = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu celu selu gelu silu mish softplus softsign sigmoid tanh hardtanh "
    "hardsigmoid hardswish logsigmoid hardshrink softshrink tanhshrink threshold softmax softmin log_softmax "
    "expit".split()
)
# Functions that count as a layer if a parameter goes in; True where the weight is (in, out) and not (out, in).
WEIGHT_FUNCTIONS: dict[str, bool] = dict.fromkeys(
    "linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d embedding".split(), False
) | dict.fromkeys("matmul mm bmm addmm baddbmm einsum tensordot __matmul__ __rmatmul__".split(), True)
LOSS_FUNCTIONS = frozenset(
    "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss l1_loss smooth_l1_loss "
    "huber_loss kl_div gaussian_nll_loss poisson_nll_loss hinge_embedding_loss soft_margin_loss multi_margin_loss "
    "multilabel_margin_loss multilabel_soft_margin_loss cosine_embedding_loss margin_ranking_loss triplet_margin_loss "
    "ctc_loss".split()
)

# Outputs beyond these have a slope below 2.5 % of the steepest: for the sigmoid an input beyond +-5, the range of
# DeepDiagnosis (Wardat et al., ICSE 2022); for tanh beyond +-2.5. Hard functions count on the bound itself.
SATURATION_BOUNDS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.00629, 0.99371),
    "tanh": (-0.98742, 0.98742),
    "hardsigmoid": (0.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "softsign": (-0.8419, 0.8419),
}
WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module"})
# Activations that give an exact 0 to a unit that is switched off, and nothing below 0 to any.
RECTIFIERS = frozenset({"relu", "relu6"})


def canonical(kind: str) -> str:
    """Return the function name of an activation's module class or function: ``ReLU`` and ``relu_`` give ``relu``."""
    name = kind.rstrip("_")
    special = {"LeakyReLU": "leaky_relu", "LogSoftmax": "log_softmax", "LogSigmoid": "logsigmoid", "expit": "sigmoid"}
    return special.get(name, name.lower() if name[:1].isupper() else name)


def fan(weight: Tensor) -> tuple[int, int]:
    """Return fan-in and fan-out of a weight of shape ``(out, in, *kernel)``."""
    kernel = math.prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def fans_of(role: Role, parameters: tuple[nn.Parameter, ...]) -> tuple[int, int] | None:
    """Return fan-in and fan-out of a layer with these parameters; None if it has no matrix, or is an embedding."""
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    if not matrices or role is Role.EMBEDDING:
        return None
    # Weight normalization keeps a gain of shape (out, 1) beside the weight, which is larger.
    return fan(max(matrices, key=Tensor.numel) if role is Role.LINEAR else matrices[0])


def kind_of(module: nn.Module) -> str:
    """Return the class name of a module, as it was before ``torch.nn.utils.parametrize``."""
    return type(module).__name__.removeprefix("Parametrized")


def plain_name(name: str) -> str:
    """Return a module's or parameter's qualified name without what ``torch.compile`` and checkpoint wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def role_of(module: nn.Module) -> Role:
    """Return what a module does; a leaf of unknown class with a matrix of its own counts as linear."""
    for role, kinds in ROLES:
        if isinstance(module, kinds):
            return role
    own = list(module.parameters(recurse=False))
    if not any(True for _ in module.children()) and any(parameter.dim() > 1 for parameter in own):
        return Role.LINEAR
    return Role.OTHER


def is_opaque(module: nn.Module) -> bool:
    """Whether a module is seen as one layer from outside: torch's own leaf modules and attention."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    leaf = not any(True for _ in module.children())
    return leaf and type(module).__module__.startswith(("torch.nn.modules", "torch.ao.nn"))
