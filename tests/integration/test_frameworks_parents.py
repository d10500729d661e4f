"""Trainings that go on from their parents' checkpoints, as rungs of a fidelity and as members of a population."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from asktell import client as at
from asktell.integrations.pytorch import Loop
from tests.trainings import one_thread, steps  # noqa: F401 - a fixture.


def train(
    trial: at.Trial, checkpoints: Path, epochs: int, *, after_parent: bool = False
) -> tuple[list[int], list[float]]:
    """The epochs that were trained, and the learning rates that they had."""
    torch.manual_seed(trial.number)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=float(trial.parameters["learning_rate"]), momentum=0.9)
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    loop = Loop(trial, model=model, optimizer=optimizer, checkpoints=checkpoints)
    trained = []
    for epoch in loop.epochs(epochs, after_parent=after_parent):
        optimizer.zero_grad()
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        trained.append((epoch, optimizer.param_groups[0]["lr"]))
        loop.report(loss=loss.item())
    trial.tell(loop.metrics)
    return [epoch for epoch, _ in trained], [rate for _, rate in trained]


def test_a_higher_rung_trains_only_what_the_lower_one_has_not(client: at.Client, tmp_path: Path) -> None:
    study = client.create_study(
        "rungs",
        parameters=[at.Float("learning_rate", 1e-3, 1e-1, log=True), at.Int("epochs", 1, 9, log=True)],
        objectives=[at.Minimize("loss")],
        fidelity=at.Fidelity("epochs", reduction_factor=3),
        policy="random",
        max_trials=16,
    )
    risen = 0
    for trial in study.trials():
        epochs = int(trial.parameters["epochs"])
        parent = study.get_trial(trial.parent) if trial.parent else None
        before = int(parent.parameters["epochs"]) if parent else 0
        trained, rates = train(trial, tmp_path, epochs)
        assert trained == list(range(before + 1, epochs + 1))
        assert set(rates) == {trial.parameters["learning_rate"]}
        risen += before > 0
    assert risen > 0


def test_a_member_goes_on_with_the_learning_rate_of_its_interval(client: at.Client, tmp_path: Path) -> None:
    study = client.create_study(
        "members",
        parameters=[at.Float("learning_rate", 1e-3, 1e-1, log=True)],
        objectives=[at.Minimize("loss")],
        policy="pbt",
        population=at.Population(size=4),
        max_trials=16,
        seed=0,
    )
    changed = 0
    for trial in study.trials():
        parent = study.get_trial(trial.parent) if trial.parent else None
        trained, rates = train(trial, tmp_path, 2, after_parent=True)
        first = steps(study, parent)[-1] if parent else 0
        assert trained == steps(study, trial) == [first + 1, first + 2]
        assert set(rates) == {trial.parameters["learning_rate"]}
        changed += parent is not None and parent.parameters != trial.parameters
    assert changed > 0
