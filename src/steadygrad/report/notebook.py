"""Let a notebook show a :class:`~steadygrad.records.Diagnosis` as a table.

``records`` is plain data below this package and may not import it, so the method is attached here, once, when
``steadygrad.report`` is imported.
"""

from __future__ import annotations

from steadygrad.records import Diagnosis
from steadygrad.report.page import notebook_html

__all__: list[str] = []

Diagnosis._repr_html_ = notebook_html  # type: ignore[attr-defined]  # attached, for the reason above
