"""Mixed precision with gradients accumulated, unscaled, clipped, and a scheduler; compiled where asked."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
use_amp, accum_iter = True, 4

net = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4))
net.to(device)
model = torch.compile(net, backend="aot_eager") if "--compile" in sys.argv else net
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=12)
scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
x = torch.randn(48 * 8, 16, device=device)
y = x[:, :4].argmax(1)

for batch_idx, (inputs, labels) in enumerate(zip(x.split(8), y.split(8), strict=True)):
    with torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=use_amp):
        loss = F.cross_entropy(model(inputs), labels) / accum_iter
    scaler.scale(loss).backward()
    if (batch_idx + 1) % accum_iter == 0:
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=0.1)
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
        scheduler.step()
        print(f"{batch_idx + 1}: {loss.item():.4f}")
