"""Train in two processes with the trainer that is named, and save what each rank was given and what it saw."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integrations.plain_loop import CLIP, RATE, batches, loss_of, network

parts = batches(2)
data = TensorDataset(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
given: list[tuple[Tensor, Tensor]] = []


def with_lightning() -> object:
    import lightning.pytorch as pl

    from steadygrad.integrations.lightning import MonitorCallback

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: list[Tensor], place: int) -> Tensor:
            given.append((batch[0], batch[1]))
            return loss_of(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    callback = MonitorCallback(every=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        gradient_clip_val=CLIP,
        callbacks=[callback],
        **quiet,
    )
    trainer.fit(Model(), DataLoader(data, batch_size=8))
    return callback.monitor


def with_transformers() -> object:
    import transformers

    from steadygrad.integrations.transformers import MonitorCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            given.append((x, labels))
            return {"loss": loss_of(self.net(x), labels)}

    settings = transformers.TrainingArguments(
        str(Path(sys.argv[2]) / "out"),
        use_cpu=True,
        ddp_backend="gloo",
        per_device_train_batch_size=8,
        num_train_epochs=1,
        max_grad_norm=CLIP,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    callback = MonitorCallback(every=1)
    rows = [{"x": x, "labels": y} for x, y in data]
    transformers.Trainer(Model(), settings, train_dataset=rows, callbacks=[callback]).train()
    return callback.monitor


warnings.simplefilter("ignore")
history = {"lightning": with_lightning, "transformers": with_transformers}[sys.argv[1]]().history
places = [history.layers.index(f"net.{layer}") for layer in ("0", "2")]
seen = [torch.tensor(history.column(name)[:, places]) for name in ("grad_norm", "grad_norm_used")]
torch.save({"given": given, "seen": seen}, Path(sys.argv[2]) / f"rank{dist.get_rank()}.pt")
