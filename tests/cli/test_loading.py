from __future__ import annotations

import sys
from pathlib import Path

import pytest

from steadygrad.cli.loading import load_setup
from steadygrad.errors import LoadError, SetupError, UsageError
from steadygrad.training import TrainingSetup


@pytest.mark.parametrize("target", ["setups.py:healthy", "./setups.py:healthy", "setups:healthy"])
def test_files_and_modules_are_loaded(folder: Path, target: str) -> None:
    assert isinstance(load_setup(target), TrainingSetup)


def test_a_file_elsewhere_may_import_its_neighbors(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "neighbor.py").write_text("from steadygrad import TrainingSetup as given\n")
    (folder / "deep" / "train.py").write_text(
        "from torch import nn\nimport neighbor\ndef setup(): return neighbor.given(nn.Linear(2, 2), len, [], steps=7)\n"
    )
    assert load_setup("deep/train.py:setup").steps == 7


def test_a_file_may_bear_the_name_of_a_loaded_module(folder: Path) -> None:
    import json

    (folder / "json.py").write_text("from setups import healthy\n")
    assert load_setup("json.py:healthy").steps == 30
    assert sys.modules["json"] is json


def test_a_tuple_becomes_a_setup_with_one_batch(folder: Path) -> None:
    setup = load_setup("setups.py:as_tuple")
    assert len(setup.train) == 1
    assert setup.optimizer is None


USAGE = {
    "setups.py": r"^setups.py: expected FILE.py:callable or package.module:callable. Name a callable after a colon",
    "setups.py:": r"^setups.py:: expected FILE.py:callable",
    ":healthy": r"^:healthy: expected FILE.py:callable",
    "setup.py:healthy": r"^setup.py: expected a Python file, found none. Did you mean setups.py\?",
    "gone/setups.py:healthy": r"expected a Python file, found none. The folder gone does not exist",
    "xyz.py:healthy": r"expected a Python file, found none. There is no such file in ",
    "./setups:healthy": r"expected a Python file, found none. Did you mean setups.py\?",
    "nowhere.at.all:healthy": r"^nowhere.at.all: expected an importable module, found none. For a file write nowhere",
    "no-module:healthy": r"^no-module: expected an importable module, found none",
    "..setups:healthy": r"^..setups: expected an importable module, found none",
    "setups.py:helthy": r"^setups.py: expected a callable 'helthy', found none. Did you mean 'healthy'\?",
    "setups.py:zzzzz": r"^setups.py: expected a callable 'zzzzz', found none. It defines network, make, healthy, sick",
    "setups.py:constant": r"^setups.py: expected a callable 'constant', found int. ",
    "setups.py:number": r"expected a TrainingSetup or a tuple \(model, batch, loss\), got int. Return one of them",
    "setups.py:wrong_tuple": r"expected a TrainingSetup or a tuple .*, got \(Linear, tuple, NoneType\)",
}


@pytest.mark.parametrize(("target", "words"), USAGE.items(), ids=USAGE)
def test_a_wrong_target_is_told(folder: Path, target: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load_setup(target)


FAILS = {
    "setups.py:raises": r"^setups.py:raises: the callable failed with RuntimeError: boom \(line 40\)$",
    "setups.py:exits": r"^setups.py:exits: the callable failed with SystemExit: 4 \(line 42\)$",
    "setups.py:wants_more": r"the callable failed with TypeError: wants_more\(\) missing 1 required positional",
}


@pytest.mark.parametrize(("target", "words"), FAILS.items(), ids=FAILS)
def test_a_callable_that_fails_is_told_with_its_line(folder: Path, target: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        load_setup(target)


BROKEN = {
    "import math\n\n1 / 0\n": r"failed with ZeroDivisionError: division by zero \(line 3\)$",
    "import missing_package\n": r"failed with ModuleNotFoundError: No module named 'missing_package' \(line 1\)$",
    "def setup(:\n": r"failed with SyntaxError: invalid syntax \(broken.py, line 1\)$",
    "\nraise SystemExit(2)\n": r"failed with SystemExit: 2 \(line 2\)$",
    "raise ValueError\n": r"failed with ValueError: no message \(line 1\)$",
    "import inner\n": r"failed with KeyError: 'gone' \(line 1\)$",
}


@pytest.mark.parametrize("target", ["broken.py:setup", "broken:setup"], ids=["file", "module"])
@pytest.mark.parametrize(("text", "words"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_file_that_fails_is_told_with_its_line(folder: Path, text: str, words: str, target: str) -> None:
    (folder / "broken.py").write_text(text)
    (folder / "inner.py").write_text("\n\n{}['gone']\n")
    with pytest.raises(SetupError, match=words):
        load_setup(target)


def test_what_the_callable_says_about_its_setup_passes(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"^TrainingSetup: expected optimizer to be a function of the parameters, got"):
        load_setup("setups.py:instance")
