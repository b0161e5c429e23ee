"""The numbers of a look by name, as the dashboards of others take them: totals by default, layers on demand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steadygrad.records.history import STEP_STATISTICS

__all__ = ["scalars_of"]

EXTREMES = ("grad_rms", "update_ratio", "output_rms", "output_grad_rms", "dead_fraction", "saturated_fraction")


def scalars_of(look: Mapping[str, Any], layers: bool) -> dict[str, float]:
    """Return the totals of a look, and of the layers' numbers the smallest and the largest; nothing that is NaN.

    Args:
        look: An event of a monitor.
        layers: Return every layer's numbers too.
    """
    scalars = {name: look[name] for name in STEP_STATISTICS if name in look}
    for statistic in EXTREMES:
        seen = [value for value in look["layers"].get(statistic, ()) if value is not None]
        if seen:
            scalars |= {f"{statistic}/smallest": min(seen), f"{statistic}/largest": max(seen)}
    if layers:
        for statistic, column in look["layers"].items():
            for name, value in zip(look["names"], column, strict=False):
                if value is not None:
                    scalars[f"{statistic}/{name}"] = value
    return {name: value for name, value in scalars.items() if not math.isnan(value)}
