"""All rules by code."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from steadygrad.diagnosis import (
    activations,
    contrastive,
    curvature,
    data,
    disconnected,
    initialization,
    learning_rate,
    nonfinite,
    optimizer,
    over_time,
    propagation,
    wiring,
)
from steadygrad.diagnosis.rule import Rule
from steadygrad.errors import UsageError

__all__ = ["RULES", "explain", "select_rules"]

RULES: dict[str, Rule] = {
    rule.code: rule
    for module in (
        propagation,
        disconnected,
        nonfinite,
        activations,
        initialization,
        learning_rate,
        curvature,
        optimizer,
        over_time,
        wiring,
        data,
        contrastive,
    )
    for rule in module.RULES
}


def explain(code: str) -> Rule:
    """Return the rule of a code.

    Raises:
        UsageError: If there is none.
    """
    if code.upper() not in RULES:
        near = get_close_matches(code.upper(), RULES, n=1)
        hint = f"Did you mean {near[0]}?" if near else "steadygrad rules lists them."
        raise UsageError(f"rules: expected a rule code, got {code!r}. {hint}")
    return RULES[code.upper()]


def select_rules(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Rule]:
    """Return the rules whose codes start with one of ``select`` (all if empty) and with none of ``ignore``.

    Raises:
        UsageError: If a prefix matches no rule.
    """
    select, ignore = [s.upper() for s in select], [i.upper() for i in ignore]
    for prefix in (*select, *ignore):
        if not prefix or not any(code.startswith(prefix) for code in RULES):
            explain(prefix)
    chosen = [rule for rule in RULES.values() if not select or rule.code.startswith(tuple(select))]
    return [rule for rule in chosen if not rule.code.startswith(tuple(ignore))] if ignore else chosen
