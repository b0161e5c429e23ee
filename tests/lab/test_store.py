from __future__ import annotations

import math
import os
import sqlite3
from pathlib import Path

import pytest

from steadygrad.errors import StoreError
from steadygrad.lab import Result, Store

RESULT = Result(
    {"lr": 0.1, "name": "a", "flag": True, "none": None},
    looked=(1, 2),
    losses=(2.0, 1.0),
    scores=(0.5, -math.inf),
    train=0.9,
    test=None,
    engine="plain",
    seconds=1.5,
)


def test_what_is_stored_comes_back_as_it_was(tmp_path: Path) -> None:
    with Store(tmp_path / "a.sqlite") as store:
        store.add(["k"], [RESULT])
    with Store(tmp_path / "a.sqlite") as store:
        assert store.get("k") == RESULT
        assert list(store) == [RESULT]
        assert len(store) == 1
        assert "k" in store
        assert store.get("other") is None


def test_a_result_is_stored_once() -> None:
    store = Store()
    store.add(["k"], [RESULT])
    store.add(["k"], [Result({})])
    assert list(store) == [RESULT]


@pytest.mark.parametrize("content", [b"no database at all, only text" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_store_is_told_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.sqlite: expected a store of results, got a damaged or foreign file"):
        Store(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match=r"expected a store of results, got another database\. Name another file"):
        Store(path)


def test_a_damaged_store_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with Store(path) as store:
        store.add([str(i) for i in range(200)], [RESULT] * 200)
    content = bytearray(path.read_bytes())
    content[8192:20000] = b"\xff" * (20000 - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        list(Store(path))


def test_a_row_of_another_form_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.sqlite")
    with store._database:
        store._database.execute("INSERT INTO results VALUES ('k', '{}')")
    with pytest.raises(StoreError, match="damaged or foreign"):
        store.get("k")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"unable to open database file.* run again to resume"):
        Store(tmp_path / "no" / "a.sqlite")


def test_a_full_disk_keeps_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    store = Store(path)
    store.add(["first"], [RESULT])
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages + 2}")  # as a full disk: SQLite raises the same
    keys = [str(i) for i in range(500)]
    with pytest.raises(StoreError, match=r"database or disk is full\. What was stored before stays: free space"):
        store.add(keys, [RESULT] * 500)
    assert list(store) == [RESULT], "none of a batch that did not fit"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_store_on_a_full_device_is_told() -> None:
    with pytest.raises(StoreError):
        Store("/dev/full")


def test_two_drivers_on_one_store_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    first, second = Store(path), Store(path)
    second._database.execute("PRAGMA busy_timeout = 10")
    first._database.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"database is locked.* end other programs that use the file"):
        second.add(["k"], [RESULT])
