"""Watch a training for very many steps: memory stays flat, files stay under their caps; exit code 1 if not.

python benchmarks/soak.py
python benchmarks/soak.py --steps 20000 --every 10
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from steadygrad.monitor import JsonLines, Monitor
from steadygrad.records import History

LOG_CAP = HISTORY_CAP = 4 * 2**20  # bytes; small ones, so that they are reached long before the second fifth
GROWTH = 8 * 2**20  # bytes that the process may grow by from the second fifth to the last, besides the history


def resident() -> int:
    """Return the bytes that this process holds in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    start = time.monotonic()
    log = JsonLines(Path(tempfile.mkdtemp()) / "log.jsonl", limit=LOG_CAP)
    used: list[tuple[int, int]] = []
    monitor = Monitor(model, optimizer, every=options.every, on_alarm=lambda finding: None, sinks=[log])
    monitor.history = History(limit=HISTORY_CAP)
    with monitor:
        for step in range(1, options.steps + 1):
            x = torch.randn(8, 16)
            optimizer.zero_grad()
            F.cross_entropy(model(x), (x[:, :4]).argmax(1)).backward()
            optimizer.step()
            if step % (options.steps // 5) == 0:
                gc.collect()
                used.append((resident(), monitor.history.nbytes))
                print(
                    f"step {step:>8}: process {used[-1][0] / 2**20:7.1f} MiB, history {used[-1][1] / 2**20:5.1f} MiB, "
                    f"{len(monitor.history)} looks, log {log.path.stat().st_size / 2**20:.2f} MiB, "
                    f"{len(monitor.findings)} findings, {time.monotonic() - start:.0f} s",
                    flush=True,
                )
    (early, early_history), (late, late_history) = used[1], used[-1]
    grown = (late - late_history) - (early - early_history)
    size = log.path.stat().st_size
    print(f"growth besides the history {grown / 2**20:.1f} MiB, log {size / 2**20:.2f} of {LOG_CAP / 2**20:.0f} MiB")
    return int(grown > GROWTH or size > LOG_CAP or late_history > HISTORY_CAP)


if __name__ == "__main__":
    sys.exit(main())
