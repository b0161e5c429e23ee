"""What was measured, as JSON lines: one file a claim, one line a seed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.claims.claim import fingerprint
from steadygrad.records import to_plain
from steadygrad.records.serial import write_whole

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        seed: Its seed.
        numbers: What came out.
        seconds: How long it took.
        fingerprint: Of the experiment; a result of another one counts no more.
        torch: Version.
        machine: Where it ran, in words.
        date: When, as YYYY-MM-DD.
    """

    seed: int
    numbers: dict[str, float]
    seconds: float
    fingerprint: str
    torch: str
    machine: str
    date: str


def load(name: str) -> list[Result]:
    """Return what the experiment of a claim, as it is now, has given, in the order of seeds."""
    path = FOLDER / f"{name}.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    stored, now = (Result(**json.loads(line)) for line in lines), fingerprint(name)
    return sorted((result for result in stored if result.fingerprint == now), key=lambda result: result.seed)


def save(name: str, results: list[Result]) -> None:
    """Write the results of a claim, whole or not at all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    ordered = sorted(results, key=lambda result: result.seed)
    lines = (json.dumps(to_plain(asdict(result)), allow_nan=False) for result in ordered)
    write_whole(FOLDER / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
