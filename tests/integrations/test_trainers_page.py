"""The tests of the trainers write the table of ``docs/howto/trainers.md``: what none of them shows is not claimed.

``python -m tests.integrations.test_trainers_page`` prints the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import test_keras, test_trainers, test_two_processes

CALLBACK, MONITOR = "Trainer(callbacks=[MonitorCallback()])", "with sg.Monitor(model, optimizer):"
FIT = "fit(callbacks=[MonitorCallback()])"
ROWS: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("plain PyTorch", f"`{MONITOR}`", test_trainers.test_a_plain_loop),
    ("Lightning", f"`{CALLBACK}`", test_trainers.test_lightning),
    ("Hugging Face Trainer", f"`{CALLBACK}`", test_trainers.test_transformers),
    ("Accelerate", f"`{MONITOR}`, prepared or not", test_trainers.test_accelerate_with_the_plain_monitor),
    ("Fabric", f"`{MONITOR}`, set up or not", test_trainers.test_fabric_with_the_plain_monitor),
    ("Keras 3 on torch", f"`{FIT}`", test_keras.test_the_numbers_are_those_of_a_plain_loop),
    (
        "Keras 3 on TensorFlow: graph, `jit_compile`, `run_eagerly`",
        f"`{FIT}`",
        test_keras.test_the_numbers_are_those_of_a_plain_loop,
    ),
)
COLUMNS = (
    "framework",
    "one line",
    "before clipping",
    "after clipping",
    "activations",
    "accumulation",
    "bfloat16",
    "two processes",
)


def cases(name: str, test: Callable[..., None]) -> list[dict[str, Any]]:
    """Return the arguments that a test is run with."""
    if test.__module__ == test_keras.__name__:
        return test_keras.CELLS["tensorflow" if "TensorFlow" in name else "torch"]
    (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    names = [mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0]
    return [dict(zip(names, [case] if len(names) == 1 else case, strict=True)) for case in mark.args[1]]


def compared(test: Callable[..., None]) -> str:
    """Return the program text that compares what was seen with the truth."""
    if test.__module__ == test_keras.__name__:
        return Path(test_keras.__file__).with_name("keras_fit.py").read_text(encoding="utf-8")
    assert "assert_right(" in inspect.getsource(test)
    return inspect.getsource(test_trainers.assert_right)


def row(name: str, line: str, test: Callable[..., None]) -> str:
    seen, runs = compared(test), cases(name, test)
    together = {case["trainer"] for case in cases("", test_two_processes.test_a_trainer_in_two_processes)}
    answers = (
        '"grad_norm"' in seen,
        '"grad_norm_used"' in seen,
        '"output_rms"' in seen,
        any(int(case["accumulate"]) > 1 for case in runs),
        any(case.get("half") or "bfloat16" in case.get("policy", "") for case in runs),
        test.__name__.removeprefix("test_") in together,
    )
    return f"| {name} | {line} | {' | '.join('yes' if answer else '–' for answer in answers)} |\n"


def table() -> str:
    lines = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    return lines + "".join(row(*entry) for entry in ROWS)


def test_the_table_of_trainers_is_up_to_date(checkout: Path) -> None:
    assert table() in (checkout / "docs" / "howto" / "trainers.md").read_text(encoding="utf-8"), __doc__


if __name__ == "__main__":
    print(table(), end="")
