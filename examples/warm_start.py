"""A study that starts from an earlier one: the same training on this week's data, after last week's was tuned.

Run it with `python -m examples.warm_start`; a server starts in this process on a new database.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from asktell.client import Client, Float, Int, Minimize, ParameterSpec, Study

PARAMETERS: list[ParameterSpec] = [
    Float("learning_rate", 1e-5, 1.0, log=True),
    Float("weight_decay", 1e-6, 1e-1, log=True),
    Float("dropout", 0.0, 0.8),
    Int("layers", 1, 8),
]


def train(parameters: dict[str, Any], *, week: int) -> float:
    """A loss whose best learning rate and dropout drift a little from week to week."""
    rate = math.log10(parameters["learning_rate"]) + 2.6 - 0.1 * week
    decay = math.log10(parameters["weight_decay"]) + 4.0
    dropout, layers = parameters["dropout"] - 0.25 - 0.02 * week, parameters["layers"] - 5
    valley: float = 0.3 * rate**2 + 0.02 * decay**2 + dropout**2 + 0.01 * layers**2 + 0.05 * rate * layers
    return 0.2 + 0.02 * week + valley


def tune(client: Client, name: str, *, week: int, trials: int, warm_start: tuple[str, ...] = ()) -> Study:
    """Tune a week's training."""
    study = client.create_study(
        name, parameters=PARAMETERS, objectives=[Minimize("loss")], max_trials=trials, seed=week, warm_start=warm_start
    )
    study.optimize(lambda trial: train(trial.parameters, week=week))
    return study


def regret(study: Study) -> float:
    """How far the best loss is from the best there is."""
    best = study.best_trial
    assert best is not None
    return best.value() - 0.22


def main() -> None:
    """Tune the first week at length, and the second with a few trials: from nothing, and from the first."""
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        tune(client, "week-0", week=0, trials=30)
        cold = tune(client, "week-1-cold", week=1, trials=8)
        warm = tune(client, "week-1", week=1, trials=8, warm_start=("week-0",))
        print(f"from nothing: {regret(cold):.4f} above the best loss after 8 trials")
        print(f"from week-0:  {regret(warm):.4f} above the best loss after 8 trials")
        print(warm.get_trial(8).record.origin.reason)


if __name__ == "__main__":
    main()
