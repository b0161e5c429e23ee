"""Hugging Face Trainer: one callback. Needs ``pip install "steadygrad[transformers]"``."""

import tempfile

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from steadygrad.integrations.transformers import MonitorCallback


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.net(x) - labels).square().mean()}


torch.manual_seed(0)
x = torch.randn(512, 16)
rows = [{"x": row, "labels": row[:1].sin()} for row in x]
callback = MonitorCallback("runs/transformers", every=5)  # `steadygrad show runs/transformers` afterwards
with tempfile.TemporaryDirectory() as folder:
    settings = TrainingArguments(
        folder,
        num_train_epochs=2,
        per_device_train_batch_size=64,
        learning_rate=1e-2,
        max_grad_norm=0.1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    Trainer(Regression(), settings, train_dataset=rows, callbacks=[callback]).train()

arrived, used = (callback.monitor.history.column(name, of="step")[0] for name in ("grad_norm", "grad_norm_used"))
print(f"first look: gradient norm {arrived:.3g} before clipping, {used:.3g} after")
