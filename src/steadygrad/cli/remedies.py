"""``steadygrad remedies``: the catalogue, and the card of one remedy."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import steadygrad.boltzmann.pretraining  # noqa: F401  # it adds itself to the catalogue
from steadygrad.cli.options import Traceback, console
from steadygrad.errors import UsageError
from steadygrad.records import Symptom
from steadygrad.remedies import CATALOGUE, Card, find

__all__ = ["remedies"]


def remedies(
    name: Annotated[
        str | None,
        typer.Argument(help="A remedy, or a technique as others call it.", show_default=False),
    ] = None,
    treats: Annotated[
        str | None, typer.Option(help="Only what treats this symptom: vanishing, exploding ...", show_default=False)
    ] = None,
    traceback: Traceback = False,
) -> None:
    """List all remedies, or show the card of one: what it treats, what it does not cure, when it hurts."""
    if name is None:
        _print_list(_symptom(treats) if treats is not None else None)
    elif treats is not None:
        raise UsageError("remedies: expected a name or --treats, got both. Leave one out.")
    else:
        _print_card(name)


def _print_list(symptom: Symptom | None) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Remedy", no_wrap=True)
    table.add_column("Treats")
    table.add_column("What it does")
    for name, factory in CATALOGUE.items():
        if symptom is None or symptom in factory.card.treats:
            table.add_row(name, Text(_treats(factory.card)), Text(factory.card.summary))
    console().print(table)


def _print_card(name: str) -> None:
    term = find(name)
    factory = CATALOGUE.get(term.remedy)
    screen = console()
    if factory is None:
        screen.print(Text(f"{term.name}: {term.note}"))
        return
    card = factory.card
    screen.print(Text(card.name, style="bold") + Text(f"  {card.summary}", style="not bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for heading, body in (
        ("Asked for", f"{term.name}: {term.note}" if term.note else ""),
        ("Treats", _treats(card)),
        ("Does not cure", card.not_for),
        ("Hurts", card.hurts),
        ("Formula", card.formula),
        ("Settings", factory.defaults or "none"),
        ("Changes", card.site.value),
        ("Cost", card.cost),
        ("Source", card.reference),
    ):
        if body:
            table.add_row(heading, Text(body))
    screen.print(table)


def _treats(card: Card) -> str:
    return ", ".join(card.treats) or "no gradient symptom"


def _symptom(text: str) -> Symptom:
    for symptom in Symptom:
        if text.lower().replace("_", " ").replace("-", " ") == symptom.value.replace("-", " "):
            return symptom
    raise UsageError(f"--treats: expected one of {', '.join(Symptom)}, got {text!r}.")
