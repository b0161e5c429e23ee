"""A sharded model (FSDP2): attach the monitor after ``fully_shard``; norms are those of whole layers, not of shards.

Run it with ``torchrun --nproc-per-node=2 examples/fsdp2.py``.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import steadygrad as sg

dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank = dist.get_rank()
device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)).to(device)
fully_shard(model, mesh=init_device_mesh(device.type, (dist.get_world_size(),)))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
x = torch.randn(256, 16, generator=torch.Generator().manual_seed(rank)).to(device)

with sg.Monitor(model, optimizer, every=5) as monitor:
    for _ in range(20):
        loss = (model(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

if rank == 0:
    for layer, norm in zip(monitor.history.layers, monitor.history.column("grad_norm_used")[-1], strict=True):
        print(f"{layer}: gradient norm {norm:.4g} over all shards")
dist.destroy_process_group()
