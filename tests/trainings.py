"""Studies for the tests of frameworks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from asktell import client as at

SPACE = [at.Float("learning_rate", 1e-3, 1, log=True)]
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch from having several threads share work that is too small for that."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def new_study(client: at.Client, **options) -> at.Study:
    """A study that minimises `loss`."""
    return client.create_study(
        "training", parameters=SPACE, objectives=[at.Minimize("loss")], policy="random", **options
    )


def study_that_stops_above(client: at.Client, loss: float) -> at.Study:
    """A study that stops a trial whose loss is above a bound, with a trial that leads: one that leads would not be stopped."""
    study = new_study(client, stopping_rule=at.ThresholdRule(at_most=loss))
    with study.ask()[0] as leader:
        for step in (1, 1000):
            leader.report(step=step, loss=-1)
        leader.tell(loss=-1)
    return study


def steps(study: at.Study, trial: at.Trial) -> list[int]:
    """The steps that were reported."""
    return [measurement.step for measurement in study.get_trial(trial.number).measurements]


def state(study: at.Study, trial: at.Trial) -> at.TrialState:
    """How a trial stands at the service."""
    return study.get_trial(trial.number).state


@dataclass(frozen=True, slots=True)
class Going:
    """The answer to a report that is never told to stop."""

    should_stop: bool = False


@dataclass(slots=True)
class WorkersTrial:
    """A trial as a worker hands it to an objective: its directory has what an earlier attempt or its parent left."""

    number: int
    checkpoint_dir: Path
    checkpoint_uri: str = ""
    should_stop: bool = False
    steps: list[int] = field(default_factory=list)

    def report(self, metrics: Mapping[str, float], *, step: int) -> Going:
        """Take note of the step."""
        self.steps.append(step)
        return Going()

    def child(self, number: int, directory: Path) -> WorkersTrial:
        """A trial that goes on from where this one stands."""
        shutil.copytree(self.checkpoint_dir, directory)
        return WorkersTrial(number, directory, self.checkpoint_dir.as_uri())
