"""Leave out a step with a gradient that is not finite on a device, without waiting for it."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

__all__ = ["flag_step", "unflag_step"]


def flag_step(optimizer: Optimizer) -> bool:
    """Have a fused optimizer leave out the step that it is about to make if a gradient is not finite.

    It is the flag of loss scalers: the optimizer's own kernel reads it on the device and returns. Returns whether the
    optimizer reads such a flag; torch's fused ones do.
    """
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not grads:
        return False
    found = torch.zeros((), dtype=torch.float32, device=grads[0].device)
    one = torch.ones_like(found)
    kinds = {grad.dtype for grad in grads}
    for kind in kinds:  # times 1.0: the gradients stay bit for bit as they are
        torch._amp_foreach_non_finite_check_and_unscale_([grad for grad in grads if grad.dtype == kind], found, one)
    optimizer.found_inf = found  # type: ignore[attr-defined]  # grad_scale stays: a clip may have folded itself into it
    return True


def unflag_step(optimizer: Optimizer) -> None:
    """Take the flag away after the step."""
    del optimizer.found_inf  # type: ignore[attr-defined]
