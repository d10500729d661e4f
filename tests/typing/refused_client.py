"""What a type checker must refuse: each line that is marked, and no other."""

from __future__ import annotations

from asktell import client as at
from asktell.client import aio


def sync(client: at.Client, study: at.Study, trial: at.Trial) -> None:
    client.create_study("s", parameters=[at.Float("x", 0, 1)])  # refused: no objectives
    client.create_study("s", parameters=["x"], objectives=[at.Minimize("y")])  # refused: no parameter
    client.create_study("s", parameters=[], objectives=[], late_tells="later")  # refused: no such value
    at.Float("x", "0", "1")  # refused: text for numbers
    at.Float("x", 0, 1, True)  # refused: a boolean by position
    at.Int("n", 0.5, 1)  # refused: a real bound
    at.Float("x", 0, 1, default=None)  # refused: None is no number
    at.Categorical("c", [object()])  # refused: no kind of value
    trial.tell(accuracy="0.9")  # refused: text for a metric
    trial.report({"accuracy": 0.9})  # refused: no step
    trial.state = at.TrialState.FAILED  # refused: read only
    study.optimize(lambda trial: "0.9")  # refused: text for a metric
    study.trials(on_error="ignore")  # refused: no such choice


async def asynchronous(trial: aio.Trial) -> None:
    async for each in trial.tell(0.9):  # refused: tell is awaited
        assert each
