"""The loop for plain PyTorch: what it reports, when it ends, and how it goes on."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asktell import client as at
from asktell.client import aio
from asktell.integrations.pytorch import Loop
from tests.trainings import (
    WorkersTrial,
    new_study,
    on_each_device,
    one_thread,  # noqa: F401 - a fixture.
    state,
    steps,
    study_that_stops_above,
)

EPOCHS = 6


class Training:
    """A small network with all that has a state: dropout, batch normalisation, momentum, a schedule, three sources of randomness."""

    def __init__(self, learning_rate: float = 0.1, *, seed: int = 0, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.model.to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=learning_rate, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=EPOCHS)
        self.shuffling = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)).to(device)

    def loop(self, trial: at.Trial | None, **options) -> Loop:
        return Loop(
            trial,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            shuffling=self.shuffling,
            **options,
        )

    def epoch(self) -> float:
        order = torch.randperm(64, generator=self.shuffling)
        for batch in order.split(16):
            inputs = self.inputs[batch] + 0.01 * random.random() + 0.01 * np.random.random()
            self.optimizer.zero_grad()
            loss = (self.model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
            loss.backward()
            self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    @property
    def weights(self) -> list[torch.Tensor]:
        momenta = [state["momentum_buffer"] for state in self.optimizer.state.values()]
        return [*copy.deepcopy(self.model).state_dict().values(), *momenta]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_every_epoch_is_reported(client: at.Client) -> None:
    study = new_study(client)
    with study.ask()[0] as trial:
        loop = Training().loop(trial)
        for epoch in loop.epochs(3):
            assert not loop.report(loss=torch.tensor(0.5**epoch))
        trial.tell(loop.metrics)
    measurements = study.get_trial(1).measurements
    assert [(each.step, each.metrics["loss"].value) for each in measurements] == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_the_epochs_end_after_the_one_that_the_service_stops(client: at.Client) -> None:
    study = study_that_stops_above(client, 10)
    begun = []
    with study.ask()[0] as trial:
        loop = Training().loop(trial)
        for epoch in loop.epochs(9):
            begun.append(epoch)
            assert loop.report(loss=99 if epoch == 4 else 1) == (epoch == 4)
        trial.tell(loop.metrics)
    assert begun == steps(study, trial) == [1, 2, 3, 4]
    assert state(study, trial) is at.TrialState.STOPPED


def test_a_lost_lease_ends_the_epochs(client: at.Client) -> None:
    study = new_study(client)
    trial = study.ask()[0]
    loop = Training().loop(trial)
    begun = []
    for epoch in loop.epochs(9):
        begun.append(epoch)
        if epoch == 2:
            study.get_trial(1).cancel()
        loop.report(loss=1)
    assert begun == [1, 2]
    assert trial.lost


@on_each_device
def test_a_training_that_was_cut_off_goes_on_to_the_very_same_weights(
    client: at.Client, tmp_path: Path, device: str
) -> None:
    whole = Training(device=device)
    for _ in whole.loop(None).epochs(EPOCHS):
        whole.epoch()
    study = new_study(client)
    first = study.ask()[0]
    begun = Training(device=device)
    loop = begun.loop(first, checkpoints=tmp_path)
    for epoch in loop.epochs(EPOCHS):
        loop.report(loss=begun.epoch())
        if epoch == 4:
            break  # In the midst of the fourth epoch: the third is saved.
    first.release()
    second = study.ask()[0]
    assert second.number == first.number
    resumed = Training(seed=7, device=device)
    loop = resumed.loop(second, checkpoints=tmp_path)
    left = []
    for epoch in loop.epochs(EPOCHS):
        left.append(epoch)
        loop.report(loss=resumed.epoch())
    assert left == [4, 5, 6]
    assert equal(resumed.weights, whole.weights)
    assert not equal(begun.weights, whole.weights)


def test_an_attempt_that_failed_hands_its_checkpoint_to_the_next(client: at.Client, tmp_path: Path) -> None:
    study = new_study(client, max_attempts=2)
    first = study.ask()[0]
    loop = Training().loop(first, checkpoints=tmp_path)
    for _ in loop.epochs(2):
        loop.report(loss=1)
    first.fail("the machine went away", retry=True)
    second = study.ask()[0]
    assert second.attempt == 2
    place = tmp_path / client.project / "training" / "1"
    assert second.checkpoint_uri == (place / "attempt-1").as_uri()
    assert list(Training().loop(second, checkpoints=tmp_path).epochs(4)) == [3, 4]
    assert sorted(path.name for path in place.iterdir()) == ["attempt-1", "attempt-2"]


def test_a_training_that_is_through_has_no_epochs_left_but_its_metrics(client: at.Client, tmp_path: Path) -> None:
    trial = new_study(client).ask()[0]
    loop = Training().loop(trial, checkpoints=tmp_path)
    for _ in loop.epochs(2):
        loop.report(loss=0.5)
    again = Training().loop(trial, checkpoints=tmp_path)
    assert list(again.epochs(2)) == []
    assert again.metrics == {"loss": 0.5}


def test_a_crash_while_saving_leaves_the_state_before(client: at.Client, tmp_path: Path, monkeypatch) -> None:
    trial = new_study(client).ask()[0]
    save = torch.save

    def fail_in_the_midst(state, file) -> None:
        save(state, file)
        if state["epoch"] == 3:
            file.truncate(100)
            raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail_in_the_midst)
    with pytest.raises(OSError, match="no space"):
        for _ in Training().loop(trial, checkpoints=tmp_path).epochs(5):
            pass
    monkeypatch.undo()
    assert list(Training().loop(trial, checkpoints=tmp_path).epochs(4)) == [3, 4]


def test_saving_is_as_rare_as_asked_for_but_for_the_last_epoch(client: at.Client, tmp_path: Path) -> None:
    trial = new_study(client).ask()[0]
    loop = Training().loop(trial, checkpoints=tmp_path, save_every=3)
    written = [(epoch, len(list(tmp_path.rglob("loop.pt")))) for epoch in loop.epochs(5)]
    assert written == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]
    assert list(Training().loop(trial, checkpoints=tmp_path).epochs(6)) == [6]


def test_a_state_of_another_training_is_refused(client: at.Client, tmp_path: Path) -> None:
    trial = new_study(client).ask()[0]
    list(Training().loop(trial, checkpoints=tmp_path).epochs(1))
    with pytest.raises(
        at.FailedPrecondition, match="has model, optimizer, scheduler, shuffling, but this training model"
    ):
        list(Loop(trial, model=nn.Linear(1, 1), checkpoints=tmp_path).epochs(2))


def test_trials_have_directories_of_their_own(client: at.Client, tmp_path: Path) -> None:
    first, second = new_study(client).ask(2)
    list(Training().loop(first, checkpoints=tmp_path).epochs(2))
    assert list(Training().loop(second, checkpoints=tmp_path).epochs(2)) == [1, 2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"save_every": 0}, "save_every: is 0, not 1 or more"),
        ({"model": "weights"}, "model: is a str, without state_dict and load_state_dict"),
    ],
)
def test_bad_options_are_named(client: at.Client, options: dict, complaint: str) -> None:
    with pytest.raises(at.InvalidArgument, match=complaint):
        Loop(None, **options)


def test_a_report_outside_of_the_epochs_is_refused(client: at.Client) -> None:
    with pytest.raises(at.FailedPrecondition, match="belongs into"):
        Loop(None).report(loss=1)


async def test_a_trial_of_asyncio_is_refused(client: at.Client) -> None:
    new_study(client)
    async with aio.Client(client.target, project=client.project) as asynchronous:
        trials = await (await asynchronous.get_study("training")).ask()
        with pytest.raises(TypeError, match=r"not of asktell\.client\.aio"):
            Loop(trials[0])


def test_a_trial_that_goes_on_from_its_parent_has_its_own_schedule(tmp_path: Path) -> None:
    parent = WorkersTrial(1, tmp_path / "1")
    begun = Training(learning_rate=0.1)
    for _ in begun.loop(parent).epochs(3):
        begun.epoch()
    child = parent.child(2, tmp_path / "2")
    training = Training(learning_rate=0.01, seed=7)
    rates = []
    for epoch in training.loop(child).epochs(2, after_parent=True):
        if not rates:
            assert equal(training.weights, begun.weights)
        rates.append((epoch, training.optimizer.param_groups[0]["lr"]))
        training.epoch()
    alike = Training(learning_rate=0.01)
    alone = []
    for epoch in alike.loop(None).epochs(5):
        alone.append((epoch, alike.optimizer.param_groups[0]["lr"]))
        alike.epoch()
    assert rates == alone[3:]
    # The next attempt of the same trial goes on with what its checkpoint says, and to the same end.
    assert list(Training(learning_rate=0.5).loop(child).epochs(4, after_parent=True)) == [6, 7]


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=optimizer.defaults["lr"], total_steps=9
        ),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
                torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
            ],
            milestones=[3],
        ),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch)),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    ],
    ids=["one cycle", "sequential", "lambda", "restarts"],
)
def test_schedules_of_all_kinds_are_wound_to_where_the_parents_stood(tmp_path: Path, schedule) -> None:
    def rates(trial: WorkersTrial | None, learning_rate: float, epochs: int) -> list[float]:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
        scheduler = schedule(optimizer)
        seen = []
        for _ in Loop(trial, model=model, optimizer=optimizer, scheduler=scheduler).epochs(epochs):
            optimizer.step()
            seen.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
        return seen

    parent = WorkersTrial(1, tmp_path / "1")
    rates(parent, 0.3, 4)
    assert rates(parent.child(2, tmp_path / "2"), 0.07, 8) == pytest.approx(rates(None, 0.07, 8)[4:])


def test_the_directory_of_a_workers_command_is_for_its_own_trial(
    client: at.Client, tmp_path: Path, monkeypatch
) -> None:
    own, other = new_study(client).ask(2)
    monkeypatch.setenv("ASKTELL_TRIAL_NAME", own.name)
    monkeypatch.setenv("ASKTELL_CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.setenv("ASKTELL_CHECKPOINT_DIR_URI", tmp_path.as_uri())
    list(Training().loop(other).epochs(1))
    assert not list(tmp_path.iterdir())
    list(Training().loop(own).epochs(1))
    assert [path.name for path in tmp_path.iterdir()] == ["loop.pt"]
    study = client.get_study("training")
    assert [study.get_trial(each.number).checkpoint_uri for each in (own, other)] == [tmp_path.as_uri(), ""]
