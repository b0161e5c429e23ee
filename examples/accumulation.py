"""Accumulate gradients over four parts of a batch: the monitor sees their sum, at each optimizer step once."""

import torch
from torch import nn

import steadygrad as sg

PARTS = 4
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x = torch.randn(1024, 16)
y = x.square().sum(1, keepdim=True) / 16

with sg.Monitor(model, optimizer, every=1) as monitor:
    for part in range(20 * PARTS):
        rows = torch.randint(len(x), (32,))
        loss = (model(x[rows]) - y[rows]).square().mean()
        (loss / PARTS).backward()
        if part % PARTS == PARTS - 1:
            optimizer.step()
            optimizer.zero_grad()

print(f"{monitor.steps} steps of {PARTS} parts, {len(monitor.history)} looks")
print(f"gradient norm of the whole batch: {monitor.history.column('grad_norm', of='step')[-1]:.3g}")
