"""What a continuous integration reads and writes: annotations, SARIF, and findings that are known already."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steadygrad.diagnosis import RULES
from steadygrad.errors import UsageError
from steadygrad.records import Diagnosis, Finding, Severity, to_json, write_whole

__all__ = ["Settings", "fingerprint", "github", "known_in", "sarif", "settings", "without", "write_known"]

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
SARIF_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
GITHUB_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


@dataclass(frozen=True, slots=True)
class Settings:
    """``[tool.steadygrad]`` of ``pyproject.toml``: what to apply, what to leave out, what is known."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    baseline: str | None = None


def settings(folder: Path) -> Settings:
    """Read the settings of the nearest ``pyproject.toml`` at or above a folder.

    Raises:
        UsageError: If it cannot be read, or a key is unknown or of another kind.
    """
    path = next((f / "pyproject.toml" for f in (folder, *folder.parents) if (f / "pyproject.toml").is_file()), None)
    if path is None:
        return Settings()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("steadygrad", {})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected a TOML file that can be read, got {error}. Repair it.") from error
    lists = all(isinstance(table.get(key, []), list) for key in ("select", "ignore"))
    if set(table) - {"select", "ignore", "baseline"} or not lists or not isinstance(table.get("baseline", ""), str):
        raise UsageError(
            f"{path}: expected in [tool.steadygrad] lists select and ignore and a file name baseline, got "
            f"{', '.join(sorted(table))}. Write for instance ignore = ['SG401', 'SG302:encoder.0']."
        )
    baseline = str(path.parent / table["baseline"]) if "baseline" in table else None
    return Settings(tuple(table.get("select", ())), tuple(table.get("ignore", ())), baseline)


def fingerprint(finding: Finding) -> str:
    """Return what tells a finding from others, whatever its numbers: ``SG401:encoder.0``."""
    return f"{finding.code}:{finding.layer or ''}"


def without(diagnosis: Diagnosis, known: Iterable[str]) -> Diagnosis:
    """Return the diagnosis without the findings of these fingerprints."""
    known = set(known)
    return replace(diagnosis, findings=tuple(f for f in diagnosis.findings if fingerprint(f) not in known))


def known_in(path: Path) -> list[str]:
    """Return the fingerprints that a baseline file holds.

    Raises:
        UsageError: If it is missing or holds something else.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["known"]
        return [str(entry) for entry in known]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--baseline: expected a file of known findings, got {str(path)!r} ({type(error).__name__}). "
            "Make one with --write-baseline."
        ) from error


def write_known(path: Path, diagnosis: Diagnosis) -> None:
    """Write the fingerprints of all findings."""
    write_whole(path, to_json({"known": sorted({fingerprint(finding) for finding in diagnosis.findings})}))


def github(diagnosis: Diagnosis, file: str) -> str:
    """Return one GitHub workflow command a finding, newlines and signs escaped."""
    lines = []
    for finding in diagnosis.findings:
        where = f"{finding.layer}: " if finding.layer else ""
        title = _property(f"{finding.code} {RULES[finding.code].title}")
        level = GITHUB_LEVELS[finding.severity]
        text = _data(f"{where}{finding.message}. {finding.advice}")
        lines.append(f"::{level} file={_property(file)},title={title}::{text}")
    return "\n".join(lines)


def sarif(diagnosis: Diagnosis, file: str, version: str) -> str:
    """Return the findings as SARIF 2.1.0 (OASIS, 2020), one run, one result a finding."""
    codes = sorted({finding.code for finding in diagnosis.findings})
    rules = [
        {
            "id": code,
            "name": RULES[code].title,
            "shortDescription": {"text": RULES[code].title},
            "fullDescription": {"text": RULES[code].meaning},
            "help": {"text": RULES[code].advice},
        }
        for code in codes
    ]
    results = [_result(finding, codes.index(finding.code), file) for finding in diagnosis.findings]
    driver = {"name": "steadygrad", "version": version, "rules": rules}
    return to_json(
        {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    )


def _result(finding: Finding, rule: int, file: str) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": Path(file).as_posix()}}}
    if finding.layer is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.layer, "kind": "member"}]
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": SARIF_LEVELS[finding.severity],
        "message": {"text": f"{finding.message}. {finding.advice}"},
        "locations": [location],
        "partialFingerprints": {"finding/v1": fingerprint(finding)},
    }


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
