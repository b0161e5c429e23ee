"""Run a check in two gloo processes and report what failed in them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def check_in_two_processes(check: Callable[[int], None], folder: Path) -> None:
    """Call ``check(rank)`` in two processes of one gloo group; fail with the traceback of the rank that failed.

    Args:
        check: A function of a test module, found there by its name.
        folder: A temporary folder of the test's own.
    """
    processes = torch.multiprocessing.spawn(_worker, (check, str(folder)), nprocs=2, join=False).processes
    for process in processes:
        process.join()
    outcomes = [folder / f"rank{rank}" for rank in range(2)]
    said = [path.read_text() if path.exists() else "ended without a word" for path in outcomes]
    assert said == ["passed", "passed"], "\n".join(said)


def _worker(rank: int, check: Callable[[int], None], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outcome = "passed"
    try:
        check(rank)
        dist.barrier()
    except BaseException:
        outcome = traceback.format_exc()
    Path(folder, f"rank{rank}").write_text(outcome)
    # Gloo's threads can abort an interpreter that shuts down in the usual way, after all checks have passed.
    os._exit(0)
