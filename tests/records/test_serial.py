from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from steadygrad.records import Severity, Step, Verdict, to_json, to_plain, whole_file, write_whole


@dataclass(frozen=True)
class Record:
    verdict: Verdict
    severity: Severity
    numbers: tuple[float, ...]
    step: Step


RECORD = Record(Verdict.NOT_CURED, Severity.WARNING, (1.5, math.nan, math.inf, -math.inf), Step("clip", {"max": 1.0}))


def test_records_become_plain_data() -> None:
    assert to_plain(RECORD) == {
        "verdict": "not cured",
        "severity": "warning",
        "numbers": [1.5, "nan", "inf", "-inf"],
        "step": {"remedy": "clip", "settings": {"max": 1.0}, "answers": []},
    }


def test_json_holds_no_bare_nan_and_nothing_but_ascii() -> None:
    text = to_json({"record": RECORD, "layer": "schicht-\u00e4-\ud800"})
    assert text.isascii()
    assert json.loads(text, parse_constant=pytest.fail)["record"] == to_plain(RECORD)


def test_a_file_is_written_whole_with_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    previous = os.umask(0o027)
    try:
        write_whole(path, "first\n")
        write_whole(path, "second \u00e4\n")
    finally:
        os.umask(previous)
    assert path.read_bytes() == "second \u00e4\n".encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_what_was_there_and_leaves_no_draft(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail() -> None:
        with whole_file(path) as draft:
            draft.write_text("half of the ne")
            raise error("interrupted")

    with pytest.raises(error, match="interrupted"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_whole(tmp_path / "file", "\ud800")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        write_whole(tmp_path / "gone" / "file", "text")
