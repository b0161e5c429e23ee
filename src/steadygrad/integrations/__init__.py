"""Doors to other frameworks: one file or folder each, which imports its framework.

``steadygrad.integrations.lightning``, ``.transformers`` and ``.keras`` each hold a ``MonitorCallback``, and ``.keras``
a ``diagnose`` for compiled models. Accelerate and Fabric need none: they train a plain loop, which
:class:`steadygrad.Monitor` watches.
"""

from __future__ import annotations

__all__: list[str] = []
