"""``steadygrad watch`` on whole scripts in the manner of torch's tutorials, none of which knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from steadygrad.monitor import read_run

from .test_watch import run

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "scripts"


class Watched(NamedTuple):
    """What a run has to show: optimizer steps, layers with gradients, and others whose outputs are read."""

    steps: int
    trained: tuple[str, ...]
    others: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


STACK = "linear_relu_stack"
AMP = Watched(12, ("0", "2", "3", "5"), ("1", "4"))
RUNS = {
    "quickstart": Watched(24, (f"{STACK}.0", f"{STACK}.2", f"{STACK}.4"), (f"{STACK}.1", f"{STACK}.3")),
    "sequence": Watched(6, ("lstm1", "lstm2", "linear")),
    "accumulate_amp": AMP,
    "accumulate_amp, compiled": AMP._replace(arguments=("--compile",)),
    "dcgan": Watched(
        12,
        ("main.0", "main.2", "gen.main.0", "gen.main.1", "gen.main.3"),
        ("main.1", "main.3", "gen.main.2", "gen.main.4"),
    ),
    "lightning_fit": Watched(12, ("0", "2"), ("1",)),  # training_step calls self.net, which is the outermost call
}


@pytest.mark.parametrize("name", RUNS)
def test_a_script_runs_as_it_did_and_leaves_the_history_of_every_layer(tmp_path: Path, name: str) -> None:
    script, expected = str(SCRIPTS / f"{name.partition(',')[0]}.py"), RUNS[name]
    if "lightning" in name:
        pytest.importorskip("lightning")
    alone = run(script, *expected.arguments, cwd=tmp_path)
    watched = run("watch", script, "--every", "1", "--out", "run", "--", *expected.arguments, cwd=tmp_path)
    assert (alone.returncode, watched.returncode) == (0, 0), watched.stderr
    assert watched.stdout == alone.stdout
    assert "did not see" not in watched.stderr
    history, _, summary = read_run(tmp_path / "run")
    assert (summary["steps"], summary["ended"]) == (expected.steps, "finished")
    assert history.steps.tolist() == list(range(expected.steps))
    assert set(history.layers) == {*expected.trained, *expected.others}
    trained = [layer in expected.trained for layer in history.layers]
    later = history.steps > 1  # the first gradients of each optimizer come before it is known
    for statistic in ("grad_norm", "grad_norm_used", "weight_rms", "update_ratio"):
        assert np.isfinite(history.column(statistic)[later][:, trained]).all(), statistic
    assert np.isfinite(history.column("output_rms")[later]).all()
    assert np.isfinite(history.column("loss", of="step")).all()
    if "clip" in Path(script).read_text(encoding="utf-8"):
        assert history.column("grad_norm_used", of="step")[later].max() == pytest.approx(0.1, rel=1e-3)
        assert history.column("grad_norm", of="step")[later].min() > 0.1


def test_the_layer_that_makes_the_first_nan_is_named(tmp_path: Path) -> None:
    watched = run("watch", str(SCRIPTS / "sick.py"), "--every", "2", "--out", "run", cwd=tmp_path)
    assert watched.returncode == 0, watched.stderr
    assert "5: nan" in watched.stdout
    assert "steadygrad error SG203 at standardize" in watched.stderr
    _, findings, _ = read_run(tmp_path / "run")
    assert [(finding["code"], finding["layer"]) for finding in findings][:1] == [("SG203", "standardize")]
    assert (tmp_path / "run" / "capsules" / "step-5").is_dir()
