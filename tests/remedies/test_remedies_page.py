"""The cards write ``docs/remedies.md``: ``python tests/remedies/test_remedies_page.py > docs/remedies.md``."""

from __future__ import annotations

from pathlib import Path

import steadygrad.boltzmann.pretraining  # noqa: F401  # it adds itself to the catalogue
from steadygrad.records import Symptom
from steadygrad.remedies import CATALOGUE, GLOSSARY
from steadygrad.remedies.remedy import Factory

HEAD = """# Remedies

Every remedy changes a `TrainingSetup` into a new one and composes with all others. `steadygrad remedies` lists them,
`steadygrad remedies NAME` shows one card, `steadygrad remedies --treats vanishing` those for a symptom.

```python
import torch
from torch import nn

from steadygrad import TrainingSetup
from steadygrad.remedies import compose, make

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
data = torch.randn(64, 8), torch.randint(3, (64,))
setup = TrainingSetup(model, nn.functional.cross_entropy, data, optimizer=torch.optim.AdamW)
cure = compose(make("initialization", method="he"), make("clip_by_global_norm", max_norm=1.0))
treated = cure(setup)
```

<!-- Written by tests/remedies/test_remedies_page.py; change the cards or the glossary and run it. -->
"""


def by_symptom() -> str:
    lines = ["\n## By symptom\n\n| symptom | remedies |\n|---|---|\n"]
    for symptom in Symptom:
        names = [name for name in sorted(CATALOGUE) if symptom in CATALOGUE[name].card.treats]
        lines.append(f"| {symptom.value} | {links(names)} |\n")
    names = [name for name in sorted(CATALOGUE) if not CATALOGUE[name].card.treats]
    lines.append(f"| none of these | {links(names)} |\n")
    return "".join(lines)


def links(names: list[str]) -> str:
    return ", ".join(f"[{name}](#{name})" for name in names)


def section(factory: Factory) -> str:
    card = factory.card
    lines = [
        ("Treats", ", ".join(card.treats) or "no gradient symptom"),
        ("Does not cure", card.not_for),
        ("Hurts", card.hurts),
        ("Formula", f"`{card.formula}`" if card.formula else ""),
        ("Settings", f"`{factory.defaults}`" if factory.defaults else "none"),
        ("Changes", card.site.value),
        ("Cost", card.cost),
        ("Source", card.reference),
    ]
    return f"\n### {card.name}\n\n{card.summary}\n\n" + "".join(f"- **{k}:** {v}\n" for k, v in lines if v)


def glossary() -> str:
    rows = (f"| {t.name} | {f'[{t.remedy}](#{t.remedy})' if t.remedy else 'none'} | {t.note} |\n" for t in GLOSSARY)
    return (
        "\n## What others call them\n\nThe five articles that this project started from name these techniques, not "
        "always by the usual name.\n\n| technique | remedy | note |\n|---|---|---|\n" + "".join(rows)
    )


def page() -> str:
    return (
        HEAD
        + by_symptom()
        + "\n## Cards\n"
        + "".join(section(CATALOGUE[name]) for name in sorted(CATALOGUE))
        + glossary()
    )


def test_the_page_of_remedies_is_up_to_date(checkout: Path) -> None:
    assert (checkout / "docs" / "remedies.md").read_text(encoding="utf-8") == page(), __doc__


if __name__ == "__main__":
    print(page(), end="")
