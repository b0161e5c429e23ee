"""``docs/rules.md`` is written from the rules: ``python tests/diagnosis/test_rules_page.py > docs/rules.md``."""

from __future__ import annotations

from pathlib import Path

from steadygrad.diagnosis import RULES, Rule

HEAD = """# Rules

Each rule looks at one batch: a forward pass, a backward pass and one optimizer step. How they judge, and how often they
are right, is told in [diagnosis.md](diagnosis.md). `steadygrad explain CODE` prints one of them.

<!-- Written by tests/diagnosis/test_rules_page.py; change the rules and run it. -->
"""


def section(rule: Rule) -> str:
    return f"""
## {rule.code}: {rule.title}

{rule.meaning}

- **Threshold:** {rule.threshold}
- **Source:** {rule.source}
- **What to do:** {rule.advice}
- **Symptom:** {rule.symptom.value}
"""


def page() -> str:
    return HEAD + "".join(section(RULES[code]) for code in sorted(RULES))


def test_the_page_of_rules_is_up_to_date(checkout: Path) -> None:
    assert (checkout / "docs" / "rules.md").read_text(encoding="utf-8") == page(), __doc__


if __name__ == "__main__":
    print(page(), end="")
