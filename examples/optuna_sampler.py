"""An Optuna study whose parameters asktell chooses.

Optuna's objective, pruner, storage and plots stay as they are; only the sampler is another. Run it with `python -m examples.optuna_sampler`:
a server starts in this process on a new database. With a service of your own, write `AskTellSampler("localhost:50051")`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import optuna

from asktell.client import Categorical, Client, Float
from asktell.integrations.optuna import AskTellSampler


def objective(trial: optuna.Trial) -> float:
    """A loss with two branches; its least value, 0, is at optimizer=sgd, learning_rate=0.01, momentum=0.9."""
    rate = trial.suggest_float("learning_rate", 1e-5, 1.0, log=True)
    loss: float = (rate / 0.01 - 1.0) ** 2 / (1.0 + (rate / 0.01) ** 2)
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "adam":
        return loss + 0.2
    return loss + (trial.suggest_float("momentum", 0.0, 0.99) - 0.9) ** 2


def main() -> None:
    """Minimise the objective twice: with what the trials show of the search space, and with the whole space declared."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, Client.local(Path(folder) / "asktell.db") as client:
        inferred = optuna.create_study(sampler=AskTellSampler(client=client, seed=0))
        inferred.optimize(objective, n_trials=30)
        print(f"inferred space: {inferred.best_value:.4f} at {inferred.best_params}")

        sampler = AskTellSampler(
            client=client,
            seed=0,
            parameters=[
                Float("learning_rate", 1e-5, 1.0, log=True),
                Categorical("optimizer", ["adam", "sgd"]),
                Float("momentum", 0.0, 0.99, when=("optimizer", ["sgd"])),
            ],
        )
        declared = optuna.create_study(sampler=sampler)
        declared.optimize(objective, n_trials=30)
        print(f"declared space: {declared.best_value:.4f} at {declared.best_params}")


if __name__ == "__main__":
    main()
