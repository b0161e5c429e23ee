"""``steadygrad watch`` on scripts written as tutorials write them; ``show`` and ``compare`` on what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import steadygrad
from steadygrad.monitor import read_run

HEAD = """
import sys, torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0); torch.set_num_threads(1)
x, y = torch.randn(256, 8), torch.randint(0, 3, (256,))
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
PLAIN = """
for step in range(12):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
print("done", sys.argv[1:], f"{loss.item():.6f}")
"""
CLOSURE = """
for step in range(12):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss
    optimizer.step(closure)
"""
COMPILED = """
fast = torch.compile(model, backend="aot_eager")
for step in range(12):
    loss = F.cross_entropy(fast(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
ACCUMULATED = """
for step in range(48):
    k = step % 4 * 64
    (F.cross_entropy(model(x[k:k + 64]), y[k:k + 64]) / 4).backward()
    if step % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
"""
GAN = """
netG, netD = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optG, optD = torch.optim.Adam(netG.parameters()), torch.optim.Adam(netD.parameters())
for step in range(12):
    netD.zero_grad()
    F.binary_cross_entropy_with_logits(netD(x), torch.ones(256, 1)).backward()
    fake = netG(torch.randn(256, 4))
    F.binary_cross_entropy_with_logits(netD(fake.detach()), torch.zeros(256, 1)).backward()
    optD.step()
    netG.zero_grad()
    F.binary_cross_entropy_with_logits(netD(fake), torch.ones(256, 1)).backward()
    optG.step()
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(steadygrad.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "import sys; from steadygrad.cli.main import main; sys.exit(main())", *arguments]
    if arguments[0].endswith(".py"):
        command = [sys.executable, *arguments]
    # A background job of a shell ignores Ctrl-C, and what it starts would too.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, preexec_fn=heed
    )


def script(folder: Path, body: str) -> None:
    (folder / "train.py").write_text(HEAD + body, encoding="utf-8")


@pytest.mark.slow
def test_a_plain_loop_keeps_output_and_exit_code_and_leaves_a_run(tmp_path: Path) -> None:
    script(tmp_path, PLAIN + "\nsys.exit(7)\n")
    alone = run("train.py", "--lr", "0.1", cwd=tmp_path)
    watched = run("watch", "train.py", "--every", "1", "--out", "a", "--", "--lr", "0.1", cwd=tmp_path)
    assert (watched.returncode, watched.stdout) == (7, alone.stdout), watched.stderr
    assert "done ['--lr', '0.1']" in watched.stdout
    history, findings, summary = read_run(tmp_path / "a")
    assert history.steps.tolist() == list(range(12))
    assert not np.isnan(history.column("loss", of="step")).any()
    assert np.isnan(history.column("grad_norm", of="step")[0]), (
        "the first gradients came before the optimizer was known"
    )
    assert not np.isnan(history.column("grad_norm")[1:, [0, 2]]).any()
    assert (findings, summary["ended"]) == ([], "exited")

    second = run("watch", "train.py", "--every", "2", "--out", "b", cwd=tmp_path)
    assert second.returncode == 7
    shown = run("show", "a", cwd=tmp_path)
    assert (shown.returncode, "12 steps, 12 looks, exited" in shown.stdout) == (0, True), shown.stderr
    compared = run("compare", "a", "b", cwd=tmp_path)
    assert (compared.returncode, "layers that differ most" in compared.stdout) == (0, True), compared.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("body", "layers"), [(CLOSURE, 3), (COMPILED, 3), (ACCUMULATED, 3), (GAN, 5)])
def test_scripts_as_tutorials_write_them(tmp_path: Path, body: str, layers: int) -> None:
    script(tmp_path, body)
    watched = run("watch", "train.py", "--every", "1", "--out", "run", cwd=tmp_path)
    assert watched.returncode == 0, watched.stderr
    assert "did not see" not in watched.stderr
    history, _, summary = read_run(tmp_path / "run")
    assert summary["steps"] == 12
    assert history.steps.tolist() == list(range(12))
    assert len(history.layers) == layers
    seen = history.column("grad_norm")[1:]
    assert (~np.isnan(seen).all(axis=0)).sum() == (3 if layers == 5 else 2)
    assert not np.isnan(history.column("output_rms")[1:]).any()
    assert not np.isnan(history.column("loss", of="step")).any()


@pytest.mark.slow
def test_tensorboard_gets_the_looks(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(HEAD + PLAIN)
    options = ("--every", "1", "--out", "run", "--tensorboard", "board")
    run("watch", "train.py", *options, cwd=tmp_path)
    history, _, _ = read_run(tmp_path / "run")
    shown = EventAccumulator(str(tmp_path / "board")).Reload()
    norms = {event.step: event.value for event in shown.Scalars("steadygrad/grad_norm")}
    seen = history.column("grad_norm", of="step")
    assert list(norms) == history.steps[np.isfinite(seen)].tolist()
    np.testing.assert_allclose(list(norms.values()), seen[np.isfinite(seen)], rtol=1e-5)


@pytest.mark.slow
def test_a_script_that_fails_shows_its_own_traceback_and_leaves_a_run(tmp_path: Path) -> None:
    script(tmp_path, PLAIN + "\nraise ValueError('theirs')\n")
    watched = run("watch", "train.py", "--every", "1", "--out", "run", cwd=tmp_path)
    assert watched.returncode == 1
    assert "ValueError: theirs" in watched.stderr
    assert "runpy" not in watched.stderr
    assert read_run(tmp_path / "run")[2]["ended"] == "failed with ValueError"


@pytest.mark.slow
def test_an_interrupted_script_leaves_a_run(tmp_path: Path) -> None:
    script(tmp_path, PLAIN + "\nimport os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)\n")
    watched = run("watch", "train.py", "--every", "1", "--out", "run", cwd=tmp_path)
    assert watched.returncode == 130
    history, _, summary = read_run(tmp_path / "run")
    assert (summary["ended"], len(history)) == ("interrupted", 12)
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_killed_run_reads_up_to_its_last_line(tmp_path: Path) -> None:
    script(tmp_path, PLAIN + "\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)\n")
    watched = run("watch", "train.py", "--every", "1", "--out", "run", cwd=tmp_path)
    assert watched.returncode == -9
    history, _, summary = read_run(tmp_path / "run")
    assert len(history) >= 11
    assert summary == {"ended": "killed"}
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(line)


def test_wrong_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from steadygrad.cli.main import main

    assert main(["watch", str(tmp_path / "none.py")]) == 2
    assert "none.py: expected a Python script, found none" in capsys.readouterr().err.replace("\n", "")
    assert main(["show", str(tmp_path / "none")]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err
