"""Mixed precision: float16 with a loss scaler on a GPU, bfloat16 elsewhere. The monitor sees unscaled gradients."""

import torch
from torch import nn

import steadygrad as sg

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device == "cuda" else torch.bfloat16
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)
x = torch.randn(512, 32, device=device)
y = x[:, :1].sin()

with sg.Monitor(model, optimizer, every=10) as monitor:
    for _ in range(60):
        rows = torch.randint(len(x), (64,), device=device)
        with torch.autocast(device, dtype):
            loss = (model(x[rows]).float() - y[rows]).square().mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # before clipping, or the threshold is compared with scaled gradients
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

arrived, used = (monitor.history.column(name, of="step") for name in ("grad_norm", "grad_norm_used"))
print(f"gradient norm before clipping {arrived[0]:.3g}, as used {used[0]:.3g}")
print(f"skipped steps seen: {int((monitor.history.column('skipped', of='step') > 0).sum())}")
