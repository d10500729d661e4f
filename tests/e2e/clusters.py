"""What tests of workers on clusters share: a study of twenty trials, one of which is held up in its first attempt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from asktell.client import Client, Float, Minimize, Study, TrialState
from tests.processes import Process, until

HELD = 3
"""The trial whose first attempt never ends by itself."""
TRIALS = 20


def create(client: Client, name: str) -> Study:
    """The study."""
    return client.create_study(
        name, parameters=[Float("x", 0, 1)], objectives=[Minimize("loss")], policy="random", max_trials=TRIALS
    )


def held(directory: Path, lead: Process, *, said: Callable[[], str]) -> psutil.Process:
    """The process of the held attempt, once it has written its number; `said` is what explains why it has not."""
    found = directory / "held"
    until(lambda: (found.exists() and found.read_text()) or lead.popen.poll() is not None)
    assert found.exists(), said()
    return psutil.Process(int(found.read_text()))


def assert_complete(study: Study) -> None:
    """The study has reached its budget."""
    succeeded = [trial.number for trial in study.list_trials() if trial.state is TrialState.SUCCEEDED]
    assert succeeded == list(range(1, TRIALS + 1))
