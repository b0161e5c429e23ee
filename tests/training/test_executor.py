from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steadygrad.errors import SetupError, UnsendableError, UsageError
from steadygrad.training import Processes, Serial, register_by_value


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes(2)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_serial_yields_results_in_order_and_as_asked_for() -> None:
    called: list[int] = []

    def double(shared: int, item: int) -> int:
        called.append(item)
        return shared * item

    results = Serial().map(double, 2, [1, 2, 3])
    assert called == [], "nothing runs before it is asked for"
    assert next(results) == 2
    assert called == [1]
    assert list(results) == [4, 6]


@pytest.mark.slow
def test_processes_yield_results_in_order(processes: Processes, temporary: Path) -> None:
    import operator

    assert list(processes.map(operator.mul, 2, range(10))) == [2 * item for item in range(10)]
    assert list(temporary.iterdir()) == [], "the shared file is gone"
    assert list(processes.map(operator.mul, 2, [])) == []


@pytest.mark.slow
def test_workers_use_one_thread_and_the_default_dtype(processes: Processes) -> None:
    def look(shared: None, item: int) -> tuple[int, torch.dtype]:
        import torch

        return torch.get_num_threads(), torch.get_default_dtype()

    torch.set_default_dtype(torch.float64)
    try:
        assert list(processes.map(look, None, [0])) == [(1, torch.float64)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert list(processes.map(look, None, [0])) == [(1, torch.float32)]


@pytest.mark.slow
def test_what_workers_print_does_not_go_to_standard_output(processes: Processes, capfd: pytest.CaptureFixture) -> None:
    def talk(shared: None, item: str) -> None:
        print(item)

    list(processes.map(talk, None, ["hello from a worker"]))
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_an_error_of_a_task_arrives_as_it_is(processes: Processes, temporary: Path) -> None:
    def fail(shared: None, item: int) -> None:
        from steadygrad.errors import SetupError

        raise SetupError("loss: it failed")

    with pytest.raises(SetupError, match=r"^loss: it failed$"):
        list(processes.map(fail, None, [0, 1]))
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_dies_is_one_sentence_and_the_next_run_works(processes: Processes, temporary: Path) -> None:
    def die(shared: None, item: int) -> int:
        import os

        if item == 1:
            os._exit(3)
        return item

    with pytest.raises(SetupError, match=r"^Processes: a worker process died, .* Use fewer workers, a smaller batch"):
        list(processes.map(die, None, [0, 1, 2]))
    assert list(temporary.iterdir()) == []
    assert list(processes.map(max, 5, [3, 7])) == [5, 7]


@pytest.mark.slow
def test_stopping_early_ends_the_workers_quietly(
    processes: Processes, temporary: Path, capfd: pytest.CaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    def pid_then_sleep(shared: None, item: float) -> int:
        import os
        import time

        time.sleep(item)
        return os.getpid()

    pids = set(processes.map(pid_then_sleep, None, [0.0] * 4))
    results = processes.map(pid_then_sleep, None, [0.0, 600.0, 600.0, 600.0])
    next(results)
    results.close()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers still run")
    assert list(temporary.iterdir()) == []
    assert not recwarn.list
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shared", [threading.Lock(), (number for number in range(3))], ids=["lock", "generator"])
def test_what_cannot_be_pickled_is_told_before_a_worker_starts(shared: object, temporary: Path) -> None:
    with pytest.raises(UnsendableError, match=r"^TypeError: cannot pickle"):
        next(Processes(2).map(max, shared, [0]))
    assert list(temporary.iterdir()) == []


@contextlib.contextmanager
def module(name: str) -> Iterator[types.ModuleType]:
    """A module that workers cannot import."""
    made = types.ModuleType(name)
    exec("class Thing:\n    number = 7\n", made.__dict__)
    sys.modules[name] = made
    try:
        yield made
    finally:
        del sys.modules[name]


@pytest.mark.slow
def test_what_cannot_be_rebuilt_in_a_worker_is_told(processes: Processes) -> None:
    with (
        module("only_here") as made,
        pytest.raises(UnsendableError, match=r"^ModuleNotFoundError: No module .*only_here"),
    ):
        next(processes.map(max, made.Thing(), [0]))


@pytest.mark.slow
def test_a_module_registered_by_value_travels_whole(processes: Processes) -> None:
    def number(shared: Any, item: int) -> int:
        return shared.number + item

    with module("travels") as made:
        register_by_value(made)
        assert list(processes.map(number, made.Thing(), [1])) == [8]


def test_workers_are_at_least_one_and_by_default_one_a_core() -> None:
    with pytest.raises(UsageError, match=r"^Processes: expected workers to be at least 1, got 0"):
        Processes(0)
    assert 1 <= Processes().workers <= min(os.cpu_count() or 1, 16)
