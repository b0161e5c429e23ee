"""Two processes, one model (DistributedDataParallel).

Run it with ``torchrun --nproc-per-node=2 examples/ddp.py``.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import steadygrad as sg

dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x = torch.randn(256, 16, generator=torch.Generator().manual_seed(rank))

with sg.Monitor(model, optimizer, every=5) as monitor:
    for _ in range(20):
        loss = (model(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

arrived, used = (monitor.history.column(name, of="step")[-1] for name in ("grad_norm", "grad_norm_used"))
print(f"rank {rank}: gradient norm {arrived:.4g} of its own data, {used:.4g} after averaging over the ranks")
dist.destroy_process_group()
