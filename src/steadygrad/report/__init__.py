"""Render records for people, on the terminal and as one HTML page; compute nothing.

The terminal's renderables stand in :mod:`steadygrad.report.text`, to be imported from there: they need rich, which
``import steadygrad`` does not load.
"""

from __future__ import annotations

from steadygrad.report import notebook as notebook  # attaches Diagnosis._repr_html_
from steadygrad.report.charts import course_chart, curves_chart, profile_chart
from steadygrad.report.document import Card
from steadygrad.report.heatmap import heat_map
from steadygrad.report.page import diagnosis_page, notebook_html, treatment_page
from steadygrad.report.run import run_page

__all__ = [
    "Card",
    "course_chart",
    "curves_chart",
    "diagnosis_page",
    "heat_map",
    "notebook_html",
    "profile_chart",
    "run_page",
    "treatment_page",
]
