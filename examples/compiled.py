"""A compiled model: attach the monitor before the first call, so that its hooks are compiled in."""

import torch
from torch import nn

import steadygrad as sg

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1))
fast = torch.compile(model, backend="aot_eager")  # leave `backend` away where a C++ compiler is at hand
optimizer = torch.optim.AdamW(fast.parameters(), lr=1e-2)
x = torch.randn(256, 16)

with sg.Monitor(fast, optimizer, every=5) as monitor:
    for _ in range(20):
        loss = (fast(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

for layer, rms in zip(monitor.history.layers, monitor.history.column("output_rms")[-1], strict=True):
    print(f"{layer}: output rms {rms:.3g}")
