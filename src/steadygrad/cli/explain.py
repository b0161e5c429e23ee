"""``steadygrad explain`` and ``steadygrad rules``: what the codes mean."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from steadygrad.cli.options import Traceback, console
from steadygrad.diagnosis import RULES
from steadygrad.diagnosis import explain as rule_of

__all__ = ["explain", "rules"]


def explain(
    code: Annotated[str, typer.Argument(help="A rule code, as SG101.", show_default=False)],
    traceback: Traceback = False,
) -> None:
    """Explain a rule: what it means, the formula and threshold, the source, what to do."""
    rule = rule_of(code)
    screen = console()
    screen.print(Text(f"{rule.code}  {rule.title}", style="bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for heading, body in (
        ("Symptom", rule.symptom.value),
        ("Meaning", rule.meaning),
        ("Threshold", rule.threshold),
        ("Source", rule.source),
        ("What to do", rule.advice),
    ):
        table.add_row(heading, Text(body))
    screen.print(table)


def rules() -> None:
    """List all rules."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("Code", "Symptom", "Title"):
        table.add_column(heading, no_wrap=True)
    for rule in RULES.values():
        table.add_row(rule.code, rule.symptom.value, rule.title)
    console().print(table)
