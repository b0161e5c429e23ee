from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steadygrad.errors import MissingDependencyError, SetupError, UsageError
from steadygrad.training.ray_cluster import RayCluster


def test_without_ray_the_line_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "steadygrad\[ray\]"'):
        RayCluster()


def test_workers_go_with_an_own_cluster_only() -> None:
    with pytest.raises(UsageError, match=r"^RayCluster: expected workers of at least 1 and no address beside them"):
        RayCluster("auto", workers=2)
    with pytest.raises(UsageError, match=r"got 0 and None"):
        RayCluster(workers=0)


@pytest.mark.slow
def test_starting_the_lab_does_not_load_ray(checkout: Path) -> None:
    code = "import sys, steadygrad.lab, steadygrad.cli.lab; sys.exit('ray' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A local cluster of two workers."""
    import ray

    yield RayCluster(workers=2)
    ray.shutdown()


@pytest.mark.slow
def test_results_come_in_order_and_errors_as_they_are(cluster: RayCluster) -> None:
    def triple(shared: int, item: int) -> int:
        return shared * item

    def fail(shared: int, item: int) -> int:
        from steadygrad.errors import SetupError

        raise SetupError("loss: it failed")

    assert list(cluster.map(triple, 3, range(8))) == [3 * item for item in range(8)]
    with pytest.raises(SetupError, match=r"^loss: it failed$"):
        list(cluster.map(fail, 3, range(2)))


@pytest.mark.slow
def test_a_grid_on_a_cluster_survives_a_killed_worker(cluster: RayCluster, tmp_path: Path) -> None:
    from tests.lab.trainings import deadly_grid

    from steadygrad.lab import Store, run

    killed = tmp_path / "killed"
    grid = deadly_grid(killed)
    with Store(tmp_path / "a.sqlite") as store:
        results = run(grid, store, cluster, together=2)
        assert len(store) == 8, "every unit is there once"
    assert killed.exists()
    alone = run(grid)
    assert [result.losses for result in results] == [result.losses for result in alone]
