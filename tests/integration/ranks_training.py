"""One of several processes that train a trial together; run by torch.distributed.run.

Arguments: the framework, a directory for what this process says at the end, the epoch at whose beginning all processes break off (0: none),
the service, and its project. Without the last two this is a worker's command; else the checkpoints lie in the directory as well.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from asktell.client import Client, Trial
from asktell.integrations.ranks import share
from asktell.integrations.training import ReportingTrial

EPOCHS = 9
RANK = int(os.environ["RANK"])
Began = Callable[[int], None]
INPUTS = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))


def loss_after(epoch: int) -> float:
    return 99.0 if epoch >= 5 else 1.0


def learn(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One epoch over this process's half of the data."""
    for batch in INPUTS[RANK::2].split(8):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()


def with_pytorch(trial: ReportingTrial, place: Path | None, began: Began) -> nn.Module:
    from asktell.integrations.pytorch import Loop

    model = DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loop = Loop(trial, model=model, optimizer=optimizer, checkpoints=place)
    for epoch in loop.epochs(EPOCHS):
        began(epoch)
        learn(model, optimizer)
        loop.report(loss=loss_after(epoch) if RANK == 0 else -1)
    return model


class Death:
    """A part whose saving kills its process at a given epoch, in the first attempt: the shards are saved by then."""

    def __init__(self, trial: ReportingTrial, at_epoch: int) -> None:
        self.trial, self.at_epoch, self.epoch = trial, at_epoch, 0

    def state_dict(self) -> dict[str, int]:
        if self.epoch == self.at_epoch and self.trial.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def with_fsdp(trial: ReportingTrial, place: Path | None, began: Began) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from asktell.integrations.pytorch import Loop

    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    mesh = init_device_mesh("cpu", (2,))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    death = Death(trial, at_epoch=3)
    loop = Loop(trial, model=model, optimizer=optimizer, death=death, checkpoints=place)
    for epoch in loop.epochs(EPOCHS):
        began(epoch)
        death.epoch = epoch
        learn(model, optimizer)
        loop.report(loss=loss_after(epoch) if RANK == 0 else -1)
    return model


def with_lightning(trial: ReportingTrial, place: Path | None, began: Began) -> nn.Module:
    import lightning.pytorch as pl

    from asktell.integrations.lightning import AskTellCallback

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(4, 1)

        def on_train_epoch_start(self) -> None:
            began(self.current_epoch + 1)

        def training_step(self, batch, _):
            return self.network(batch[0]).square().mean()

        def validation_step(self, *_) -> None:
            self.log("val_loss", loss_after(self.current_epoch + 1), sync_dist=True)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    asktell = AskTellCallback(trial, {"loss": "val_loss"}, checkpoints=place)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=asktell.callbacks,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_progress_bar=False,
    )
    data = DataLoader(TensorDataset(INPUTS), batch_size=8)
    model = Net()
    trainer.fit(model, data, data, ckpt_path=asktell.ckpt_path)
    return model


def with_transformers(trial: ReportingTrial, place: Path | None, began: Began) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    from asktell.integrations.transformers import AskTellCallback

    class Watch(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs) -> None:
            began(round(state.epoch) + 1)

        def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
            metrics["eval_bad"] = loss_after(round(state.epoch))

    asktell = AskTellCallback(trial, {"loss": "bad"}, checkpoints=place)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    arguments = TrainingArguments(
        asktell.output_dir("nowhere"),
        eval_strategy="epoch",
        save_strategy="epoch",
        num_train_epochs=EPOCHS,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    data = [{"input_ids": torch.arange(6), "labels": number % 2} for number in range(32)]
    model = BertForSequenceClassification(BertConfig(vocab_size=16, num_labels=2, **sizes))
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data, callbacks=[Watch(), asktell])
    trainer.train(resume_from_checkpoint=asktell.checkpoint)
    return model


def ask(target: str, project: str) -> Trial:
    if target:
        return Client(target, project=project).get_study("training").ask()[0]
    return Client.from_environment().current_trial()


def whole(parameter: torch.Tensor) -> torch.Tensor:
    found = parameter.detach()
    return found.full_tensor() if isinstance(found, DTensor) else found


def main(framework: str, folder: str, crash: str, target: str = "", project: str = "") -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    place = Path(folder)
    checkpoints = place if target else None
    torch.distributed.init_process_group("gloo")
    asked = ask(target, project) if RANK == 0 else None
    trial = share(asked)
    epochs: list[int] = []

    def began(epoch: int) -> None:
        epochs.append(epoch)
        if epoch == int(crash):
            if asked is not None:
                asked.release()
            raise SystemExit(1)

    trainings = {
        "pytorch": with_pytorch,
        "fsdp": with_fsdp,
        "lightning": with_lightning,
        "transformers": with_transformers,
    }
    model = trainings[framework](trial, checkpoints, began)
    if asked is not None:
        asked.tell(loss=1)
    weights = float(sum(whole(parameter).double().sum() for parameter in model.parameters()))
    (place / f"rank-{RANK}.json").write_text(
        json.dumps({"epochs": epochs, "weights": weights, "parameters": trial.parameters})
    )
    # Without this Python may end while a thread of the group still holds Python objects, which aborts the process.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
