"""Doors to other frameworks: one file each, which imports its framework and is imported by nothing else.

``steadygrad.integrations.lightning``, ``.transformers`` and ``.keras`` each hold a ``MonitorCallback``. Accelerate and
Fabric need none: they train a plain loop, which :class:`steadygrad.Monitor` watches.
"""

from __future__ import annotations

__all__: list[str] = []
