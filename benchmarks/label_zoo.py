"""Train every case of the zoo on three seeds and save what became of it; goes on where it was interrupted.

Run: ``python benchmarks/label_zoo.py``, about ten minutes of one core. The labels lie in
``benchmarks/zoo/labels.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter

import torch
from zoo.cases import SPLITS, case
from zoo.labels import FILE, key, label_of, scores_of, train_reference

from steadygrad.records import write_whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.set_num_threads(1)
    saved = json.loads(FILE.read_text()) if FILE.exists() else {"references": {}, "labels": {}}
    for index in sorted(index for indices in SPLITS.values() for index in indices):
        if str(index) in saved["labels"]:
            continue
        found = case(index)
        name = key(found.data, found.family)
        if name not in saved["references"]:
            saved["references"][name] = train_reference(found)
        begin = time.perf_counter()
        label = label_of(scores_of(found), *saved["references"][name])
        seconds = round((time.perf_counter() - begin) / 3, 2)
        saved["labels"][str(index)] = [label.state, list(label.shares), seconds]
        _save(saved)
    for split, indices in SPLITS.items():
        print(split, dict(Counter(saved["labels"][str(index)][0] for index in indices)))


def _save(saved: dict) -> None:
    rows = ",\n".join(
        f'    "{i}": {json.dumps(row)}' for i, row in sorted(saved["labels"].items(), key=lambda r: int(r[0]))
    )
    references = ",\n".join(f'    "{name}": {json.dumps(row)}' for name, row in sorted(saved["references"].items()))
    write_whole(FILE, f'{{\n  "references": {{\n{references}\n  }},\n  "labels": {{\n{rows}\n  }}\n}}\n')


if __name__ == "__main__":
    main()
