"""The callback for Lightning: what it reports, when it stops, and how it goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from asktell import client as at
from asktell.integrations.lightning import AskTellCallback
from tests.trainings import (
    WorkersTrial,
    new_study,
    on_each_device,
    one_thread,  # noqa: F401 - a fixture.
    state,
    steps,
    study_that_stops_above,
)

# Lightning gives advice by warnings: on workers of data loaders, loggers, Slurm.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Net(pl.LightningModule):
    """A network that logs a loss which the test gives, and a training loss."""

    def __init__(self, losses: list[float] | None = None, *, learning_rate: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.losses = losses
        self.learning_rate = learning_rate
        self.begun: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.begun.append(self.current_epoch + 1)

    def training_step(self, batch, _):
        loss = (self.network(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, _, __) -> None:
        self.log("val_loss", 1.0 if self.losses is None else self.losses[self.current_epoch])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)]


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(32, 4, generator=torch.Generator().manual_seed(1))), batch_size=8)


def fit(
    asktell: AskTellCallback, net: Net, *, epochs: int, validate: bool = True, also=(), device: str = "cpu", **options
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[*asktell.callbacks, *also],
        accelerator=device,
        logger=False,
        enable_checkpointing=len(asktell.callbacks) > 1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(net, loader(), loader() if validate else None, ckpt_path=asktell.ckpt_path)
    return trainer


def test_every_epoch_is_reported_and_the_sanity_check_is_not(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    trainer = fit(
        AskTellCallback(trial, {"loss": "val_loss"}), Net([0.5, 0.25, 0.125, 9]), epochs=3, num_sanity_val_steps=2
    )
    measured = [(each.step, each.metrics["loss"].value) for each in study.get_trial(trial.number).measurements]
    assert measured == [(1, 0.5), (2, 0.25), (3, 0.125)]
    trainer.validate(trainer.lightning_module, loader(), verbose=False)
    assert steps(study, trial) == [1, 2, 3]


def test_without_validation_the_training_metrics_are_reported(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    fit(AskTellCallback(trial, {"loss": "train_loss"}), Net(), epochs=2, validate=False)
    assert steps(study, trial) == [1, 2]


def test_several_validations_in_an_epoch_are_counted_by_steps(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    fit(AskTellCallback(trial, {"loss": "val_loss"}, by="step"), Net(), epochs=2, val_check_interval=0.5)
    assert steps(study, trial) == [2, 4, 6, 8]


def test_the_trainer_stops_after_the_epoch_that_the_service_stops(client: at.Client) -> None:
    study = study_that_stops_above(client, 10)
    net = Net([1, 1, 99, 1, 1])
    with study.ask()[0] as trial:
        fit(AskTellCallback(trial, {"loss": "val_loss"}), net, epochs=5)
        trial.tell(loss=1)
    assert net.begun == steps(study, trial) == [1, 2, 3]
    assert state(study, trial) is at.TrialState.STOPPED


def test_a_lost_lease_stops_the_trainer(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    study.get_trial(trial.number).cancel()
    net = Net()
    fit(AskTellCallback(trial, {"loss": "val_loss"}), net, epochs=5)
    assert net.begun == [1]
    assert trial.lost


@pytest.mark.parametrize(
    ("metrics", "complaint"),
    [
        (["loss"], r"metrics\['loss'\]: the framework has no metric 'loss', but train_loss, val_loss|but val_loss"),
        ({"val_loss": "loss"}, "write {the study's name: the framework's}"),
    ],
)
def test_a_metric_that_is_not_logged_is_named_with_those_that_are(client: at.Client, metrics, complaint: str) -> None:
    trial = new_study(client).ask()[0]
    with pytest.raises(at.InvalidArgument, match=complaint):
        fit(AskTellCallback(trial, metrics), Net(), epochs=2)


def test_no_metric_at_all_is_refused(client: at.Client) -> None:
    with pytest.raises(at.InvalidArgument, match="metrics: is empty"):
        AskTellCallback(None, [])


class Crash(pl.Callback):
    """Breaks the training in the midst of an epoch."""

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.current_epoch == 3 and trainer.global_step % 4 == 2:
            raise RuntimeError("the machine went away")


@on_each_device
def test_a_training_that_was_cut_off_goes_on_to_the_very_same_weights(
    client: at.Client, tmp_path: Path, device: str
) -> None:
    whole = Net()
    fit(AskTellCallback(None, "val_loss"), whole, epochs=6, device=device)
    study = new_study(client, max_attempts=2)
    first = study.ask()[0]
    asktell = AskTellCallback(first, {"loss": "val_loss"}, checkpoints=tmp_path)
    with pytest.raises(RuntimeError, match="the machine went away"):
        fit(asktell, Net(), epochs=6, also=[Crash()], device=device)
    first.fail("the machine went away", retry=True)
    second = study.ask()[0]
    assert (second.attempt, second.checkpoint_uri) == (2, (tmp_path / client.project / "training/1/attempt-1").as_uri())
    net = Net()
    trainer = fit(AskTellCallback(second, {"loss": "val_loss"}, checkpoints=tmp_path), net, epochs=6, device=device)
    assert trainer.strategy.root_device.type == device
    assert net.begun == [4, 5, 6]
    assert steps(study, second) == [1, 2, 3, 4, 5, 6]
    assert all(map(torch.equal, net.state_dict().values(), whole.state_dict().values()))


def test_one_checkpoint_is_kept(client: at.Client, tmp_path: Path) -> None:
    trial = new_study(client).ask()[0]
    asktell = AskTellCallback(trial, {"loss": "val_loss"}, checkpoints=tmp_path)
    assert asktell.ckpt_path is None
    fit(asktell, Net(), epochs=3)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lightning.ckpt"]
    assert asktell.ckpt_path == next(tmp_path.rglob("lightning.ckpt"))


def test_a_trial_that_goes_on_from_its_parent_has_its_own_schedule(tmp_path: Path) -> None:
    parent = WorkersTrial(1, tmp_path / "1")
    begun = Net(learning_rate=0.1)
    fit(AskTellCallback(parent, {"loss": "val_loss"}), begun, epochs=3)
    child = parent.child(2, tmp_path / "2")
    net = Net(learning_rate=0.01)
    trainer = fit(AskTellCallback(child, {"loss": "val_loss"}), net, epochs=5)
    assert (parent.steps, child.steps, net.begun) == ([1, 2, 3], [4, 5], [4, 5])
    # Halved after the second and the fourth epoch.
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 4)
    again = Net(learning_rate=0.5)
    trainer = fit(AskTellCallback(child, {"loss": "val_loss"}), again, epochs=6)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 8)


def test_epochs_after_the_parent_are_counted_from_where_it_stood_in_each_attempt(tmp_path: Path) -> None:
    def trained(trial: WorkersTrial, *, cut_after: int = 9) -> list[int]:
        asktell, net = AskTellCallback(trial, {"loss": "val_loss"}), Net()
        fit(asktell, net, epochs=min(asktell.after_parent(2), cut_after))
        return net.begun

    parent = WorkersTrial(1, tmp_path / "1")
    assert trained(parent) == [1, 2]
    child = parent.child(2, tmp_path / "2")
    assert trained(child, cut_after=3) == [3]
    assert trained(child) == [4]
    assert trained(child) == []
    assert trained(child.child(3, tmp_path / "3")) == [5, 6]


def test_where_a_parent_stood_is_not_read_by_running_code(tmp_path: Path) -> None:
    asktell = AskTellCallback(WorkersTrial(1, tmp_path), "val_loss")
    torch.save({"callbacks": {}, "epoch": 1, "code": Net}, tmp_path / "lightning.ckpt")
    with pytest.raises(at.FailedPrecondition, match="has more than tensors and plain values"):
        asktell.after_parent(2)


def test_a_training_that_is_through_has_no_epochs_left_but_its_metrics(client: at.Client, tmp_path: Path) -> None:
    trial = new_study(client).ask()[0]
    fit(AskTellCallback(trial, {"loss": "val_loss"}, checkpoints=tmp_path), Net([0.5, 0.25]), epochs=2)
    again, net = AskTellCallback(trial, {"loss": "val_loss"}, checkpoints=tmp_path), Net()
    fit(again, net, epochs=2)
    assert (net.begun, again.metrics) == ([], {"loss": 0.25})
