"""Lightning: one callback. Needs ``pip install "steadygrad[lightning]"``."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from steadygrad.integrations.lightning import MonitorCallback


class Regression(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: list[Tensor], place: int) -> Tensor:
        x, y = batch
        return (self.net(x) - y).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


torch.manual_seed(0)
x = torch.randn(512, 16)
callback = MonitorCallback("runs/lightning", every=5)  # `steadygrad show runs/lightning` afterwards
trainer = pl.Trainer(
    max_epochs=2,
    accelerator="cpu",
    gradient_clip_val=0.1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    callbacks=[callback],
)
trainer.fit(Regression(), DataLoader(TensorDataset(x, x[:, :1].sin()), batch_size=64))

arrived, used = (callback.monitor.history.column(name, of="step")[0] for name in ("grad_norm", "grad_norm_used"))
print(f"first look: gradient norm {arrived:.3g} before clipping, {used:.3g} after")
