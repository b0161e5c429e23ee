"""The real trainers on a real, tiny training: the monitor's numbers are those of a loop written by hand."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset

from steadygrad import Monitor
from steadygrad.monitor import read_run

from .plain_loop import CLIP, LAYERS, RATE, STEPS, batches, loss_of, network, norms_by_hand

pytestmark = pytest.mark.slow
EITHER_WAY = pytest.mark.parametrize(("accumulate", "half"), [(1, False), (3, False), (2, True)])


def assert_right(monitor: Monitor, accumulate: int, half: bool, prefix: str = "") -> None:
    arrived, used = norms_by_hand(accumulate, half)
    places = [monitor.history.layers.index(prefix + layer) for layer in LAYERS]
    assert max(map(max, arrived)) > 2 * CLIP, "clipping changes something, or the test says little"
    np.testing.assert_allclose(monitor.history.column("grad_norm")[:, places], arrived, rtol=1e-4)
    np.testing.assert_allclose(monitor.history.column("grad_norm_used")[:, places], used, rtol=1e-4)
    assert np.isfinite(monitor.history.column("output_rms")[:, places]).all()


def data(accumulate: int) -> TensorDataset:
    parts = batches(accumulate)
    return TensorDataset(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


@EITHER_WAY
def test_a_plain_loop(accumulate: int, half: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    with Monitor(model, optimizer, every=1) as monitor:
        for step, (x, y) in enumerate(batches(accumulate)):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = loss_of(model(x), y)
            (loss / accumulate).backward()
            if step % accumulate == accumulate - 1:
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()
    assert_right(monitor, accumulate, half)


def fit_lightning(callback: Any, accumulate: int, half: bool, breaks: bool = False) -> None:
    import lightning.pytorch as pl

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: list[Tensor], place: int) -> Tensor:
            if breaks and place == 2:
                raise RuntimeError("boom")
            return loss_of(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own advice on workers and on TPUs
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            precision="bf16-mixed" if half else "32-true",
            accumulate_grad_batches=accumulate,
            gradient_clip_val=CLIP,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback],
        )
        trainer.fit(Model(), DataLoader(data(accumulate), batch_size=8))


@EITHER_WAY
def test_lightning(accumulate: int, half: bool) -> None:
    from steadygrad.integrations.lightning import MonitorCallback

    callback = MonitorCallback(every=1)
    fit_lightning(callback, accumulate, half)
    assert_right(callback.monitor, accumulate, half, prefix="net.")


def test_lightning_writes_the_run_of_a_training_that_failed(tmp_path: Path) -> None:
    from steadygrad.integrations.lightning import MonitorCallback

    callback = MonitorCallback(tmp_path / "run", every=1)
    with pytest.raises(RuntimeError, match="boom"):
        fit_lightning(callback, 1, half=False, breaks=True)
    history, _, summary = read_run(tmp_path / "run")
    assert len(history) == 2
    assert summary["ended"] == "failed with RuntimeError"
    fit_lightning(callback, 1, half=False)
    assert_right(callback.monitor, 1, half=False, prefix="net.")


class Rows(Dataset):
    def __init__(self, accumulate: int) -> None:
        self.data = data(accumulate)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        x, y = self.data[place]
        return {"x": x, "labels": y}


class WithLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": loss_of(self.net(x), labels)}


@EITHER_WAY
def test_transformers(accumulate: int, half: bool, tmp_path: Path) -> None:
    import transformers

    from steadygrad.integrations.transformers import MonitorCallback

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    settings = transformers.TrainingArguments(
        str(tmp_path / "out"),
        use_cpu=True,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,
        max_grad_norm=CLIP,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        bf16=half,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    callback = MonitorCallback(tmp_path / "run", every=1)
    trainer = InOrder(WithLoss(), settings, train_dataset=Rows(accumulate), callbacks=[callback])
    trainer.train()
    assert_right(callback.monitor, accumulate, half, prefix="net.")
    said = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    totals = callback.monitor.history.column("grad_norm", of="step")
    np.testing.assert_allclose(totals, said, rtol=1e-4)  # the trainer's own total is the one before clipping
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ended"] == "finished"


@EITHER_WAY
def test_accelerate_with_the_plain_monitor(accumulate: int, half: bool) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one, whose precision stays
    accelerator = Accelerator(
        cpu=True, mixed_precision="bf16" if half else "no", gradient_accumulation_steps=accumulate
    )
    plain = network()
    model, optimizer = accelerator.prepare(plain, torch.optim.SGD(plain.parameters(), lr=RATE))
    with Monitor(model, optimizer, every=1) as monitor:
        for x, y in batches(accumulate):
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()
    assert_right(monitor, accumulate, half)


@EITHER_WAY
def test_fabric_with_the_plain_monitor(accumulate: int, half: bool) -> None:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if half else "32-true")
    plain = network()
    model, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=RATE))
    with Monitor(model, optimizer, every=1) as monitor:
        for step, (x, y) in enumerate(batches(accumulate)):
            fabric.backward(loss_of(model(x), y) / accumulate)
            if step % accumulate == accumulate - 1:
                fabric.clip_gradients(model, optimizer, max_norm=CLIP)
                optimizer.step()
                optimizer.zero_grad()
    assert monitor.steps == STEPS
    assert_right(monitor, accumulate, half)
