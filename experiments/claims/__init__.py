"""The claims of five articles about vanishing and exploding gradients, each a small controlled experiment.

One file a claim in ``catalogue``; ``python -m experiments.claims`` measures, ``docs/claims.md`` is written from the
results.
"""
