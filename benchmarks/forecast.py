"""Foretell from one batch and 20 steps which set-ups of the zoo fail.

Run: ``python benchmarks/forecast.py``, about three minutes of one core. It measures every labelled case (it resumes
from ``--rows``) and scores the forecast of the package on the split that nothing was tuned on. ``--fit`` prints weights
that the development split gives. Exit code 1 if both bars are missed: F1 of .88, or 98 % right on 60 % of the cases.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from zoo import SPLITS, case, labels

import steadygrad as sg
from steadygrad.diagnosis.forecast import CERTAIN, features

Row = dict[str, Any]


def measure(path: Path, split: str) -> list[Row]:
    """Return one row a labelled case of a split that is not grey."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {row["index"] for row in rows}
    labelled = labels()
    with path.open("a") as file:
        for index in SPLITS[split]:
            if index in known or index not in labelled or labelled[index].state == "grey":
                continue
            found = case(index)
            diagnosis = sg.diagnose(found.setup(), forecast=True)
            outlook = diagnosis.observation.outlook
            assert outlook is not None
            assert diagnosis.forecast is not None
            row = {
                "index": index,
                "split": split,
                "family": found.family,
                "data": found.data,
                "faults": found.faults,
                "sick": labelled[index].state == "sick",
                "alarmed": not diagnosis.healthy,
                "codes": [finding.code for finding in diagnosis.findings if finding.severity > 1],
                "probability": diagnosis.forecast.probability,
                "fell": not outlook.before - outlook.after < 0.05 * abs(outlook.before),
                "features": features(diagnosis.blueprint, diagnosis.observation, diagnosis.findings),
            }
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    return [row for row in rows if row["split"] == split]


def f1(sick: np.ndarray, said: np.ndarray) -> float:
    return 2 * float((sick & said).sum()) / max(1, int(sick.sum() + said.sum()))


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def tell(name: str, rows: list[Row], probability: np.ndarray) -> bool:
    """Print one method's figures; whether they reach a bar."""
    sick = np.array([row["sick"] for row in rows])
    said = probability >= 0.5
    sure = (probability <= CERTAIN[0]) | (probability >= CERTAIN[1])
    right, count = int((said == sick)[sure].sum()), int(sure.sum())
    low, high = wilson(right, count)
    score = f1(sick, said)
    print(
        f"{name:34s} F1 {score:.3f}, right {np.mean(said == sick):.3f}; sure of {count / len(rows):.0%}, "
        f"{right}/{count} right [{low:.3f}, {high:.3f}]"
    )
    return score >= 0.88 or (count >= 0.6 * len(rows) and right >= 0.98 * count)


def fit(rows: list[Row]) -> None:
    """Print the weights for the package, and what cross-validation promises."""
    names = list(rows[0]["features"])
    x = np.array([[row["features"][name] for name in names] for row in rows])
    y = np.array([row["sick"] for row in rows])
    model = LogisticRegression(C=2.0, class_weight="balanced", max_iter=5000)
    tell("cross-validation, 10 parts", rows, cross_val_predict(model, x, y, cv=10, method="predict_proba")[:, 1])
    model.fit(x, y)
    print(f"INTERCEPT = {model.intercept_[0]:.3f}")
    for name, weight in zip(names, model.coef_[0], strict=True):
        print(f'    "{name}": {weight:.3f},')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit on the development split and print the weights")
    parser.add_argument("--rows", type=Path, default=Path("forecast.jsonl"), help="where measurements are kept")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    split = "development" if options.fit else "held-out"
    rows = measure(options.rows, split)
    print(f"{split}: {len(rows)} cases, {sum(row['sick'] for row in rows)} of them sick")
    tell("always 'fails'", rows, np.ones(len(rows)))
    tell("any finding of one batch", rows, np.array([float(row["alarmed"]) for row in rows]))
    tell("loss fell by under 5 % in 20 steps", rows, np.array([1.0 - row["fell"] for row in rows]))
    if options.fit:
        fit(rows)
        return 0
    return 0 if tell("the package's forecast", rows, np.array([row["probability"] for row in rows])) else 1


if __name__ == "__main__":
    sys.exit(main())
