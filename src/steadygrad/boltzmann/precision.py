"""Which number format the products of a machine are computed in."""

from __future__ import annotations

import torch

from steadygrad.errors import UsageError

__all__ = ["resolve_device", "resolve_precision"]

_FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SMALL = 2**16  # weights; below, the conversions cost more than the products gain


def resolve_precision(precision: str, weights: int, device: torch.device) -> torch.dtype:
    """Return the dtype for ``"auto"``, ``"float32"`` or ``"bfloat16"``.

    ``"auto"`` is bfloat16 for machines of 65,536 weights or more where the processor (AVX512-BF16, AMX) or the GPU has
    it, else float32. Parameters stay in float32 either way.

    Raises:
        UsageError: If the name is unknown.
    """
    if precision == "auto":
        return torch.bfloat16 if weights >= _SMALL and _has_bfloat16(device) else torch.float32
    if precision not in _FORMATS:
        raise UsageError(f"precision: expected 'auto', 'float32' or 'bfloat16', got {precision!r}. Choose one of them.")
    return _FORMATS[precision]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # torch has no public question for these; without an answer float32 is right, only slower.
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and ask() for ask in asks)


def resolve_device(device: str | None) -> torch.device:
    """Return the device of that name; the processor for None.

    Raises:
        UsageError: If it does not exist here.
    """
    try:
        found = torch.device(device or "cpu")
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device: expected a device of this machine, as 'cpu', got {device!r}: {str(error).splitlines()[0]}"
        ) from error
    return found
