"""Watch a plain training loop: two lines around it, nothing in it changes."""

import torch
from torch import nn

import steadygrad as sg
from steadygrad.training.datasets import load

torch.manual_seed(0)
data = load("digits")
x, y = (torch.as_tensor(part) for part in data.train)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

with sg.Monitor(model, optimizer, every=10) as monitor:
    for _ in range(100):
        rows = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

for layer, ratio in zip(monitor.history.layers, monitor.history.column("update_ratio")[-1], strict=True):
    print(f"{layer}: update to weight ratio {ratio:.1e}")
print(f"{len(monitor.findings)} alarms")
